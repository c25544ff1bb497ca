"""`fastgan.patch` on a copy of StyleGAN's filters in plain PyTorch."""

from __future__ import annotations

import importlib
import inspect
import sys

import pytest
import torch
from torch.testing import assert_close

import fastgan
from tests.ops import filters
from tests.ops.filters import taps

COPY = """
import torch
from torch.nn import functional as F

def profiled(function):
    def decorator(*args, **kwargs):
        return function(*args, **kwargs)
    return decorator
"""
UPFIRDN2D = """
def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl="cuda"):
    return _upfirdn2d_ref(x, f, up=up, down=down, padding=padding, flip_filter=flip_filter, gain=gain)

@profiled
def _upfirdn2d_ref(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1):
    return upfirdn2d_by_steps(x, f, up, down, padding, flip_filter, gain)
"""
LRELU = """
def filtered_lrelu(x, fu=None, fd=None, b=None, up=1, down=1, padding=0, gain=2**0.5, slope=0.2, clamp=None,
                   flip_filter=False, impl="cuda"):
    return _filtered_lrelu_ref(x, fu=fu, fd=fd, b=b, up=up, down=down, padding=padding, gain=gain,
                               slope=slope, clamp=clamp, flip_filter=flip_filter)

def _filtered_lrelu_ref(x, fu=None, fd=None, b=None, up=1, down=1, padding=0, gain=2**0.5, slope=0.2,
                        clamp=None, flip_filter=False):
    return filtered_lrelu_by_steps(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter)
"""
STEPS = "".join(
    inspect.getsource(function) + "\n"
    for function in (filters.pair, filters.four, filters.upfirdn2d_by_steps, filters.filtered_lrelu_by_steps)
)


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Of both modules, below `torch_utils` and `utils`."""
    for package in ("torch_utils/ops", "utils/style_ops"):
        folder = tmp_path / package
        folder.mkdir(parents=True)
        for each in (folder.parent, folder):
            (each / "__init__.py").touch()
        (folder / "upfirdn2d.py").write_text(COPY + STEPS + UPFIRDN2D)
        (folder / "filtered_lrelu.py").write_text(COPY + STEPS + LRELU)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module
    for name in [name for name in sys.modules if name.partition(".")[0] in ("torch_utils", "utils")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("stylegan2_ada", "torch_utils.ops"),
        ("stylegan3", "torch_utils.ops"),
        ("r3gan", "torch_utils.ops"),
        ("studiogan", "utils.style_ops"),
    ],
)
def test_filters_have_both_orders_of_gradient(copies, library, package):
    upfirdn2d = copies(f"{package}.upfirdn2d").upfirdn2d
    lrelu = copies(f"{package}.filtered_lrelu").filtered_lrelu
    x, b, f = torch.randn(2, 3, 7, 6, dtype=torch.float64), torch.randn(3, dtype=torch.float64), taps(6)

    def results():
        leaves = x.clone().requires_grad_(), b.clone().requires_grad_()
        y = upfirdn2d(leaves[0], f, up=2, padding=[3, 2, 4, -1], gain=4)
        y = lrelu(y, f, f[:4], leaves[1], 2, 2, 6, clamp=0.9)
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        return y, *first, *torch.autograd.grad(first[0].square().sum(), leaves, allow_unused=True)

    expected = results()
    with fastgan.patch(library, quiet=True) as report:
        assert f"{package}.upfirdn2d._upfirdn2d_ref" in report.replaced
        name = f"{package}.filtered_lrelu._filtered_lrelu_ref"
        assert (name in report.replaced) is (library in ("stylegan3", "studiogan"))
        for ours, theirs in zip(results(), expected, strict=True):
            assert_close(ours, theirs)


def test_a_penalty_of_the_gradient_leaves_zeros_at_x_and_the_bias_and_not_none(copies):
    lrelu = copies("torch_utils.ops.filtered_lrelu").filtered_lrelu

    def gradients():
        x, b = torch.ones(1, 3, 4, 4).requires_grad_(), torch.zeros(3).requires_grad_()
        scaled = x * torch.ones(()).requires_grad_()
        (slopes,) = torch.autograd.grad(lrelu(scaled, b=b).sum(), x, create_graph=True)
        return torch.autograd.grad(slopes.square().sum(), (x, b))

    expected = gradients()
    with fastgan.patch("stylegan3", quiet=True):
        found = gradients()
    assert not expected[0].any() and not expected[1].any()
    assert_close(found, expected, rtol=0, atol=0)


def test_half_types_and_filters_with_a_gradient_are_left_to_the_original(copies):
    upfirdn2d = copies("torch_utils.ops.upfirdn2d").upfirdn2d
    x, f = torch.randn(1, 2, 5, 5), taps(3).requires_grad_()
    half = upfirdn2d(x.bfloat16(), f.detach(), padding=1)
    with fastgan.patch("stylegan2_ada", quiet=True):
        assert torch.equal(upfirdn2d(x.bfloat16(), f.detach(), padding=1), half)
        assert torch.autograd.grad(upfirdn2d(x, f, padding=1).sum(), f)[0].shape == (3,)


@pytest.mark.parametrize("gain", [torch.tensor(4.0), float("inf")], ids=["tensor", "infinite"])
def test_gains_that_ours_refuses_are_left_to_the_original(copies, gain):
    upfirdn2d = copies("torch_utils.ops.upfirdn2d").upfirdn2d
    lrelu = copies("torch_utils.ops.filtered_lrelu").filtered_lrelu
    x = torch.rand(1, 2, 5, 5)

    def results():
        return upfirdn2d(x, None, gain=gain), lrelu(x, gain=gain)

    expected = results()
    with fastgan.patch("stylegan3", quiet=True) as report:
        assert len(report.replaced) == 2
        assert_close(results(), expected)
