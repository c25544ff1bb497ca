"""The ops of StyleGAN2 under BasicSR's and rosinality's names, against their formulas step by step."""

from __future__ import annotations

import inspect
import io
import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.compat import basicsr, rosinality
from tests.ops.filters import taps, upfirdn2d_by_steps

TOLERANCES = {torch.float64: {"rtol": 1e-12, "atol": 1e-12}, torch.float32: {"rtol": 1e-5, "atol": 1e-5}}


def relu_by_steps(input, bias=None, negative_slope=0.2, scale=2**0.5):
    bias = 0 if bias is None else bias.reshape(1, -1, *(1,) * (input.dim() - 2))
    return scale * F.leaky_relu(input + bias, negative_slope)


def filter_by_steps(input, kernel, up=1, down=1, pad=(0, 0)):
    return upfirdn2d_by_steps(input, kernel, up, down, (*pad, *pad)[:4])


def both_orders(function, *inputs):
    """The value, its gradients, and those of the squared gradient with respect to the first input."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    first = torch.autograd.grad((y - 1).square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), leaves)
    return y, *first, *second


def drawn_filters(draw):
    """Kernels of two axes with factors and pads, for `count` numbers in a pad; some pads crop."""
    for count in (2, 4):
        for _ in range(12):
            height, width = (draw.randint(1, 6) for _ in range(2))
            up, down = ([draw.randint(1, 3) for _ in range(count // 2)] for _ in range(2))
            pad = [draw.randint(-1, 4) for _ in range(count)]
            options = {"up": tuple(up) if count == 4 else up[0], "down": down if count == 4 else down[0]}
            yield taps(height, width, seed=height), {**options, "pad": pad}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_upfirdn2d_has_the_values_and_both_orders_of_gradient_of_its_formula(dtype):
    draw = random.Random(0)
    for kernel, options in drawn_filters(draw):
        kernel, x = (kernel / kernel.sum()).to(dtype), torch.randn(2, 3, 8, 7, dtype=dtype)
        expected = both_orders(lambda x, k=kernel, o=options: filter_by_steps(x, k, **o), x)
        names = [rosinality] if len(options["pad"]) == 4 else [rosinality, basicsr]
        for module in names:
            found = both_orders(lambda x, m=module, k=kernel, o=options: m.upfirdn2d(x, k, **o), x)
            assert_close(found, expected, **TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("module", [basicsr, rosinality], ids=["basicsr", "rosinality"])
def test_fused_leaky_relu_has_the_values_and_gradients_of_its_formula(module, dtype):
    for shape in ((5, 3), (2, 3, 6, 5), (2, 3, 7)):
        x, bias = torch.randn(shape, dtype=dtype), torch.randn(3, dtype=dtype)
        for options in ({}, {"negative_slope": 0.1, "scale": 1.5}):
            for inputs in ((x, bias), (x,)):
                biased = () if len(inputs) == 2 else (None,)
                results = [
                    both_orders(
                        lambda *x, f=f, b=biased, o=options: f(*(t.sin() for t in x), *b, **o), *inputs
                    )
                    for f in (module.fused_leaky_relu, relu_by_steps)
                ]
                assert_close(*results, **TOLERANCES[dtype])


class Activated(nn.Module):
    """A convolution with noise, an activation and a filter, as in StyleGAN2's networks."""

    def __init__(self, ops, relu, channels):
        super().__init__()
        self.upfirdn2d, self.relu = ops.upfirdn2d, relu
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) / channels)
        self.noise = nn.Parameter(torch.full((1,), 0.1))
        self.register_buffer("kernel", taps(4, 4) / 4)

    def forward(self, x, **factor):
        x = F.conv2d(x, self.weight, padding=1)
        x = self.relu(x + self.noise * torch.linspace(-1, 1, x.shape[-1]))
        return self.upfirdn2d(x, self.kernel, pad=(2, 1), **factor)


class ReLUBySteps(rosinality.FusedLeakyReLU):
    def forward(self, input):
        return relu_by_steps(input, self.bias, self.negative_slope, self.scale)


BY_STEPS = SimpleNamespace(upfirdn2d=filter_by_steps, FusedLeakyReLU=ReLUBySteps)


def penalties(ops):
    """R1 of a discriminator and path lengths of a generator with these ops, and all their gradients."""
    torch.manual_seed(0)
    first, second = (Activated(ops, ops.FusedLeakyReLU(4), 4) for _ in range(2))
    for parameter in (first.relu.bias, second.relu.bias):
        nn.init.normal_(parameter)
    images = torch.rand(2, 4, 8, 8).requires_grad_()
    (slopes,) = torch.autograd.grad(
        second(first(images, down=2), down=2).tanh().sum(), images, create_graph=True
    )
    r1 = slopes.square().sum(dim=(1, 2, 3)).mean()
    styles = torch.rand(2, 4).requires_grad_()
    made = second(first(styles[:, :, None, None].expand(-1, -1, 4, 4) * images[..., :4, :4], up=2), up=2)
    (slopes,) = torch.autograd.grad((made * torch.rand_like(made)).sum(), styles, create_graph=True)
    length = slopes.square().sum(1).sqrt().mean()
    networks = nn.ModuleList([first, second])
    gradients = [
        gradient
        for penalty in (r1, length)
        for gradient in torch.autograd.grad(
            penalty, list(networks.parameters()), allow_unused=True, materialize_grads=True
        )
    ]
    return r1, length, *gradients


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("module", [basicsr, rosinality], ids=["basicsr", "rosinality"])
def test_r1_and_path_lengths_go_through_both(module, dtype):
    torch.set_default_dtype(dtype)
    try:
        assert_close(penalties(module), penalties(BY_STEPS), **TOLERANCES[dtype])
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_modules_have_the_originals_arguments_and_state():
    ours = basicsr.FusedLeakyReLU(3, 0.1, 2.0)
    assert (ours.negative_slope, ours.scale) == (0.1, 2.0)
    assert list(ours.state_dict()) == ["bias"] and torch.equal(ours.bias, torch.zeros(3))
    assert list(inspect.signature(basicsr.FusedLeakyReLU).parameters)[1] == "negative_slope"
    without = rosinality.FusedLeakyReLU(3, bias=False)
    assert without.bias is None and not without.state_dict()
    x = torch.randn(2, 3)
    assert_close(without(x), relu_by_steps(x))


X, KERNEL = torch.rand(1, 2, 5, 4), taps(3, 3)
WRONG = [
    (lambda: rosinality.upfirdn2d(X[0], KERNEL), ValueError, r"input must have shape \(N, C, H, W\)"),
    (lambda: rosinality.upfirdn2d(X, KERNEL[0]), ValueError, r"kernel must have shape .*got \(3,\)"),
    (lambda: rosinality.upfirdn2d(X, None), TypeError, "kernel must be a floating-point tensor, got None"),
    (lambda: rosinality.upfirdn2d(X, taps(2, 2).requires_grad_()), ValueError, "kernel is a constant"),
    (lambda: rosinality.upfirdn2d(X, KERNEL.to("meta")), ValueError, "one device"),
    (lambda: rosinality.upfirdn2d(X, KERNEL, up=0), ValueError, "up must be at least 1, got 0"),
    (lambda: rosinality.upfirdn2d(X, KERNEL, pad=(1, 2, 3)), ValueError, r"pad must be .*got \(1, 2, 3\)"),
    (lambda: rosinality.upfirdn2d(X, KERNEL, pad=1), ValueError, "pad must be .*got 1"),
    (
        lambda: rosinality.upfirdn2d(X, KERNEL, pad=(-2, 0)), ValueError,
        r"as large as kernel, 3 x 3, got 3 x 2 of input's 5 x 4 with up 1 and pad \(-2, 0\)",
    ),
    (lambda: basicsr.upfirdn2d(X, KERNEL, up=(2, 1)), TypeError, "up must be a whole number, got tuple"),
    (lambda: basicsr.upfirdn2d(X, KERNEL, pad=(1, 1, 1, 1)), ValueError, r"pad must be \(before, after\)"),
    (lambda: basicsr.fused_leaky_relu(X, torch.rand(3)), ValueError, r"bias must have shape \(2,\)"),
    (lambda: rosinality.fused_leaky_relu(X[0, 0, 0]), ValueError, r"input must have shape \(N, C, ...\)"),
    (lambda: rosinality.fused_leaky_relu(X, scale=float("inf")), ValueError, "scale must be finite, got inf"),
    (lambda: rosinality.FusedLeakyReLU(0), ValueError, "channel must be at least 1, got 0"),
    (lambda: rosinality.FusedLeakyReLU(2, 0.2), TypeError, "bias must be True or False, got float 0.2"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients_of_second_order_are_zeros_and_not_none(with_bias):
    x, bias = torch.randn(2, 3, 4, 4, requires_grad=True), torch.zeros(3, requires_grad=True)
    leaves = (x, bias) if with_bias else (x,)
    (slopes,) = torch.autograd.grad(rosinality.fused_leaky_relu(*leaves).sum(), x, create_graph=True)
    weight = torch.ones((), requires_grad=True)
    for zeros in torch.autograd.grad((weight * slopes).square().sum(), leaves):
        assert not zeros.any()


@pytest.mark.parametrize("module", [basicsr, rosinality], ids=["basicsr", "rosinality"])
@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_a_trace_of_torch_jit_can_be_saved_and_trained(module):
    network = Activated(module, module.FusedLeakyReLU(4), 4)
    x, file = torch.randn(2, 4, 6, 5), io.BytesIO()
    torch.jit.save(torch.jit.trace(network, x), file)
    file.seek(0)
    traced = torch.jit.load(file)
    results = []
    for each in (network, traced):
        y = each(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), list(each.parameters()))))
    assert_close(*results)
