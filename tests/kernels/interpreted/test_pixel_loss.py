"""pixel_loss's Triton kernels, in the interpreter."""

from __future__ import annotations

import pytest
import torch

from fastgan.reference import pixel_loss as reference
from tests.kernels.interpreted import VECTORS, interpreted, rows
from tests.ops.layouts import image

KINDS, COLORS = reference.KINDS, reference.COLORS


def calls(x, y, weight, gain, means, kind, color, terms, mean, sign, dtype):
    """The kernel's results, and those of the reference in float64 with the gradient."""
    from fastgan.kernels import pixel_loss as kernel

    channels = x.shape[1] if color == "rgb" else 1 if color == "luma" else 3
    scales = (1.0, 100.0, 50.0) if color == "yuv" else (1.0, 1.0, 1.0)
    expanded = None if weight is None else weight.expand(x.shape[0], channels, *x.shape[2:])
    if means:
        parts = [expanded, expanded[:, :, :-1], expanded[..., :-1]]
        weight_means = torch.stack([part.mean() if part.numel() else torch.ones(()) for part in parts])
    of_kind, of_color, tensor_gain = KINDS.index(kind), COLORS.index(color), torch.tensor(gain)
    results = kernel.pixel_loss(
        x, y, expanded, tensor_gain if gain == 3.0 else None, weight_means if means else None, gain, of_kind,
        of_kind, of_color, 1e-3, 0.3, *scales, *terms, 2.0, mean, sign, dtype,
    )  # fmt: skip
    wide = x.detach().double().requires_grad_()
    loss, parts = reference.pixel_loss(
        wide, None if y is None else y.double(), weight, kind, eps=1e-3, delta=0.3, color=color,
        yuv_scales=scales, edge_gain=tensor_gain.double(), sobel_weight=terms[0], tv_weight=terms[1],
        tv_kind=kind,
        reduction="mean" if mean else "sum", weighted_mean=means, loss_weight=2.0,
    )  # fmt: skip
    expected = loss.detach(), parts, sign * torch.autograd.grad(loss, wide)[0]
    return results, expected


def assert_near(results, expected):
    for actual, exact in zip(results, expected, strict=True):
        assert (actual - exact).norm() <= 1e-6 * exact.norm()


@interpreted
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 5), (2, 17, 33)])
@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_match_the_float64_reference(kind, color, size):
    layouts = ["contiguous", "channels_last", "strided"]
    if size[2] > 32:  # takes seconds
        layouts = [layouts[(KINDS.index(kind) + COLORS.index(color)) % 3]]
    for layout in layouts:
        x, y = image(size, layout=layout).detach(), image(size).detach()
        weight = torch.rand(size[0], 1, size[1], 1)
        for terms, gain in (((0.0, 0.0), 0.0), ((0.5, 0.0), 2.0), ((0.0, 0.3), 0.0), ((0.5, 0.3), 3.0)):
            assert_near(*calls(x, y, None, gain, False, kind, color, terms, True, 1, torch.float32))
            assert_near(*calls(x, y, weight, gain, True, kind, color, terms, True, -1, torch.float32))


@interpreted
@pytest.mark.parametrize("color", COLORS)
def test_variation_alone_sums_and_weights_of_each_channel(color):
    x, y = image((2, 9, 11)).detach(), image((2, 9, 11)).detach()
    weight = torch.rand(2, 1 if color == "luma" else 3, 9, 11)
    for weights, mean in ((None, True), (weight, False)):
        assert_near(*calls(x, None, weights, 0.0, False, "l1", color, (0.0, 0.3), mean, 1, torch.float32))
        assert_near(*calls(x, y, weights, 0.0, False, "l1", color, (0.5, 0.0), mean, 1, torch.float32))


@interpreted
@pytest.mark.parametrize("layout", VECTORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_vectors_give_the_same_as_single_values(dtype, layout):
    from fastgan.kernels import pixel_loss as kernel

    size, numbers = (2, 22, 32), (0.0, 2, 0, 2, 1e-3, 1.0, 1.0, 100.0, 50.0, 0.0, 0.0, 1.0, True, 1)
    for other_layout in (layout, "contiguous"):
        for color in (0, 2):
            options = (*numbers[:3], color, *numbers[4:])
            x, y = rows(size, dtype, layout), rows(size, dtype, other_layout)
            loss, parts, direction = kernel.pixel_loss(x, y, None, None, None, *options, dtype)
            single = [torch.empty(2, 3, 22, 64)[..., ::2].copy_(picture) for picture in (x, y)]
            expected = kernel.pixel_loss(*single, None, None, None, *options, torch.float32)
            torch.testing.assert_close(loss, expected[0])
            torch.testing.assert_close(parts, expected[1])
            assert torch.equal(direction, expected[2].to(dtype))
            assert direction.stride() == torch.empty_like(x).stride()


@interpreted
def test_loss_without_direction_and_with_64_bit_indices(monkeypatch):
    from fastgan.kernels import _pixels
    from fastgan.kernels import pixel_loss as kernel

    x, y, weight = torch.rand(3, 2, 3, 9, 11)
    numbers = (2.0, 2, 0, 2, 1e-3, 1.0, 1.0, 100.0, 50.0, 0.5, 0.3, 1.0, True, 1)
    loss, parts, direction = kernel.pixel_loss(x, y, weight, None, None, *numbers, None)
    assert direction.numel() == 0
    monkeypatch.setattr(_pixels, "index_type", lambda count, block: kernel.tl.int64)
    with_direction = kernel.pixel_loss(x, y, weight, None, None, *numbers, torch.float32)
    assert torch.equal(loss, with_direction[0]) and torch.equal(parts, with_direction[1])
