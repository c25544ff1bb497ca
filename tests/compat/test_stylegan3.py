"""Networks as StyleGAN3's and R3GAN's, made of the ops that `fastgan.compat.stylegan3` has."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan import optim
from fastgan.compat import stylegan3
from fastgan.losses import AdversarialLoss
from fastgan.ops import bias_leaky_relu
from tests.ops.filters import filtered_lrelu_by_steps, taps, upfirdn2d_by_steps


def _activation_by_steps(x, b):
    return math.sqrt(2) * F.leaky_relu(x + b[:, None, None], 0.2)


OURS = SimpleNamespace(
    upfirdn2d=stylegan3.upfirdn2d,
    filtered_lrelu=stylegan3.filtered_lrelu,
    activation=lambda x, b: bias_leaky_relu(x, b, gain=math.sqrt(2)),
)
BY_STEPS = SimpleNamespace(
    upfirdn2d=upfirdn2d_by_steps, filtered_lrelu=filtered_lrelu_by_steps, activation=_activation_by_steps
)


class SynthesisLayer(nn.Module):
    """A modulated convolution, and the alias-free activation at twice or four times the rate."""

    def __init__(self, ops, channels_in, channels_out, up):
        super().__init__()
        self.ops, self.up = ops, up
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.style = nn.Linear(8, channels_in)
        self.register_buffer("fu", stylegan3.setup_filter(taps(6 * up)))
        self.register_buffer("fd", stylegan3.setup_filter(taps(12, seed=1)))

    def forward(self, x, w):
        weight = self.weight * self.style(w)[:, None, :, None, None]
        weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        n, c, height, width = x.shape
        y = F.conv2d(x.reshape(1, n * c, height, width), weight.flatten(0, 1), padding=2, groups=n)
        # The convolution adds two rows and columns; the result has up / 2 times the rows of x.
        total = self.fu.numel() - 1 + self.fd.numel() - 1 - 2 * self.up
        before = (total + self.up) // 2
        return self.ops.filtered_lrelu(
            y.unflatten(1, (n, -1))[0], self.fu, self.fd, self.bias, self.up, 2,
            [before, total - before, before, total - before], clamp=256,
        )  # fmt: skip


class Generator(nn.Module):
    def __init__(self, ops):
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, 6, 8, 8))
        self.layers = nn.ModuleList([SynthesisLayer(ops, 6, 6, 2), SynthesisLayer(ops, 6, 5, 4)])
        self.to_rgb = nn.Conv2d(5, 3, 1)

    def forward(self, w):
        x = self.constant.expand(w.shape[0], -1, -1, -1)
        for layer in self.layers:
            x = layer(x, w)
        return self.to_rgb(x)


class Critic(nn.Module):
    """Residual blocks with biased activations and filtered downsampling, as R3GAN's."""

    def __init__(self, ops):
        super().__init__()
        self.ops = ops
        self.from_rgb = nn.Conv2d(3, 6, 1)
        self.convolutions = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1, bias=False) for _ in range(4))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(6)) for _ in range(4))
        self.register_buffer("filter", stylegan3.setup_filter([1, 2, 1]))
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        x = self.from_rgb(x)
        for block in range(2):
            y = x
            for number in (2 * block, 2 * block + 1):
                y = self.convolutions[number](self.ops.activation(y, self.biases[number]))
            x = self.ops.upfirdn2d(x + y, self.filter, down=2, padding=1)
        return self.head(x.mean(dim=(2, 3)))[:, 0]


def trained(ops, steps):
    """The losses of each step and the parameters after the last; with R1 and R2 on every step."""
    torch.manual_seed(1)
    generator, critic = Generator(ops), Critic(ops)
    adversarial = AdversarialLoss("relativistic")
    optimizers = [
        optim.Adam(network.parameters(), lr=2e-3, betas=(0.0, 0.9)) for network in (generator, critic)
    ]
    losses = []
    for step in range(steps):
        noise = torch.Generator().manual_seed(step)
        w, real = torch.randn(3, 8, generator=noise), torch.randn(3, 3, 16, 16, generator=noise)
        real, fake = real.requires_grad_(), generator(w).detach().requires_grad_()
        logits = critic(real), critic(fake)
        loss = adversarial.discriminator(*logits)
        for x, of in zip((real, fake), logits, strict=True):
            (gradient,) = torch.autograd.grad(of.sum(), x, create_graph=True)
            loss = loss + gradient.square().sum(dim=(1, 2, 3)).mean()
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        fooled = adversarial.generator(critic(generator(w)), critic(real.detach()))
        optimizers[0].zero_grad()
        fooled.backward()
        optimizers[0].step()
        losses += [loss.detach(), fooled.detach()]
    return torch.stack(losses), [*generator.parameters(), *critic.parameters()]


def test_a_generator_and_a_critic_train_as_with_plain_operations():
    torch.set_default_dtype(torch.float64)
    try:
        ours, parameters = trained(OURS, 20)
        expected, expected_parameters = trained(BY_STEPS, 20)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_close(ours, expected, rtol=1e-6, atol=1e-8)
    for one, other in zip(parameters, expected_parameters, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6)
    single, _ = trained(OURS, 3)
    assert_close(single, trained(BY_STEPS, 3)[0], rtol=1e-4, atol=1e-5)


def test_path_lengths_have_the_gradients_of_plain_operations():
    def of(ops):
        torch.manual_seed(2)
        generator = Generator(ops)
        w = torch.randn(2, 8, requires_grad=True)
        images = generator(w)
        (slopes,) = torch.autograd.grad((images * torch.ones_like(images)).sum(), w, create_graph=True)
        lengths = slopes.square().sum(1).sqrt()
        parameters = list(generator.layers.parameters())
        return lengths, *torch.autograd.grad(lengths.square().sum(), parameters)

    for one, other in zip(of(OURS), of(BY_STEPS), strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize("impl", ["cuda", "ref"])
def test_impl_stands_for_kernel_and_reference(impl):
    x, f = torch.rand(1, 2, 8, 8), stylegan3.setup_filter([1, 3, 3, 1])
    for name, call in (
        ("upfirdn2d", {"padding": 2}),
        ("filter2d", {}),
        ("upsample2d", {}),
        ("downsample2d", {}),
    ):
        found = getattr(stylegan3, name)(x, f, impl=impl, **call)
        assert_close(found, getattr(stylegan3, name)(x, f, **call))
    assert_close(stylegan3.filtered_lrelu(x, impl=impl), math.sqrt(2) * F.leaky_relu(x, 0.2))
    with pytest.raises(ValueError, match="impl must be one of cuda, ref, got 'cpu'"):
        stylegan3.upfirdn2d(x, f, impl="cpu")


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_traces_of_torch_jit_have_the_values_and_gradients():
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.randn(3))
            self.register_buffer("f", stylegan3.setup_filter([1, 3, 3, 1]))

        def forward(self, x):
            x = stylegan3.upsample2d(stylegan3.filter2d(x, self.f), self.f)
            x = stylegan3.bias_act(x, self.bias, act="lrelu")
            x = stylegan3.filtered_lrelu(x, self.f, self.f, self.bias, 2, 2, 3)
            return stylegan3.downsample2d(x, self.f)

    layers, x = Layers(), torch.randn(2, 3, 6, 5)
    results = []
    for each in (layers, torch.jit.trace(layers, x)):
        y = each(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), list(each.parameters()))))
    assert_close(*results)
