"""Focal frequency loss: the distance of images' spectra, weighed by itself."""

from __future__ import annotations

from torch import Tensor, nn

from fastgan.ops._checks import (
    as_factor,
    as_finite,
    as_flag,
    as_whole_number,
    check_alike,
    check_image,
)
from fastgan.ops.frequency_distance import frequency_distance
from fastgan.reference.precision import wide


class FocalFrequencyLoss(nn.Module):
    """:func:`focal_frequency_loss` as a module, with the arguments of the focal-frequency-loss package."""

    def __init__(
        self,
        loss_weight: float = 1.0,
        alpha: float = 1.0,
        patch_factor: int = 1,
        ave_spectrum: bool = False,
        log_matrix: bool = False,
        batch_matrix: bool = False,
    ) -> None:
        super().__init__()
        self.loss_weight, self.alpha = as_factor("loss_weight", loss_weight), as_finite("alpha", alpha)
        self.patch_factor = as_whole_number("patch_factor", patch_factor)
        self.ave_spectrum = as_flag("ave_spectrum", ave_spectrum)
        self.log_matrix = as_flag("log_matrix", log_matrix)
        self.batch_matrix = as_flag("batch_matrix", batch_matrix)

    def forward(self, pred: Tensor, target: Tensor, matrix: Tensor | None = None) -> Tensor:
        """The loss, 0-d; arguments and errors are those of :func:`focal_frequency_loss`."""
        return self.loss_weight * focal_frequency_loss(
            pred, target, matrix, alpha=self.alpha, patch_factor=self.patch_factor,
            ave_spectrum=self.ave_spectrum, log_matrix=self.log_matrix, batch_matrix=self.batch_matrix,
        )  # fmt: skip


def focal_frequency_loss(
    pred: Tensor,
    target: Tensor,
    matrix: Tensor | None = None,
    *,
    alpha: float = 1.0,
    patch_factor: int = 1,
    ave_spectrum: bool = False,
    log_matrix: bool = False,
    batch_matrix: bool = False,
) -> Tensor:
    r"""The mean squared difference of spectra, each frequency weighed by how much it differs.

    .. math::
        L = \operatorname{mean}_{u, v} \, w_{uv} |D_{uv}|^2, \qquad
        w_{uv} = \frac{|D_{uv}|^\alpha}{\max_{u, v} |D_{uv}|^\alpha}

    where D is the orthonormal Fourier transform of the difference of both images. The weights are constants,
    clamped to [0, 1], and 0 where they are not a number, as for equal images. One transform of half a
    spectrum (that of a real image is symmetric) in place of the package's two of whole ones, and one sweep
    (:mod:`fastgan.ops.frequency_distance`).

    Args:
        pred, target: N C H W, of equal shapes; float16 and bfloat16 are transformed in float32.
        matrix: weights in [0, 1] in place of w, without gradient; broadcastable to the patches' shape
            (N, patches, C, H, W), with N = 1 for `ave_spectrum`.
        alpha: the exponent.
        patch_factor: into how many rows and columns of patches an image is cut, each with its own spectrum.
        ave_spectrum: compare the batch's mean spectra.
        log_matrix: take log(1 + w) of the weights before they are divided by their maximum.
        batch_matrix: divide by the maximum over the batch, not that of each channel and patch.

    Returns:
        0-d, float32, or float64 for float64. Gradients of every order are exact, with constant weights.

    Raises:
        TypeError, ValueError: arguments that are not such images, of unequal shapes, or that cannot be cut
            into these patches; a matrix that does not fit or, where it can be read without synchronization,
            has values outside [0, 1].

    Source: Jiang et al., "Focal frequency loss for image reconstruction and synthesis", ICCV 2021.
    """
    check_image("pred", pred, channels=None)
    check_image("target", target, channels=None)
    check_alike("pred", pred, "target", target)
    patch_factor = as_whole_number("patch_factor", patch_factor)
    ave_spectrum = as_flag("ave_spectrum", ave_spectrum)
    height, width = pred.shape[2:]
    if height % patch_factor or width % patch_factor:
        raise ValueError(
            f"patch_factor must divide height and width, got {patch_factor} for images of {height} x {width}"
        )
    difference = wide(pred) - wide(target)
    if ave_spectrum:
        difference = difference.mean(dim=0, keepdim=True)
    return frequency_distance(
        _cut(difference, patch_factor), matrix, alpha=alpha, log_matrix=log_matrix, batch_matrix=batch_matrix
    )


def _cut(images: Tensor, factor: int) -> Tensor:
    """(N, patches, C, H, W): the patches of each image, row by row."""
    n, c, h, w = images.shape
    grid = images.reshape(n, c, factor, h // factor, factor, w // factor)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(n, factor * factor, c, h // factor, w // factor)
