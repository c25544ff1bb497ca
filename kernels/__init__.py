"""Triton kernels, one file per op; installed and always imported as `fastgan.kernels`."""
