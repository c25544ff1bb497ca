r"""The JPEG round trip: an image after encoding and decoding as JPEG, differentiable.

.. math::
    \hat c = R(c / q) \, q \qquad \text{for the DCT coefficients } c \text{ of each block, with steps } q

between a colour transform, chroma subsampling and DCT, and their inverses. If R is rounding with a
straight-through gradient, the values equal those of libjpeg-turbo's default encoder and decoder bit for bit,
and the gradient

.. math::
    \frac{\partial L}{\partial x} = (\text{the linear parts' transposes}) \circ (\text{the clamps' masks}),
    \qquad
    \frac{\partial L}{\partial q} = \sum \frac{\partial L}{\partial \hat c} (R(c / q) - R'(c / q) \, c / q)

needs only those masks, a little more than one byte per pixel, since DCT and inverse cancel. Surrogates of
rounding have a slope R' at each coefficient, which backward recomputes from the image.

The op takes quantization tables; the quality is converted into them beforehand, in plain PyTorch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import check_saved, differentiable, first_order_only, wants_gradient
from fastgan.ops._batching import fold, one_by_one, unfold, with_batch
from fastgan.ops._checks import as_flag, check_generator, check_image, check_one_of
from fastgan.ops._declare import declare
from fastgan.ops._jpeg_tables import CHROMINANCE_TABLE as CHROMINANCE_TABLE
from fastgan.ops._jpeg_tables import LUMINANCE_TABLE as LUMINANCE_TABLE
from fastgan.ops._jpeg_tables import quality_tables as quality_tables
from fastgan.ops._jpeg_tables import tables_for
from fastgan.ops._value_range import GrossRangeCheck
from fastgan.reference import jpeg as reference

_range_check = GrossRangeCheck("jpeg_round_trip", ("image",))

# Pixels per chroma sample, across and down.
SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}
UPSAMPLINGS = ("fancy", "nearest")
ROUNDINGS = ("straight_through", "cubic", "at_zero", "polynomial", "noise", "none")
LEVELS = ("round", "truncate")
# The numbers of csrc/math/jpeg.h. "polynomial" differs from "cubic" only in how tables are made.
KERNEL_ROUNDINGS = {
    "straight_through": 0, "cubic": 1, "polynomial": 1, "at_zero": 2, "noise": 3, "none": 4
}  # fmt: skip
STRAIGHT_THROUGH_TRUNCATED = 5


def jpeg_round_trip(
    image: Tensor,
    quality: float | Tensor | None,
    *,
    subsampling: str = "4:2:0",
    rounding: str = "straight_through",
    levels: str = "round",
    upsampling: str = "fancy",
    quantization_tables: Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str | None = None,
    check_range: bool = True,
) -> Tensor:
    """Encodes and decodes images as JPEG, differentiably.

    Args:
        image: N 3 H W, or 3 H W, RGB; values outside [0, 1] are clamped, with the clamp's gradient. Any H and
            W, any strides, float32, bfloat16, float16 or float64. A NaN spreads to the pixels of its blocks,
            to those whose chroma is smoothed with theirs, and to every gradient that passes through these.
        quality: libjpeg's, in [1, 100]: a number (Python's or numpy's), a 0-d tensor, or one per image (N,).
            Never modified. A tensor that requires grad gets a gradient, straight through the tables'
            rounding. None only with `quantization_tables`.
        subsampling: "4:2:0" (the default of most encoders), "4:2:2" or "4:4:4".
        rounding: what quantization does to a coefficient x, in units of its step:

            * "straight_through": the codec's rounding, to the bit; its gradient is that of x (Bengio et
              al., "Estimating or propagating gradients through stochastic neurons", 2013).
            * "cubic": [x] + (x - [x])^3 (Shin and Song, "JPEG-resistant adversarial images", 2017;
              DiffJPEG), where [x] is the nearest whole number, of two the even one.
            * "at_zero": x^3 between -1/2 and 1/2, else x (StegaStamp's `round_only_at_0`).
            * "polynomial": "cubic", and the tables' rounding down likewise smooth (Reich et al.,
              "Differentiable JPEG: the devil is in the details", WACV 2024).
            * "noise": x + uniform noise in [-1/2, 1/2) (Ballé et al., "End-to-end optimized image
              compression", 2017).
            * "none": x.

            All but the first also leave grey levels unrounded.
        levels: how values between the 256 grey levels of a file are rounded: "round" to the nearest, like
            `PIL.Image.fromarray((255 * image).round())`, or "truncate" to the level below, like torchvision's
            `ToPILImage` (to the bit for float32 and float64), which darkens by half a level on average. The
            gradient is straight through either way. Only "straight_through" rounds to whole levels.
        upsampling: of the decoder's chroma: "fancy" (triangle, libjpeg's default) or "nearest".
        quantization_tables: (N or 1, 2, 8, 8), for luma and chroma, replacing the standard ones,
            differentiable. A quality scales them like the standard ones; quality=None uses them unscaled.
            Steps must be positive, and at most 255 for "straight_through".
        generator: draws the seed of "noise"; on the image's device. Default: torch's own.
        backend: see :mod:`fastgan.ops`.
        check_range: whether to check the process's first images and to issue a RuntimeWarning, once, for
            8-bit values or images in [-1, 1]. Never synchronizes with a GPU.

    Returns:
        The decoded images in [0, 1], in the image's shape, dtype and memory format.

    First-order gradients are exact for the formula above. Differentiating twice raises, except with
    ``backend="reference"``.

    Raises:
        TypeError, ValueError: an argument that is not such an image; an unknown subsampling, rounding, levels
            or upsampling (lists those known); "truncate" with another rounding than "straight_through"; a
            quality outside [1, 100] (names it and its index in the batch), or tables of a wrong shape or with
            steps that are not positive. On a GPU, where reading a tensor's values would synchronize, a wrong
            quality or table makes its image NaN instead.
    """
    if isinstance(image, Tensor) and image.dim() == 3 and image.shape[0] == 3:
        return jpeg_round_trip(
            image[None], quality, subsampling=subsampling, rounding=rounding, levels=levels,
            upsampling=upsampling, quantization_tables=quantization_tables, generator=generator,
            backend=backend, check_range=check_range,
        )[0]  # fmt: skip
    check_image("image", image)
    check_options(subsampling, rounding, levels, upsampling, generator, check_range)
    horizontal, vertical = SUBSAMPLINGS[subsampling]
    fancy = upsampling == "fancy"
    tables = tables_for(image, quality, quantization_tables, rounding)
    if check_range:
        _range_check.look((0, 1), image)
    seed = None
    if rounding == "noise":
        seed = torch.randint(2**63 - 1, (), generator=generator, device=image.device)

    if _dispatch.choose("jpeg", (image,), backend) == "reference":
        name = "cubic" if rounding == "polynomial" else rounding
        form = reference.Format(horizontal, vertical, fancy)
        return reference.jpeg(image, tables, name, form, seed, levels == "truncate")
    code = STRAIGHT_THROUGH_TRUNCATED if levels == "truncate" else KERNEL_ROUNDINGS[rounding]
    return _code(image, tables, seed, horizontal, vertical, fancy, code)[0]


def check_options(
    subsampling: str = "4:2:0",
    rounding: str = "straight_through",
    levels: str = "round",
    upsampling: str = "fancy",
    generator: torch.Generator | None = None,
    check_range: bool = True,
) -> None:
    """Checks those arguments of :func:`jpeg_round_trip` that can be checked without an image."""
    check_one_of("subsampling", subsampling, SUBSAMPLINGS)
    check_one_of("rounding", rounding, KERNEL_ROUNDINGS)
    check_levels(levels, rounding)
    check_one_of("upsampling", upsampling, UPSAMPLINGS)
    check_generator("generator", generator)
    as_flag("check_range", check_range)


def check_levels(levels: str, rounding: str) -> None:
    """Checks for a known choice that the rounding can honour."""
    check_one_of("levels", levels, LEVELS)
    if levels == "truncate" and rounding != "straight_through":
        raise ValueError(
            f"levels='truncate' goes with rounding='straight_through': {rounding!r} makes no whole levels"
        )


# --- op and fake ----------------------------------------------------------------------------------


@declare(
    "jpeg(Tensor image, Tensor tables, Tensor? seed, int horizontal, int vertical, bool fancy, int rounding, "
    "bool with_masks) -> (Tensor decoded, Tensor masks, Tensor chroma_masks)",
    gpu="native",
)
def _jpeg_fake(image, tables, seed, horizontal, vertical, fancy, rounding, with_masks):
    batch, _, height, width = image.shape
    chroma_height, chroma_width = (height + vertical - 1) // vertical, (width + horizontal - 1) // horizontal
    pixels = (batch, height, width) if with_masks else (0,)
    chroma = (batch, chroma_height, chroma_width) if with_masks else (0,)
    masks, chroma_masks = (image.new_empty(shape, dtype=torch.uint8) for shape in (pixels, chroma))
    return torch.empty_like(image), masks, chroma_masks


@declare(
    "jpeg_backward(Tensor grad, Tensor? image, Tensor tables, Tensor? seed, Tensor masks, "
    "Tensor chroma_masks, int horizontal, int vertical, bool fancy, int rounding, bool grad_image_wanted, "
    "bool grad_tables_wanted) -> (Tensor grad_image, Tensor grad_tables)",
    gpu="native",
)
def _jpeg_backward_fake(
    grad, image, tables, seed, masks, chroma_masks, horizontal, vertical, fancy, rounding,
    grad_image_wanted, grad_tables_wanted,
):  # fmt: skip
    return (
        torch.empty_like(grad) if grad_image_wanted else grad.new_empty(0),
        torch.empty_like(tables) if grad_tables_wanted else tables.new_empty(0),
    )


# --- batching: more samples, but call by call with noise, which depends on an image's index in the call --


def _code(image, tables, seed, horizontal, vertical, fancy, rounding, with_masks=False):
    with_masks = with_masks or wants_gradient(image, tables)
    return _jpeg(image, tables, seed, horizontal, vertical, fancy, rounding, with_masks)


def _codes(size, batched, image, tables, seed, *options):
    if seed is not None:
        return one_by_one(_code)(size, batched, image, tables, seed, *options)
    images = image.shape[1] if batched[0] else image.shape[0]
    tables = _fold_tables(tables, batched[1], size, images)
    decoded = _code(fold(image, batched[0], size), tables, None, *options)
    return tuple(unfold(output, size) for output in decoded)


def _codes_backward(size, batched, grad, image, tables, seed, masks, chroma_masks, *options):
    if seed is not None:
        tensors = grad, image, tables, seed, masks, chroma_masks
        return one_by_one(_jpeg_backward)(size, batched, *tensors, *options)
    *form, with_image, with_tables = options
    images = grad.shape[1] if batched[0] else grad.shape[0]
    is_shared = tables.shape[1 if batched[2] else 0] == 1
    grad_image, grad_tables = _jpeg_backward(
        fold(grad, batched[0], size),
        None if image is None else fold(image, batched[1], size),
        _fold_tables(tables, batched[2], size, images, one_each=with_tables),
        None,
        fold(masks, batched[4], size),
        fold(chroma_masks, batched[5], size),
        *form,
        with_image,
        with_tables,
    )
    grad_tables = unfold(grad_tables, size)
    if with_tables and is_shared:
        grad_tables = grad_tables.sum(dim=1, keepdim=True)
    return unfold(grad_image, size), grad_tables


def _fold_tables(tables: Tensor, batched: bool, size: int, images: int, one_each: bool = False) -> Tensor:
    """Tables for the images of all calls; a single pair for all is kept as it is, unless `one_each`."""
    if not batched and tables.shape[0] == 1 and not one_each:
        return tables
    return with_batch(tables, batched, size).expand(size, images, 2, 8, 8).flatten(0, 1).contiguous()


# --- backward -------------------------------------------------------------------------------------


def _save_for_jpeg(ctx, inputs, output):
    image, tables, seed, horizontal, vertical, fancy, rounding, with_masks = inputs
    _, masks, chroma_masks = output
    check_saved("jpeg", "with_masks", with_masks)
    ctx.mark_non_differentiable(masks, chroma_masks)
    needed = rounding in (1, 2) or ctx.needs_input_grad[1]
    ctx.save_for_backward(image if needed else None, tables, seed, masks, chroma_masks)
    ctx.options = (horizontal, vertical, fancy, rounding)


def _jpeg_gradients(ctx, grad, _grad_masks, _grad_chroma_masks):
    image, tables, seed, masks, chroma_masks = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    gradients = _jpeg_backward(grad, image, tables, seed, masks, chroma_masks, *ctx.options, *needed)
    image_and_tables = [g if is_needed else None for g, is_needed in zip(gradients, needed, strict=True)]
    return (*image_and_tables, None, None, None, None, None, None)


_jpeg = differentiable("jpeg", _save_for_jpeg, _jpeg_gradients, _codes)


# --- second order: refused -------------------------------------------------------------------------

_FIRST_ORDER_ONLY = (
    "jpeg_round_trip's kernel has first-order gradients only; backend='reference' can be differentiated twice"
)
_jpeg_backward = first_order_only("jpeg_backward", RuntimeError, _FIRST_ORDER_ONLY, _codes_backward)
