"""The installation before any op runs: cheap imports, no GPU probing, a correct report."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run_python(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_import_brings_in_nothing_heavy_and_does_not_touch_cuda():
    loaded = json.loads(
        run_python(
            "import torch, sys, json\n"
            "before = set(sys.modules)\n"
            "import fastgan, fastgan.losses, fastgan.ops\n"
            "heavy = ['torchvision', 'lpips', 'triton', 'matplotlib', 'lightning_fabric', 'PIL']\n"
            "new = set(sys.modules) - before\n"
            "print(json.dumps([[h for h in heavy if h in new], torch.cuda.is_initialized()]))"
        )
    )
    assert loaded == [[], False]


def test_info_lists_every_op_with_what_serves_it():
    from fastgan.info import describe
    from fastgan.ops import _dispatch

    report = describe()
    for op in _dispatch.OPS:
        assert any(line.startswith(op) for line in report.splitlines())
    assert "code, " in report or "not built" in report


def test_info_says_why_a_kernel_does_not_serve(monkeypatch):
    from fastgan import info
    from fastgan.ops import _library

    monkeypatch.setattr(_library, "cpu_missing", "_C was not built with this installation")
    assert "reference (no native: _C was not built with this installation)" in info.describe()


def test_arithmetic_of_the_kernels_matches_the_reference():
    """The functions of csrc/math that both the CPU and the CUDA kernels call, through pybind11."""
    bindings = pytest.importorskip("fastgan_math", reason="built by `make test`")
    import torch

    from fastgan.reference.yuv_l2 import border_ramp, yuv_l2

    for size in (1, 2, 7, 17, 400):
        expected = border_ramp(size, dtype=torch.float64, device=torch.device("cpu"))
        actual = torch.tensor([bindings.border_ramp(i, size) for i in range(size)], dtype=torch.float64)
        torch.testing.assert_close(actual, expected)
    difference = torch.rand(3, dtype=torch.float64) - 0.5
    x = difference.reshape(1, 3, 1, 1).requires_grad_()
    scales, gain = (1.0, 100.0, 50.0), torch.tensor(2.0, dtype=torch.float64)
    loss, channels = yuv_l2(x, torch.zeros_like(x), scales, gain)
    (gradient,) = torch.autograd.grad(loss, x)
    squares, direction = bindings.yuv_l2_pixel(*difference.tolist(), 3.0, *scales)
    torch.testing.assert_close(torch.tensor(squares, dtype=torch.float64), channels.detach())
    torch.testing.assert_close(2 * torch.tensor(direction, dtype=torch.float64), gradient.flatten())


@pytest.mark.parametrize("kind, dtype", [("half", "float16"), ("bfloat", "bfloat16")])
def test_conversion_to_half_types_matches_torch(kind, dtype):
    bindings = pytest.importorskip("fastgan_math", reason="built by `make test`")
    import torch

    values = torch.cat([torch.randn(2000) * 10.0**exponent for exponent in range(-9, 6)])
    expected = values.to(getattr(torch, dtype)).view(torch.int16)
    convert = getattr(bindings, f"float_to_{kind}_bits")
    actual = [convert(value) for value in values.tolist()]
    assert actual == [bits & 0xFFFF for bits in expected.tolist()]


def test_compiled_functions_follow_use():
    import torch

    from fastgan.ops import _dispatch, use

    @torch.compile(fullgraph=True, backend="eager")
    def is_reference(x):
        return x + (1 if _dispatch.choose("yuv_l2", (x,)) == "reference" else 0)

    x = torch.zeros(())
    before = is_reference(x).item()
    with use("reference"):
        assert is_reference(x) == 1
    assert is_reference(x) == before
