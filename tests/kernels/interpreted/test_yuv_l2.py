"""yuv_l2's Triton kernels, in the interpreter."""

from __future__ import annotations

import pytest
import torch

from fastgan.reference import yuv_l2 as reference
from tests.kernels.interpreted import VECTORS, interpreted, rows

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
        loss, channels, direction = kernel.yuv_l2(x, y, gain, 0.0, *SCALES, 0, torch.float32)
        x64 = x.double().requires_grad_()
        expected, expected_channels = reference.yuv_l2(x64, y.double(), SCALES, gain.double())
        (gradient,) = torch.autograd.grad(expected, x64)
        expected_direction = gradient * (x.numel() // 3) / 2
        for actual, reference_value in (
            (loss, expected.detach()), (channels, expected_channels.detach()), (direction, expected_direction)
        ):  # fmt: skip
            assert (actual - reference_value).norm() <= 1e-6 * reference_value.norm()
        assert direction.stride() == torch.empty_like(x).stride()


@interpreted
@pytest.mark.parametrize("layout", VECTORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_vectors_give_the_same_as_single_values(dtype, layout):
    from fastgan.kernels import _pixels
    from fastgan.kernels import yuv_l2 as kernel

    size, gain = (2, 22, 32), torch.tensor(3.0)
    for other_layout in (layout, "contiguous"):
        x, y = rows(size, dtype, layout), rows(size, dtype, other_layout)
        walk = _pixels.walk(kernel.THREADS, x, y)
        assert walk.line(x) == (16 // x.itemsize if layout.startswith("channels_last") else 0)
        loss, channels, direction = kernel.yuv_l2(x, y, gain, 0.0, *SCALES, 0, dtype)
        single = [torch.empty(2, 3, 22, 64)[..., ::2].copy_(image) for image in (x, y)]
        expected = kernel.yuv_l2(*single, gain, 0.0, *SCALES, 0, torch.float32)
        torch.testing.assert_close(loss, expected[0])
        torch.testing.assert_close(channels, expected[1])
        assert torch.equal(direction, expected[2].to(dtype))
        assert direction.stride() == torch.empty_like(x).stride()


@interpreted
def test_loss_without_direction_and_with_64_bit_indices(monkeypatch):
    from fastgan.kernels import _pixels
    from fastgan.kernels import yuv_l2 as kernel

    x, y = torch.rand(2, 2, 3, 9, 11)
    gain = torch.tensor(2.0)
    loss, channels, direction = kernel.yuv_l2(x, y, gain, 0.0, *SCALES, 0, None)
    assert direction.numel() == 0
    assert torch.equal(kernel.yuv_l2(x, y, None, 2.0, *SCALES, 0, None)[0], loss)
    monkeypatch.setattr(_pixels, "index_type", lambda count, block: kernel.tl.int64)
    with_direction = kernel.yuv_l2(x, y, gain, 0.0, *SCALES, 1, torch.float32)
    assert torch.equal(loss, with_direction[0]) and torch.equal(channels, with_direction[1])


@interpreted
def test_the_direction_is_a_gradient_of_either_sign():
    from fastgan.kernels import yuv_l2 as kernel

    x, y = torch.rand(2, 2, 3, 9, 11)
    gain = torch.tensor(2.0)
    plain = kernel.yuv_l2(x, y, gain, 0.0, *SCALES, 0, torch.float32)
    for sign in (1, -1):
        signed = kernel.yuv_l2(x, y, gain, 0.0, *SCALES, sign, torch.float32)
        assert torch.equal(signed[0], plain[0]) and torch.equal(signed[1], plain[1])
        torch.testing.assert_close(signed[2], sign * 2 / (2 * 9 * 11) * plain[2])


@interpreted
@pytest.mark.parametrize("pixels", [1, 333, 1366])
def test_backward_scales_into_any_dtype_or_in_place(pixels):
    from fastgan.kernels import yuv_l2 as kernel

    direction, grad_loss = torch.rand(1, 3, pixels, 1), torch.tensor(0.7)
    expected = -0.7 * 2 / pixels * direction.double()
    out = kernel.yuv_l2_backward(direction, grad_loss, -1, False, torch.float16)
    torch.testing.assert_close(out, expected.half())
    kernel.yuv_l2_backward_(direction, grad_loss, -1, False)
    torch.testing.assert_close(direction, expected.float())
    before = direction.clone()
    out = kernel.yuv_l2_backward(direction, grad_loss, -1, True, torch.float16)
    torch.testing.assert_close(out, (-0.7 * before).half())
    kernel.yuv_l2_backward_(direction, torch.tensor(1.0), 1, True)
    assert torch.equal(direction, before)
