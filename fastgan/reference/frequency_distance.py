"""The focal distance of images' spectra, in plain PyTorch. See `fastgan.losses.focal_frequency_loss`."""

from __future__ import annotations

import torch
from torch import Tensor


def frequency_distance(
    patches: Tensor, matrix: Tensor | None, alpha: float, log_matrix: bool, batch_matrix: bool
) -> Tensor:
    """Of (N, patches, C, H, W), the differences of two images, 0-d in their dtype.

    The matrix has the weights of half a spectrum, (N, patches, C, H, W // 2 + 1), in place of those that
    follow from the differences.
    """
    width = patches.shape[-1]
    spectrum = torch.view_as_real(torch.fft.rfft2(patches, norm="ortho"))
    squares = spectrum.square().sum(dim=-1)
    weights = _weights(squares.detach(), alpha, log_matrix, batch_matrix) if matrix is None else matrix
    # Each column but the first, and the last of an even number, stands for its mirror image, too.
    mirrored = slice(1, (width + 1) // 2)
    products = (weights * squares).sum() + (weights[..., mirrored] * squares[..., mirrored]).sum()
    return products / patches.numel()


def _weights(squares: Tensor, alpha: float, log_matrix: bool, batch_matrix: bool) -> Tensor:
    weights = squares.sqrt() if alpha == 1 else squares ** (alpha / 2)
    if log_matrix:
        weights = torch.log1p(weights)
    weights = weights / (weights.amax() if batch_matrix else weights.amax(dim=(-2, -1), keepdim=True))
    return weights.nan_to_num(nan=0.0).clamp(0, 1)
