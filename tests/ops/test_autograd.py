"""The ways into an op: plain eager calls, modes that watch operations, and transforms."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from fastgan.losses import AdversarialLoss, yuv_color_l2
from fastgan.ops import feature_distance, squared_norm
from fastgan.ops.squared_norm import _squared_norm


@pytest.fixture
def x():
    return torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)


def test_all_ways_give_the_same_gradient(x):
    (plain,) = torch.autograd.grad(squared_norm(x).sum(), x)
    (registered,) = torch.autograd.grad(torch.ops.fastgan.squared_norm(x).sum(), x)
    transformed = torch.func.grad(lambda y: squared_norm(y).sum())(x.detach())
    torch.testing.assert_close(plain, registered, rtol=0, atol=0)
    torch.testing.assert_close(plain, transformed, rtol=0, atol=0)


def test_no_graph_where_no_gradient_is_wanted(x):
    assert squared_norm(x).grad_fn is not None
    assert squared_norm(x.detach()).grad_fn is None
    with torch.no_grad():
        assert not squared_norm(x).requires_grad


def test_modes_see_the_op(x):
    """A mode that watches operations, as tracers and counters do, is not passed by."""
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Watch():
        squared_norm(x).sum().backward()
    assert "fastgan.squared_norm.default" in seen
    with FlopCounterMode(display=False):
        torch.testing.assert_close(squared_norm(x), x.detach().square().sum((1, 2)))


def test_subclasses_reach_their_own_dispatch(x):
    calls = []

    class Logged(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            calls.append(str(function))
            return super().__torch_function__(function, types, args, kwargs or {})

    _squared_norm(x.detach().as_subclass(Logged))
    assert any("squared_norm" in call for call in calls)


def test_forward_mode_is_refused_instead_of_dropped(x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.detach(), torch.ones_like(x))
        with pytest.raises(NotImplementedError, match="squared_norm has no forward-mode derivative"):
            squared_norm(dual)
        with pytest.raises(NotImplementedError, match="backend='reference'"):
            AdversarialLoss("bce").generator(dual)
        assert forward_ad.unpack_dual(squared_norm(dual, backend="reference")).tangent is not None
        squared_norm(x)


# Whose backward passes write into what was saved, where they may.
writes_into_saved = pytest.mark.parametrize(
    "function",
    [
        lambda x, y: feature_distance(x, y).sum(),
        lambda x, y: yuv_color_l2(x, y),
    ],
    ids=["feature_distance", "yuv_l2"],
)


@writes_into_saved
@pytest.mark.parametrize("retain", [False, True])
def test_a_first_order_gradient_has_no_graph(function, retain):
    image, other = torch.rand(2, 2, 3, 8, 8)
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(function(image, other), image, retain_graph=retain)
    assert gradient.grad_fn is None and not gradient.requires_grad
    penalized = torch.rand_like(image, requires_grad=True)
    (penalized - gradient).square().mean().backward()
    assert penalized.grad is not None


@writes_into_saved
def test_a_traced_backward_writes_into_nothing_that_was_saved(function):
    image, other = torch.rand(2, 2, 3, 8, 8)

    def gradient(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x, other), x)[0]

    called = [str(node.target) for node in make_fx(gradient)(image).graph.nodes]
    ours = [name for name in called if name.startswith("fastgan")]
    assert any("backward" in name for name in ours)
    assert not any(name.split(".")[1].endswith("_") for name in ours), ours
