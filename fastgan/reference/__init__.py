"""Every op in plain PyTorch: the definition that kernels are tested against, and the fallback."""
