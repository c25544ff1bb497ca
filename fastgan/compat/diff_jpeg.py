"""Names and signatures of Diff-JPEG (`diff_jpeg`)."""

from __future__ import annotations

from torch import Tensor

from fastgan.compat.kornia import check_colour, jpeg_codec_differentiable
from fastgan.ops._checks import as_flag
from fastgan.ops._value_range import GrossRangeCheck

__all__ = ["diff_jpeg_coding"]

_range_check = GrossRangeCheck(
    "diff_jpeg_coding",
    ("image_rgb",),
    {
        (0, 1): "images in [0, 1] must be multiplied by 255 first",
        (-1, 1): "images in [-1, 1] must be brought to [0, 255] first, as 127.5 * (image + 1)",
    },
)


def diff_jpeg_coding(
    image_rgb: Tensor,
    jpeg_quality: Tensor | float,
    quantization_table_y: Tensor | None = None,
    quantization_table_c: Tensor | None = None,
    ste: bool = False,
    *,
    check_range: bool = True,
) -> Tensor:
    """JPEG with the signature of Diff-JPEG (Reich et al., WACV 2024).

    Args:
        image_rgb: B 3 H W, or 3 H W, in [0, 255].
        jpeg_quality: in [1, 100]; a number, (1,) or (B,).
        quantization_table_y, quantization_table_c: as in
            :func:`fastgan.compat.kornia.jpeg_codec_differentiable`.
        ste: round straight through instead of by polynomials.
        check_range: whether to check the process's first images and to issue a RuntimeWarning, once, for
            images in [0, 1] or [-1, 1].

    Returns:
        The decoded images in [0, 255], in the input's shape.

    Raises:
        TypeError, ValueError: as :func:`fastgan.compat.kornia.jpeg_codec_differentiable`.
    """
    check_colour("image_rgb", image_rgb)
    rounding = "straight_through" if as_flag("ste", ste) else "polynomial"
    if as_flag("check_range", check_range):
        _range_check.look((0, 255), image_rgb)
    return 255 * jpeg_codec_differentiable(
        image_rgb / 255, jpeg_quality, quantization_table_y, quantization_table_c, rounding=rounding,
        check_range=False,
    )  # fmt: skip
