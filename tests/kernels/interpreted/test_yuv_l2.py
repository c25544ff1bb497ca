"""yuv_l2's Triton kernels, in the interpreter."""

from __future__ import annotations

import pytest
import torch

from fastgan.reference import yuv_l2 as reference
from tests.kernels.interpreted import interpreted

SCALES = (1.0, 100.0, 50.0)


def layouts(n, h, w):
    yield torch.rand(n, 3, h, w)
    yield torch.rand(n, 3, h, w).to(memory_format=torch.channels_last)
    yield torch.rand(n, 5, w + 3, 2 * h)[:, 1:4, 2:-1, ::2].transpose(-1, -2)


@interpreted
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 17, 33), (2, 40, 61)])
@pytest.mark.parametrize("gain", [0.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sweep_matches_float64_reference(size, gain, dtype):
    from fastgan.kernels import yuv_l2 as kernel

    gain = torch.tensor(gain)
    for x in layouts(*size):
        x, y = x.to(dtype), torch.rand(size[0], 3, *size[1:])
        loss, channels, direction = kernel.yuv_l2(x, y, gain, SCALES, 1.0, torch.float32)
        x64 = x.double().requires_grad_()
        expected, expected_channels = reference.yuv_l2(x64, y.double(), SCALES, gain.double())
        (gradient,) = torch.autograd.grad(expected, x64)
        expected_direction = gradient * (x.numel() // 3) / 2
        for actual, wanted in (
            (loss, expected.detach()), (channels, expected_channels.detach()), (direction, expected_direction)
        ):  # fmt: skip
            assert (actual - wanted).norm() <= 1e-6 * wanted.norm()
        assert direction.stride() == torch.empty_like(x).stride()


@interpreted
def test_loss_alone_and_in_64_bit_indices(monkeypatch):
    from fastgan.kernels import yuv_l2 as kernel

    x, y = torch.rand(2, 2, 3, 9, 11)
    gain = torch.tensor(2.0)
    loss, channels, direction = kernel.yuv_l2(x, y, gain, SCALES, 1.0, None)
    assert direction.numel() == 0
    monkeypatch.setattr(kernel, "index_type", lambda count, block: kernel.tl.int64)
    again = kernel.yuv_l2(x, y, gain, SCALES, 1.0, torch.float32)
    assert torch.equal(loss, again[0]) and torch.equal(channels, again[1])


@interpreted
def test_the_direction_takes_a_factor():
    from fastgan.kernels import yuv_l2 as kernel

    x, y = torch.rand(2, 2, 3, 9, 11)
    gain = torch.tensor(2.0)
    one, another = (kernel.yuv_l2(x, y, gain, SCALES, factor, torch.float32) for factor in (1.0, -3e-5))
    assert torch.equal(one[0], another[0]) and torch.equal(one[1], another[1])
    torch.testing.assert_close(another[2], -3e-5 * one[2])


@interpreted
@pytest.mark.parametrize("count", [1, 1000, 4097])
def test_backward_scales_into_any_dtype_or_in_place(count):
    from fastgan.kernels import yuv_l2 as kernel

    direction, grad_loss = torch.rand(count), torch.tensor(0.7)
    expected = direction.double() * 0.7 * 3e-5
    out = torch.full((count,), float("nan"), dtype=torch.float16)
    kernel.yuv_l2_backward(direction, grad_loss, 3e-5, out=out)
    torch.testing.assert_close(out, expected.half())
    kernel.yuv_l2_backward(direction, grad_loss, 3e-5, out=direction)
    torch.testing.assert_close(direction, expected.float())
    before = direction.clone()
    kernel.yuv_l2_backward(direction, torch.tensor(2.0), 0.5, out=direction)
    assert torch.equal(direction, before)
