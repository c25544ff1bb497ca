"""Every op as plain PyTorch: the definition that kernels are compared with, and the fallback."""
