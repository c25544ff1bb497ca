"""The JPEG round trip in plain PyTorch: colour, chroma subsampling, DCT, quantization, and back.

With `rounding="straight_through"` each stage computes the integers of libjpeg-turbo's default encoder and
decoder ("islow"), and has the gradient of the same stage in real numbers: that of the identity for roundings,
and zero for clamps where they act. The other roundings are surrogates that are differentiated as a whole, so
nothing else is rounded with them either.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.reference.clamp import clamp
from fastgan.reference.philox import philox, uniform
from fastgan.reference.precision import without_autocast

# JFIF's full-range BT.601, and libjpeg's constants for it, in 16-bit fixed point.
RGB_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
YCBCR_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
_FIXED_TO_YCBCR = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
_FIXED_TO_RGB = ((0, 91881), (-22554, -46802), (116130, 0))


@dataclass(frozen=True)
class Format:
    """The chroma format: pixels per sample across and down, and whether the decoder upsamples smoothly."""

    horizontal: int = 2
    vertical: int = 2
    fancy: bool = True


def jpeg(
    image: Tensor,
    tables: Tensor,
    rounding: str,
    form: Format,
    seed: Tensor | None = None,
    truncate: bool = False,
) -> Tensor:
    """Encodes and decodes images.

    Args:
        image: N 3 H W, RGB in [0, 1].
        tables: (N or 1, 2, 8, 8), the quantization tables of luma and chroma.
        rounding: "straight_through", "noise", "none" or a key of `SURROGATES`.
        form: the chroma format.
        seed: 0-d int64, for `rounding="noise"`.
        truncate: whether whole grey levels are rounded down instead of to the nearest.

    Returns:
        N 3 H W in [0, 1], in the image's dtype.
    """
    # Autocast would compute the matrix products in half precision.
    with without_autocast(image):
        wide = image if image.dtype == torch.float64 else image.float()
        return _jpeg(wide, tables.to(wide.dtype), rounding, form, seed, truncate).to(image.dtype)


def _jpeg(
    image: Tensor, tables: Tensor, rounding: str, form: Format, seed: Tensor | None, truncate: bool
) -> Tensor:
    exact = rounding == "straight_through"
    height, width = image.shape[2:]
    chroma_height, chroma_width = -(-height // form.vertical), -(-width // form.horizontal)
    rows = -(-height // (8 * form.vertical))
    columns = -(-width // (8 * form.horizontal))
    if exact:
        rounded = _through(tables.detach().round().clamp(min=1), tables)
        valid = (tables >= 0.5) & (tables < 255.5)
        tables = rounded * torch.where(valid, 1.0, math.nan).to(tables.dtype)

    levels = clamp(image * 255, 0, 255)
    if exact:
        whole = levels.detach().floor() if truncate else levels.detach().round()
        levels = _through(whole, levels)
    samples = _to_ycbcr(_repeat_edge(levels, height, columns * 8 * form.horizontal), exact)
    luma = _repeat_edge(samples[:, :1], rows * 8 * form.vertical, samples.shape[3])
    chroma = _repeat_edge(samples[:, 1:], chroma_height * form.vertical, samples.shape[3])
    chroma = _repeat_edge(_subsample(chroma, form, exact), rows * 8, columns * 8)

    noises: tuple[Tensor, Tensor] | tuple[None, None] = (None, None)
    if rounding == "noise":
        assert seed is not None
        noises = _noise(seed, image.shape[0], rows, columns, form, image)
    luma = _code_blocks(luma, tables[:, :1], rounding, noises[0])
    chroma = _code_blocks(chroma, tables[:, 1:], rounding, noises[1])

    # The decoder upsamples from the image's chroma samples alone, not from the padding.
    chroma = _upsample(chroma[..., :chroma_height, :chroma_width], form, exact)
    decoded = _to_rgb(luma[..., :height, :width], chroma[..., :height, :width], exact)
    return clamp(decoded, 0, 255) / 255


def _through(exact: Tensor, real: Tensor) -> Tensor:
    """The value of `exact` with the gradient of `real`; NaN where either is NaN."""
    return exact + (real - real.detach())


def _integers(x: Tensor) -> Tensor:
    return x.detach().nan_to_num().round().to(torch.int32)


def _repeat_edge(x: Tensor, height: int, width: int) -> Tensor:
    """X cropped, or padded by repeating the last row and column, to the given size."""
    for dim, size in ((2, height), (3, width)):
        if x.shape[dim] != size:
            index = torch.arange(size, device=x.device).clamp(max=x.shape[dim] - 1)
            x = x.index_select(dim, index)
    return x


# --- colour and chroma ------------------------------------------------------------------------------------


def _to_ycbcr(levels: Tensor, exact: bool) -> Tensor:
    """Grey levels of RGB to centred samples, -128..127."""
    # Rows of the matrix sum to 1, 0 and 0, so differences from green make greys exact. At quality 50 half of
    # all greys lie where a surrogate jumps, and rounding errors must not decide on which side.
    red, green, blue = levels.unbind(1)
    differences = [r * (red - green) + b * (blue - green) for r, _, b in RGB_TO_YCBCR]
    real = torch.stack([differences[0] + (green - 128), *differences[1:]], dim=1)
    if not exact:
        return real
    red, green, blue = _integers(levels).unbind(1)
    planes = []
    for (r, g, b), half in zip(_FIXED_TO_YCBCR, (32768, 32767, 32767), strict=True):
        planes.append((r * red + g * green + b * blue + half) >> 16)
    planes[0] = planes[0] - 128
    return _through(torch.stack(planes, dim=1).to(real.dtype), real)


def _to_rgb(luma: Tensor, chroma: Tensor, exact: bool) -> Tensor:
    samples = torch.cat([luma + 128, chroma], dim=1)
    real = torch.einsum("rc,nchw->nrhw", _constant(YCBCR_TO_RGB, luma), samples)
    if not exact:
        return real
    y, cb, cr = _integers(samples).unbind(1)
    planes = [y + ((b * cb + r * cr + 32768) >> 16) for b, r in _FIXED_TO_RGB]
    return _through(torch.stack(planes, dim=1).to(real.dtype), real)


def _subsample(chroma: Tensor, form: Format, exact: bool) -> Tensor:
    """Means of 2 or 4 samples; those of integers round halves alternately down and up along the row."""
    if form.horizontal == 1:
        return chroma
    count = form.horizontal * form.vertical
    real = F.avg_pool2d(chroma, (form.vertical, form.horizontal))
    if not exact:
        return real
    sums = _integers(real.detach() * count)
    parity = torch.arange(sums.shape[3], device=sums.device, dtype=torch.int32) % 2
    return _through(((sums + parity + count // 4) >> (count // 2)).to(real.dtype), real)


def _upsample(chroma: Tensor, form: Format, exact: bool) -> Tensor:
    if form.horizontal == 1:
        return chroma
    # libjpeg replicates samples if a row has at most two.
    if not form.fancy or chroma.shape[3] <= 2:
        return chroma.repeat_interleave(form.vertical, dim=2).repeat_interleave(2, dim=3)
    if form.vertical == 1:
        if exact:
            before, after = _triangle(_integers(chroma), dim=3)
            return _through(
                _interleave((before + 1) >> 2, (after + 2) >> 2, 3), _upsample(chroma, form, False)
            )
        before, after = _triangle(chroma, dim=3)
        return _interleave(before, after, dim=3) / 4
    if exact:
        sums = _interleave(*_triangle(_integers(chroma), dim=2), dim=2)
        before, after = _triangle(sums, dim=3)
        return _through(_interleave((before + 8) >> 4, (after + 7) >> 4, 3), _upsample(chroma, form, False))
    sums = _interleave(*_triangle(chroma, dim=2), dim=2)
    return _interleave(*_triangle(sums, dim=3), dim=3) / 16


def _triangle(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Three times each sample plus the one before, and plus the one after; the edges repeat."""
    size = x.shape[dim]
    index = torch.arange(size, device=x.device)
    before = x.index_select(dim, (index - 1).clamp(min=0))
    after = x.index_select(dim, (index + 1).clamp(max=size - 1))
    return 3 * x + before, 3 * x + after


def _interleave(a: Tensor, b: Tensor, dim: int) -> Tensor:
    return torch.stack([a, b], dim=dim + 1).flatten(dim, dim + 1)


# --- blocks -----------------------------------------------------------------------------------------------


def _code_blocks(plane: Tensor, table: Tensor, rounding: str, noise: Tensor | None) -> Tensor:
    """Each 8x8 block after DCT, quantization, and their inverses, clamped; table (N or 1, 1, 8, 8)."""
    blocks = plane.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))  # n c by y bx x
    coded = _coded(blocks, table[:, :, None, :, None, :], rounding, noise)
    return clamp(coded, -128, 127).flatten(4, 5).flatten(2, 3)


def _coded(blocks: Tensor, table: Tensor, rounding: str, noise: Tensor | None) -> Tensor:
    if rounding == "none":
        # Transform and inverse cancel, so tables do not matter, except that a NaN makes everything NaN.
        return blocks + torch.where(table.isnan(), table, 0).sum(dim=(3, 5), keepdim=True)
    quotients = _transformed(blocks) / table
    if rounding in SURROGATES:
        return _restored(SURROGATES[rounding](quotients) * table)
    # The slope of the others is 1, so transform and inverse cancel in the gradient, where a NaN stays in its
    # place, as in the kernels. A NaN in the image spreads through the quotients.
    quotients = quotients.detach()
    if rounding == "noise":
        assert noise is not None
        return blocks + _restored(_through(noise, quotients) * table)
    scaled, steps = _forward_dct(_integers(blocks)), _integers(table)
    levels = _quantize(scaled, steps)
    residual = _through(levels - scaled.to(blocks.dtype) / (8 * steps), quotients)
    return _through(_inverse_dct(levels * steps).to(blocks.dtype), blocks + _restored(residual * table))


def _transformed(blocks: Tensor) -> Tensor:
    """The orthonormal DCT of each block (n c by y bx x)."""
    dct = _dct_matrix(blocks)
    return torch.einsum("uy,ncaybx,vx->ncaubv", dct, blocks, dct) / 8


def _restored(coefficients: Tensor) -> Tensor:
    """The inverse of `_transformed`."""
    dct = _dct_matrix(coefficients)
    return torch.einsum("uy,ncaubv,vx->ncaybx", dct, coefficients, dct) / 8


def _quantize(coefficients: Tensor, steps: Tensor) -> Tensor:
    """Coefficients, scaled by 8, over the steps, halves rounded away from zero."""
    levels = torch.div(coefficients.abs() + 4 * steps, (8 * steps).clamp(min=1), rounding_mode="floor")
    return levels * coefficients.sign()


@functools.lru_cache(maxsize=64)
def _constants(values: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def _constant(values: tuple, like: Tensor) -> Tensor:
    # A graph that torch.jit.trace records holds the making of a constant, so that all must make it.
    make = _constants.__wrapped__ if torch.jit.is_tracing() else _constants
    return make(values, like.dtype, like.device)


def _dct_matrix(like: Tensor) -> Tensor:
    """The 8-point DCT-II times sqrt(8), rows are frequencies; those of frequencies 0 and 4 are exactly +-1.

    So the mean of a flat block is exact, and no rounding error moves it across a surrogate's jump.
    """
    rows = tuple(
        tuple(
            1.0 if u == 0 else round(math.sqrt(2) * math.cos((2 * x + 1) * u * math.pi / 16), 15)
            for x in range(8)
        )
        for u in range(8)
    )
    return _constant(rows, like)


# The integer DCT of Loeffler, Ligtenberg and Moschytz, ICASSP 1989, with 13-bit constants and 2 extra bits
# between the passes, as in libjpeg.
_C0_298, _C0_390, _C0_541, _C0_765, _C0_899, _C1_175 = 2446, 3196, 4433, 6270, 7373, 9633
_C1_501, _C1_847, _C1_961, _C2_053, _C2_562, _C3_072 = 12299, 15137, 16069, 16819, 20995, 25172


def _descale(x: Tensor, bits: int) -> Tensor:
    return x << -bits if bits < 0 else (x + (1 << (bits - 1))) >> bits


def _rotate_odd(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    z5 = (a + b + c + d) * _C1_175
    z1, z2 = (a + d) * _C0_899, (b + c) * _C2_562
    z3, z4 = z5 - (a + c) * _C1_961, z5 - (b + d) * _C0_390
    return (
        a * _C0_298 - z1 + z3,
        b * _C2_053 - z2 + z4,
        c * _C3_072 - z2 + z3,
        d * _C1_501 - z1 + z4,
    )


def _forward_dct(blocks: Tensor) -> Tensor:
    """Integer samples (..., 8, :, 8) to coefficients scaled by 8; rows first."""
    for dim, plain in ((-1, -2), (-3, 2)):
        v = blocks.unbind(dim)
        sums = [v[k] + v[7 - k] for k in range(4)]
        odd0, odd1, odd2, odd3 = (v[k] - v[7 - k] for k in range(4))
        even0, even3, even1, even2 = (
            sums[0] + sums[3],
            sums[0] - sums[3],
            sums[1] + sums[2],
            sums[1] - sums[2],
        )
        z = (even2 + even3) * _C0_541
        out7, out5, out3, out1 = _rotate_odd(odd3, odd2, odd1, odd0)
        out = [
            _descale(even0 + even1, plain),
            _descale(out1, 13 + plain),
            _descale(z + even3 * _C0_765, 13 + plain),
            _descale(out3, 13 + plain),
            _descale(even0 - even1, plain),
            _descale(out5, 13 + plain),
            _descale(z - even2 * _C1_847, 13 + plain),
            _descale(out7, 13 + plain),
        ]
        blocks = torch.stack(out, dim=dim)
    return blocks


def _inverse_dct(blocks: Tensor) -> Tensor:
    """Integer coefficients (..., 8, :, 8) to samples; columns first."""
    for dim, bits in ((-3, 11), (-1, 18)):
        v = blocks.unbind(dim)
        z = (v[2] + v[6]) * _C0_541
        even2, even3 = z - v[6] * _C1_847, z + v[2] * _C0_765
        plain0, plain1 = (v[0] + v[4]) << 13, (v[0] - v[4]) << 13
        evens = [plain0 + even3, plain1 + even2, plain1 - even2, plain0 - even3]
        odd3, odd2, odd1, odd0 = _rotate_odd(v[7], v[5], v[3], v[1])
        odds = [odd0, odd1, odd2, odd3]
        out = [_descale(even + odd, bits) for even, odd in zip(evens, odds, strict=True)]
        out += [_descale(even - odd, bits) for even, odd in zip(evens[::-1], odds[::-1], strict=True)]
        blocks = torch.stack(out, dim=dim)
    return blocks


# --- surrogates of rounding -------------------------------------------------------------------------------


def _cubic(x: Tensor) -> Tensor:
    nearest = x.detach().round()
    return nearest + (x - nearest) ** 3


def _at_zero(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 0.5, x**3, x)


SURROGATES: dict[str, Callable[[Tensor], Tensor]] = {"cubic": _cubic, "at_zero": _at_zero}


def _noise(
    seed: Tensor, images: int, rows: int, columns: int, form: Format, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Uniform noise in [-1/2, 1/2) for every coefficient of luma and of chroma."""
    most = rows * form.vertical * columns * form.horizontal
    noises = []

    def axis(count: int) -> Tensor:
        return torch.arange(count, dtype=torch.int64, device=like.device)

    for planes, down, across in (((0, 1), form.vertical, form.horizontal), ((1, 3), 1, 1)):
        plane = 3 * axis(images)[:, None] + axis(planes[1])[planes[0] :]
        line, column = axis(rows * down), axis(columns * across)
        block = plane[:, :, None, None] * most + line[:, None] * (columns * across) + column
        frequency = 8 * axis(8)[:, None, None] + axis(8)
        counter = 64 * block[:, :, :, None, :, None] + frequency
        noises.append(uniform(philox(seed, counter)[0], like.dtype) - 0.5)
    return noises[0], noises[1]
