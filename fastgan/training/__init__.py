"""The loop that all recipes share: devices, data, logging, checkpoints, resume, report."""
