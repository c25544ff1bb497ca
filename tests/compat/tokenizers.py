"""A tiny autoencoder, and the published formulas of losses for it in plain torch: two passes for a weight."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

SIZE = 16


class Autoencoder(nn.Module):
    """Also gives what regularizes the code: a codebook's loss, which here rounds, and a KL divergence."""

    def __init__(self, channels=3):
        super().__init__()
        self.encoder = nn.Conv2d(channels, 8, 4, 2, 1)
        self.decoder = nn.ConvTranspose2d(4, 6, 4, 2, 1)
        self.conv_out = nn.Conv2d(6, channels, 3, padding=1)

    def forward(self, images):
        mean, self.logvar = self.encoder(images).chunk(2, dim=1)
        self.mean = mean
        self.codebook_loss = (mean - mean.detach().round()).square().mean(dim=(1, 2, 3))
        return self.conv_out(F.silu(self.decoder(mean + 0.1 * self.logvar)))

    def kl(self):
        """(N,), as that of LDM's posterior."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).sum(dim=(1, 2, 3))


class Distance(nn.Module):
    """In place of LPIPS, N 1 1 1, and as unequal in its arguments as to show their order."""

    def __init__(self, *_, **options):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus()).requires_grad_(False)

    def forward(self, inputs, reconstructions):
        difference = self.layers(inputs) - 1.1 * self.layers(reconstructions)
        return difference.square().mean(dim=(1, 2, 3), keepdim=True)


def lpips_by_hand(network, x, y):
    """The formula of LPIPS, with the weights of fastgan's."""
    distance = 0
    maps = [network.scaling_layer(x), network.scaling_layer(y)]
    for number in range(network.net.N_slices):
        layers = getattr(network.net, f"slice{number + 1}")
        for layer in layers:
            maps = [F.relu(m) if isinstance(layer, nn.ReLU) else layer(m) for m in maps]
        unit = [m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10) for m in maps]
        weighed = getattr(network, f"lin{number}").model[-1]((unit[0] - unit[1]).square())
        distance = distance + weighed.mean(dim=(2, 3), keepdim=True)
    return distance


def norm_at(loss, layer):
    return torch.autograd.grad(loss, layer, retain_graph=True)[0].norm()


def adaptive_weight(anchor, g_loss, layer, epsilon=1e-4, largest=1e4):
    """By a backward pass for each loss, as published."""
    ratio = norm_at(anchor, layer) / (norm_at(g_loss, layer) + epsilon)
    return ratio.clamp(0.0, largest).detach()


def d_loss(kind, real, fake):
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def judged(loss, images, cond):
    return loss.discriminator(images if cond is None else torch.cat([images, cond], dim=1))


@contextlib.contextmanager
def one_thread():
    """For networks so small that threads would mainly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


Step = Callable[[nn.Module, Autoencoder, torch.Tensor, int, int], tuple[torch.Tensor, dict]]


def train_both(
    loss: nn.Module,
    ours: Step,
    theirs: Step,
    steps: int = 20,
    size: int = SIZE,
    network: Callable[[], nn.Module] = Autoencoder,
    **options,
) -> Iterator[dict]:
    """Trains an autoencoder and a discriminator with each, and compares everything after every backward.

    Yields:
        the log of each generator's step.
    """
    with one_thread():
        torch.manual_seed(0)
        loss.double()
        autoencoder = network().double()
        pairs = [(autoencoder, loss), copy.deepcopy((autoencoder, loss))]
        optimizers = [
            [
                torch.optim.Adam(
                    [*one.parameters(), *(p for n, p in own.named_parameters() if n == "logvar")], 0.01
                ),
                torch.optim.Adam(own.discriminator.parameters(), 0.01),
            ]
            for one, own in pairs
        ]
        for step in range(steps):
            images = 2 * torch.rand(2, 3, size, size, dtype=torch.float64) - 1
            for index in (0, 1):
                results = []
                for run, (one, own), (of_generator, of_discriminator) in zip(
                    (ours, theirs), pairs, optimizers, strict=True
                ):
                    of_generator.zero_grad()
                    of_discriminator.zero_grad()
                    value, log = run(own, one, images, index, step, **options)
                    value.backward()
                    trained = [own.discriminator if index else one]
                    gradients = [p.grad for network in trained for p in network.parameters()]
                    if not index and "logvar" in dict(own.named_parameters()):
                        gradients.append(own.logvar.grad)
                    results.append((value, log, gradients))
                    (of_discriminator if index else of_generator).step()
                (value, log, gradients), (wanted, wanted_log, wanted_gradients) = results
                compare(value, wanted)
                assert list(log) == list(wanted_log)
                for name in log:
                    compare(log[name], wanted_log[name], what=f"{name} at step {step}")
                for gradient, wanted in zip(gradients, wanted_gradients, strict=True):
                    if gradient is None or wanted is None:
                        assert gradient is wanted
                        continue
                    compare(gradient, wanted)
                if not index:
                    yield log


def compare(actual, wanted, what="value"):
    """To 1e-5 of the largest value: weights are computed in float32."""
    actual, wanted = (torch.as_tensor(value).detach().double() for value in (actual, wanted))
    largest = wanted.abs().max().item()
    assert_close(
        actual,
        wanted.reshape(actual.shape),
        rtol=1e-5,
        atol=1e-5 * largest,
        msg=lambda text: f"{what}: {text}",
    )
