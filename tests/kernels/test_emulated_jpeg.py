"""The CUDA kernels of the JPEG round trip, emulated on the CPU, against the CPU kernels."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fastgan.ops.jpeg import (
    KERNEL_ROUNDINGS,
    ROUNDINGS,
    STRAIGHT_THROUGH_TRUNCATED,
    SUBSAMPLINGS,
    quality_tables,
)
from tests.kernels.emulation import ORDERS, emulated, same_bits
from tests.ops.jpeg_cases import out_of_range, undecided

# A tile is 64 pixels wide and one MCU high: smaller and larger images, and one with two chroma samples a row.
SIZES = [(1, 1), (3, 4), (17, 33), (20, 85), (33, 130)]
SEED = torch.tensor(9)


def strided(batch, channel, row, column, offset=0):
    """2 x 3 x 20 x 72, whose rows kernels read and write in groups of four if these are aligned."""
    length = offset + batch + 2 * channel + 19 * row + 71 * column + 1
    return torch.rand(length).as_strided((2, 3, 20, 72), (batch, channel, row, column), offset)


LAYOUTS = {
    "channels_last": lambda: torch.rand(2, 20, 37, 3).permute(0, 3, 1, 2),
    "sliced": lambda: torch.rand(2, 5, 40, 38)[:, 1:4, ::2, 1:],
    "expanded": lambda: torch.rand(1, 3, 20, 1).expand(2, 3, 20, 37),
    "fours": lambda: strided(4320, 1440, 72, 1),
    "fours, expanded": lambda: torch.rand(72).expand(2, 3, 20, 72),
    "fours, channels_last": lambda: strided(4320, 1, 216, 3),
    "fours, other columns": lambda: strided(12960, 4320, 216, 3),
    **{
        f"fours, {name}misaligned": lambda strides=strides: strided(*strides)
        for name, strides in {
            "": (4320, 1440, 72, 1, 1),
            "images ": (4321, 1440, 72, 1),
            "channels ": (4324, 1441, 72, 1),
            "rows ": (4380, 1460, 73, 1),
            "channels_last, ": (4320, 1, 216, 3, 2),
            "channels_last, images ": (4322, 1, 216, 3),
            "channels_last, rows ": (4380, 1, 219, 3),
        }.items()
    },
}


def forward(image, tables, form, order):
    return emulated("jpeg", image, tables, SEED, *form, True, order=order)


def backward(grad, image, tables, masks, form, order, wanted=(True, True)):
    return emulated("jpeg_backward", grad, image, tables, SEED, *masks, *form, *wanted, order=order)


def check(image, tables, form, weight=None):
    """Compares values, masks and both gradients, of `weight`, with the CPU's, and the bits of all orders."""
    exact = form[-1] in (0, STRAIGHT_THROUGH_TRUNCATED)
    decoded, *masks = torch.ops.fastgan.jpeg(image, tables, SEED, *form, True)
    if weight is None:
        weight = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image.dtype)
    gradients = torch.ops.fastgan.jpeg_backward(weight, image, tables, SEED, *masks, *form, True, True)
    first = None
    for order in range(ORDERS):
        results = forward(image, tables, form, order)
        # With the CPU's masks, since a value on a clamp may lie on either side of it.
        gradients_emulated = backward(weight, image, tables, masks, form, order)
        all_results = (*results, *gradients_emulated)
        assert first is None or all(map(same_bits, all_results, first)), "the bits depend on the order"
        first = all_results
    assert results[0].stride() == decoded.stride()
    if exact:
        for actual, expected in zip(results, (decoded, *masks), strict=True):
            assert same_bits(actual, expected)
    else:
        decided = ~undecided(image, tables, SEED, form)
        assert not (255 * (results[0] - decoded).abs().float()[decided] > 0.01 + 255 * eps(image)).any()
        # Without rounding, values that were clamped before coding lie on the clamp after decoding.
        on_clamps = form[-1] == KERNEL_ROUNDINGS["none"]
        for actual, expected in zip(results[1:], masks, strict=True):
            assert on_clamps or (actual != expected).float().mean() <= 0.02
    for actual, expected in zip(gradients_emulated, gradients, strict=True):
        assert actual.dtype == expected.dtype and actual.stride() == expected.stride()
        error = (actual.double() - expected.double()).norm()
        assert error <= (1e-3 + eps(image)) * expected.double().norm() + 1e-6


def eps(image):
    return 0.0 if image.dtype == torch.float32 else torch.finfo(image.dtype).eps


def form_of(subsampling, upsampling, rounding):
    return (*SUBSAMPLINGS[subsampling], upsampling == "fancy", KERNEL_ROUNDINGS[rounding])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("upsampling", ["fancy", "nearest"])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("rounding", [name for name in ROUNDINGS if name != "polynomial"])
def test_kernels_equal_those_of_the_cpu(rounding, subsampling, upsampling, size):
    image, tables = out_of_range(size), 1 + 60 * torch.rand(2, 2, 8, 8)
    check(image, tables, form_of(subsampling, upsampling, rounding))


@pytest.mark.parametrize("images, tables", [(1, 1), (3, 1), (3, 3)])
@pytest.mark.parametrize("rounding", ["straight_through", "cubic", "none"])
def test_tables_for_all_images_or_one_each(rounding, images, tables):
    qualities = torch.tensor([3.0, 50.0, 100.0])[:tables]
    check(torch.rand(images, 3, 20, 70), quality_tables(qualities), form_of("4:2:0", "fancy", rounding))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["odd", "fours", "fours, channels_last"])
@pytest.mark.parametrize("rounding", ["straight_through", "at_zero", "noise"])
def test_half_types(rounding, layout, dtype):
    image = out_of_range((19, 70)) if layout == "odd" else LAYOUTS[layout]()
    weight = torch.rand_like(image).to(dtype)
    check(image.to(dtype), quality_tables(torch.tensor(60.0)), form_of("4:2:2", "fancy", rounding), weight)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rounding", ["straight_through", "cubic"])
def test_layouts(rounding, layout):
    form = form_of("4:2:0", "fancy", rounding)
    check(LAYOUTS[layout](), quality_tables(torch.tensor([30.0, 90.0])), form, LAYOUTS[layout]())


def test_truncated_levels():
    form = (2, 2, True, STRAIGHT_THROUGH_TRUNCATED)
    check(out_of_range((17, 70)), quality_tables(torch.tensor(80.0)), form)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("upsampling", ["fancy", "nearest"])
@pytest.mark.parametrize("rounding", ["straight_through", "cubic", "none"])
def test_nan_spreads_as_on_the_cpu(rounding, upsampling, subsampling):
    image = torch.rand(2, 3, 40, 150)
    for index in ((0, 0, 5, 7), (0, 2, 39, 149), (1, 1, 16, 63), (1, 1, 20, 64)):
        image[index] = torch.nan
    form = form_of(subsampling, upsampling, rounding)
    tables, weight = quality_tables(torch.tensor(50.0)), torch.ones_like(image)
    decoded, *masks = torch.ops.fastgan.jpeg(image, tables, SEED, *form, True)
    gradients = torch.ops.fastgan.jpeg_backward(weight, image, tables, SEED, *masks, *form, True, True)
    for order in range(ORDERS):
        emulated_image, *emulated_masks = forward(image, tables, form, order)
        emulated_gradients = backward(weight, image, tables, emulated_masks, form, order)
        for actual, expected in zip(
            (emulated_image, *emulated_gradients), (decoded, *gradients), strict=True
        ):
            assert torch.equal(actual.isnan(), expected.isnan())


@pytest.mark.parametrize("rounding", ["straight_through", "cubic", "noise"])
def test_infinities_are_clamped(rounding):
    image = torch.rand(1, 3, 24, 40)
    image[0, 0, 3, 3], image[0, 1, 20, 30] = torch.inf, -torch.inf
    form, tables = form_of("4:2:0", "fancy", rounding), quality_tables(torch.tensor(50.0))
    actual, expected = (forward(x, tables, form, 0)[0] for x in (image, image.clamp(0, 1)))
    assert actual.isfinite().all() and same_bits(actual, expected)


@pytest.mark.parametrize("rounding", ["straight_through", "cubic"])
def test_a_wrong_table_makes_only_its_image_nan(rounding):
    tables = quality_tables(torch.tensor([50.0, 500.0]))
    for order in range(ORDERS):
        decoded = forward(torch.rand(2, 3, 20, 70), tables, form_of("4:2:0", "fancy", rounding), order)[0]
        assert decoded[0].isfinite().all() and decoded[1].isnan().all()


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("rounding", ["straight_through", "cubic", "none"])
def test_one_gradient_is_the_same_without_the_other(rounding, wanted):
    image, tables = out_of_range((20, 70)), quality_tables(torch.tensor([50.0, 70.0]))
    form, weight = form_of("4:2:0", "fancy", rounding), torch.randn(2, 3, 20, 70)
    masks = forward(image, tables, form, 0)[1:]
    both = backward(weight, image, tables, masks, form, 0)
    requested = backward(weight, image, tables, masks, form, 1, wanted)
    for one, other, is_wanted in zip(requested, both, wanted, strict=True):
        assert same_bits(one, other) if is_wanted else one.numel() == 0


def test_without_masks_the_value_is_the_same():
    image, tables = out_of_range((20, 70)), quality_tables(torch.tensor(50.0))
    form = form_of("4:2:0", "fancy", "straight_through")
    decoded, *masks = emulated("jpeg", image, tables, None, *form, False)
    assert same_bits(decoded, forward(image, tables, form, 1)[0]) and not any(m.numel() for m in masks)


@pytest.mark.parametrize("rounding", ["straight_through", "cubic"])
@pytest.mark.parametrize("size", [(0, 3, 8, 8), (2, 3, 0, 8), (2, 3, 8, 0)])
@pytest.mark.parametrize("tables", [1, None])
def test_images_without_pixels(tables, size, rounding):
    image, tables = torch.rand(size), torch.ones(tables or size[0], 2, 8, 8)
    form = form_of("4:2:0", "fancy", rounding)
    decoded, *masks = forward(image, tables, form, 0)
    grad_image, grad_tables = backward(image, image, tables, masks, form, 0)
    assert decoded.shape == grad_image.shape == image.shape
    assert_close(grad_tables, torch.zeros_like(tables))


@pytest.mark.parametrize("size", [(1, 3, 2**16, 2**15), (2**11, 3, 1017, 1024)])
def test_more_pixels_than_31_bits_can_index_are_refused(size):
    image, tables, form = torch.rand(1).expand(size), torch.ones(1, 2, 8, 8), (2, 2, True, 0)
    with pytest.raises(RuntimeError, match=r"fewer than 2\^31 pixels"):
        forward(image, tables, form, 0)
    masks = torch.zeros(1, dtype=torch.uint8), torch.zeros(1, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match=r"fewer than 2\^31 pixels"):
        backward(image, image, tables, masks, form, 0)
