"""The Triton kernels' arithmetic on the CPU, in Triton's interpreter.

The interpreter must be chosen before triton is first imported, so these tests run in a process of their
own: `test_in_the_interpreter` starts it, and the others are skipped outside of it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from fastgan.reference import yuv_l2 as reference

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETING, reason="runs in the interpreter's process")
SCALES = (1.0, 100.0, 50.0)


@pytest.mark.skipif(INTERPRETING, reason="is already running")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_in_the_interpreter():
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "passed" in finished.stdout


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
