"""`fastgan.patch` on torch.optim and lpips themselves, and on a copy of StyleGAN's bias and activation."""

from __future__ import annotations

import importlib
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import fastgan
from tests.optim.steps import PAIRS, assert_same, parameters, train

ORIGINALS = {name: kind for name, (_, kind) in PAIRS.items()}


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_optimizers_train_like_torchs_and_are_instances_of_them(name):
    before, expected = ORIGINALS[name](parameters()), parameters()
    train(expected, ORIGINALS[name](expected, lr=0.01), 5)
    with fastgan.patch("torch.optim", quiet=True) as report:
        assert len(report.replaced) == 3
        kind, ours = getattr(torch.optim, name), parameters()
        optimizer = kind(ours, lr=0.01)
        assert isinstance(optimizer, getattr(fastgan.optim, name))
        assert isinstance(optimizer, kind) and isinstance(before, kind)
        assert isinstance(optimizer, torch.optim.Adam) is isinstance(before, ORIGINALS["Adam"])
        train(ours, optimizer, 5)
    assert_same(ours, expected, 1e-6)
    assert getattr(torch.optim, name) is ORIGINALS[name]
    assert getattr(sys.modules[ORIGINALS[name].__module__], name) is ORIGINALS[name]


def _lpips(**options):
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as context:
        from torchvision import models

        alexnet = models.alexnet
        context.setattr(models, "alexnet", lambda **_: alexnet(weights=None))
        return lpips.LPIPS(net="alex", verbose=False, **options)


def _distance(metric, images, **options):
    x = images[0].clone().requires_grad_()
    value = metric(x, images[1], **options)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value, gradient


@pytest.mark.parametrize("options", [{}, {"lpips": False}, {"version": "0.0"}])
def test_lpips_has_the_values_and_gradients_that_it_had(options):
    metric, images = _lpips(**options), torch.rand(2, 3, 3, 64, 48)
    for normalize in (False, True):
        expected = _distance(metric, images, normalize=normalize)
        with fastgan.patch("lpips", quiet=True):
            found = _distance(metric, images, normalize=normalize)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * theirs.detach().abs().max().item())


def test_lpips_itself_serves_what_ours_does_not():
    images = torch.rand(2, 2, 3, 64, 64)
    spatial, trained = _lpips(spatial=True), _lpips(eval_mode=False, use_dropout=False)
    expected = spatial(*images), _lpips()(*images, retPerLayer=True), trained(*images)
    with fastgan.patch("lpips", quiet=True):
        assert torch.equal(spatial(*images), expected[0])
        assert torch.equal(_lpips()(*images, retPerLayer=True)[0], expected[1][0])
        loss = trained(*images).mean()
        assert torch.equal(loss, expected[2].mean())
        loss.backward()
        assert trained.lin0.model[0].weight.grad is not None


def test_lpips_keeps_the_hooks_of_its_network():
    metric, calls = _lpips(), []
    metric.net.slice1.register_forward_hook(lambda *_: calls.append(1))
    images = torch.rand(2, 1, 3, 64, 64).requires_grad_()
    with fastgan.patch("lpips", quiet=True):
        metric(images[0], images[1])
    assert len(calls) == 2


BIAS_ACT = """
import torch

def profiled(function):
    def decorator(*args, **kwargs):
        return function(*args, **kwargs)
    decorator.__name__ = function.__name__
    return decorator

def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None):
    return _bias_act_ref(x=x, b=b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)

@profiled
def _bias_act_ref(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None):
    if b is not None:
        x = x + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    if act == "lrelu":
        x = torch.nn.functional.leaky_relu(x, 0.2 if alpha is None else alpha)
    elif act == "swish":
        x = torch.sigmoid(x) * x
    elif act != "linear":
        x = getattr(torch.nn.functional, act)(x)
    root = 2**0.5 if act in ("relu", "lrelu", "swish") else 1
    x = x * (root if gain is None else gain)
    return x if clamp is None else x.clamp(-clamp, clamp)
"""


@pytest.fixture
def bias_act(tmp_path, monkeypatch):
    folder = tmp_path / "torch_utils/ops"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder):
        (package / "__init__.py").touch()
    (folder / "bias_act.py").write_text(BIAS_ACT)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("torch_utils.ops.bias_act").bias_act
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch_utils"]:
        del sys.modules[name]


@pytest.mark.parametrize("library", ["stylegan2_ada", "stylegan3", "r3gan"])
@pytest.mark.parametrize(
    "options",
    [
        {"act": "lrelu"},
        {"act": "lrelu", "alpha": 0.1, "gain": 2, "clamp": 1.0},
        {"act": "linear", "gain": 0.5},
        {"act": "linear", "clamp": 0.5},
        {"act": "relu", "alpha": 0.3},
        {"act": "tanh"},
        {"act": "sigmoid", "gain": 2.0},
        {"act": "elu", "clamp": 0.7},
        {"act": "selu"},
        {"act": "softplus", "dim": 2},
        {"act": "swish"},
        {"act": "lrelu", "dim": 2},
        {"act": "lrelu", "clamp": 0},
    ],
    ids=str,
)
def test_bias_and_activation_have_both_orders_of_gradient(bias_act, library, options):
    x, b = torch.randn(2, 3, 3, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)

    def results():
        leaves = x.clone().requires_grad_(), b.clone().requires_grad_()
        y = bias_act(*leaves, **options)
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), leaves, allow_unused=True)
        return y, *first, *second

    expected = results()
    with fastgan.patch(library, quiet=True) as report:
        assert "torch_utils.ops.bias_act._bias_act_ref" in report.replaced
        for ours, theirs in zip(results(), expected, strict=True):
            assert_close(ours, theirs)


@pytest.mark.parametrize("act", ["relu", "lrelu"])
def test_a_penalty_of_the_gradient_leaves_zeros_at_the_biases_and_not_none(bias_act, act):
    """With zeros an optimizer steps, a parameter without a gradient it skips, and `autograd.grad` refuses."""

    def gradients():
        torch.manual_seed(0)
        convolution, bias = nn.Conv2d(3, 4, 3), nn.Parameter(torch.zeros(4))
        x = torch.rand(2, 3, 8, 8).requires_grad_()
        y = bias_act(convolution(x), bias, act=act)
        y = bias_act(y + convolution.bias[0], act=act)
        (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), [*convolution.parameters(), bias, x])

    expected = gradients()
    assert torch.equal(expected[1], torch.zeros(4)) and torch.equal(expected[2], torch.zeros(4))
    with fastgan.patch("stylegan3", quiet=True):
        for ours, theirs in zip(gradients(), expected, strict=True):
            assert_close(ours, theirs)


def test_a_network_with_bias_and_activation_trains_in_half_precision_as_before(bias_act):
    """Half types are left to the original, whose steps round one by one."""
    x = nn.Parameter(torch.randn(2, 3, 4, 4, dtype=torch.bfloat16))
    expected = bias_act(x, act="lrelu")
    with fastgan.patch("stylegan3", quiet=True):
        assert torch.equal(bias_act(x, act="lrelu"), expected)


def test_pytorch_msssim_has_the_values_and_gradients_that_it_had():
    package = pytest.importorskip("pytorch_msssim")
    x, y = torch.rand(2, 2, 3, 163, 170)
    y = (x + y) / 2
    window = torch.rand(3, 1, 1, 5)
    small, volume = x[..., :9], x[:, :, None, :20, :20].repeat(1, 1, 12, 1, 1)
    calls = (
        lambda x: package.ssim(x, y, 1.0, win_size=7, win_sigma=2.0, nonnegative_ssim=True),
        lambda x: package.SSIM(1.0, size_average=None)(x, y),
        lambda x: package.MS_SSIM(1.0)(x, y),
    )
    kept = (
        lambda: package.ssim(x.half(), y.half(), 1.0), lambda: package.ssim(small, small.flip(2), 1.0),
        lambda: package.ssim(volume, volume.flip(3), 1.0),
        lambda: package.ssim(x, y, 1.0, win=window),
        # What the package computes with, although fastgan's function refuses it.
        lambda: package.SSIM(torch.tensor(1.0))(x, y), lambda: package.ssim(x, y, 1.0, win_sigma=-1.5),
        lambda: package.ms_ssim(x, y, 1.0, weights=torch.tensor([0.5, 0.5])),
        lambda: package.ms_ssim(x, y, 1.0, weights=[0.5, -0.5]),
    )  # fmt: skip

    def results():
        for call in calls:
            leaf = x.clone().requires_grad_()
            value = call(leaf)
            yield from (value, *torch.autograd.grad(value.sum(), leaf))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of images smaller than the window
        expected, others = [*results()], [call() for call in kept]
        with fastgan.patch("pytorch_msssim", quiet=True) as report:
            assert len(report.replaced) == 2
            for ours, theirs in zip(results(), expected, strict=True):
                assert (ours - theirs).norm() <= 1e-4 * theirs.norm()
            for call, other in zip(kept, others, strict=True):
                assert torch.equal(call(), other)
