"""What all recipes share: the training loop, devices, data, logging, checkpoints, resume and report."""
