"""Small generators with their losses, and what autograd gives for them term by term."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint


def uncut(*tensors: Tensor, measured: bool = True) -> Any:
    """In place of `LossBudget.cut`: the whole graph."""
    return tensors if len(tensors) > 1 else tensors[0]


class Scene(nn.Module):
    """Networks whose :meth:`terms` are computed from what `cut` makes of the generator's outputs."""

    batch = 4

    def inputs(self) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def terms(self, cut: Callable[..., Any], *inputs: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    @property
    def layer(self) -> nn.Module:
        return self.generator[-1]


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Plain(Scene):
    """Heads of their own; one with trained parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic, self.frozen = mlp(5, 8, 6), mlp(6, 7, 1), mlp(6, 9, 3)
        self.frozen.requires_grad_(False)

    def inputs(self):
        return torch.randn(self.batch, 5), torch.randn(self.batch, 6)

    def terms(self, cut, z, real):
        fake = cut(self.generator(z))
        return {
            "l1": F.l1_loss(fake, real),
            "gan": F.softplus(-self.critic(fake)).mean(),
            "perceptual": F.mse_loss(self.frozen(fake), self.frozen(real)),
        }


class Shared(Plain):
    """Two terms from one pass of the critic, and one term twice."""

    def terms(self, cut, z, real):
        fake = cut(self.generator(z))
        features = self.critic[0](fake)
        gan = F.softplus(-self.critic[1:](features)).mean()
        return {"gan": gan, "l2": F.mse_loss(fake, real), "again": gan, "features": features.square().mean()}


class UNet(Scene):
    """Two cuts, at the output and within; a term that depends on one of them, and one on both."""

    batch = 2

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.up, self.generator = nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Sequential(nn.Conv2d(6, 3, 3, 1, 1))
        self.critic = nn.Conv2d(3, 1, 3)

    def inputs(self):
        return torch.rand(self.batch, 3, 8, 8), torch.rand(self.batch, 3, 8, 8)

    def terms(self, cut, image, real):
        code = self.middle(self.down(image).tanh()).tanh()
        fake = self.generator(torch.cat([self.up(code), image], 1))
        code, fake = cut(code, fake)
        return {
            "sparse": code.abs().mean(),
            "l1": F.l1_loss(fake, real),
            "gan": -self.critic(fake).mean(),
            "both": (code.square().mean() * fake.square().mean()),
        }


class Cycle(Scene):
    """The generator judges and translates its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = mlp(6, 8, 6), mlp(6, 7, 1)

    def inputs(self):
        return (torch.randn(self.batch, 6),)

    def terms(self, cut, x):
        fake = cut(self.generator(x))
        back = self.generator(fake)
        return {
            "gan": -self.critic(fake).mean(),
            "cycle": F.l1_loss(back, x),
            "idempotent": F.mse_loss(back, fake),
        }


class Style(Scene):
    """A style code that the generator gets, and a term compares with the style of the output."""

    cuts_style = True

    def __init__(self) -> None:
        super().__init__()
        self.mapping, self.generator, self.encoder = mlp(3, 6, 4), mlp(9, 8, 5), mlp(5, 7, 4)

    def inputs(self):
        return torch.randn(self.batch, 5), torch.randn(self.batch, 3)

    def terms(self, cut, x, z):
        s_trg = self.mapping(z)
        fake = cut(self.generator(torch.cat([x, s_trg], 1)))
        if self.cuts_style:
            s_trg = cut(s_trg, measured=False)
        return {"style": (self.encoder(fake) - s_trg).abs().mean(), "l2": F.mse_loss(fake, x)}


class StyleUncut(Style):
    cuts_style = False


class Checkpointed(Plain):
    """Activations of the critic and the generator are computed again in the backward pass."""

    def terms(self, cut, z, real):
        fake = cut(checkpoint(self.generator, z, use_reentrant=False))
        feature, logits = checkpoint(self.judge, fake, use_reentrant=False)
        return {"gan": -logits.mean(), "feature": feature.square().mean(), "l1": F.l1_loss(fake, real)}

    def judge(self, x):
        feature = self.critic[:2](x)
        return feature * feature, self.critic[2](feature)


class PathLength(Plain):
    """Terms that contain a gradient: with respect to the output and to real samples."""

    def terms(self, cut, z, real):
        fake = cut(self.generator(z))
        (slope,) = torch.autograd.grad(self.critic(fake).sum(), fake, create_graph=True)
        real = real.clone().requires_grad_()
        (r1,) = torch.autograd.grad(self.critic(real).sum(), real, create_graph=True)
        return {
            "slope": slope.square().mean(),
            "mixed": (r1 * fake).square().mean(),
            "l2": fake.square().mean(),
        }


SCENES = (Plain, Shared, UNet, Cycle, Style, StyleUncut, Checkpointed, PathLength)


def make(kind: type[Scene], dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0):
    """(scene, inputs), the same numbers in every dtype."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scene, inputs = kind(), kind.inputs(kind())
    return scene.to(device, dtype), tuple(x.to(device, dtype) for x in inputs)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def assert_gradients_equal(actual, expected, relative: float = 1e-6):
    """By the norm of the difference in each tensor."""
    assert actual.keys() == expected.keys()
    largest = max(float(grad.double().norm()) for grad in expected.values())
    for name, grad in expected.items():
        difference = float((actual[name].double() - grad.double()).norm())
        # Gradients that cancel are exact to the rounding of what cancels.
        assert difference <= relative * max(float(grad.double().norm()), 1e-2 * largest), name


def plain_gradients(kind, weights, dtype=torch.float32, device="cpu", seed=0, beside=None):
    """Of `sum(w * t).backward()`."""
    scene, inputs = make(kind, dtype, device, seed)
    terms = scene.terms(uncut, *inputs)
    loss = sum(weights[name] * term for name, term in terms.items())
    if beside is not None:
        loss = loss + beside(scene)
    loss.backward()
    return gradients(scene)


def gradients_at_cut(kind, seed=0) -> dict[str, Tensor]:
    """Each unweighted term's float64 gradient at all measured cuts, as one vector."""
    scene, inputs = make(kind, torch.float64, seed=seed)
    measured_tensors: list[Tensor] = []

    def record(*tensors, measured=True):
        leaves = tuple(tensor.detach().requires_grad_() for tensor in tensors)
        measured_tensors.extend(leaves if measured else ())
        return uncut(*leaves)

    terms = scene.terms(record, *inputs)
    found = {}
    for name, term in terms.items():
        parts = torch.autograd.grad(term, measured_tensors, retain_graph=True, allow_unused=True)
        padded = [
            torch.zeros_like(t) if g is None else g for t, g in zip(measured_tensors, parts, strict=True)
        ]
        found[name] = torch.cat([g.flatten() for g in padded])
    return found


def weights_of(kind, values=(1.0, 0.1, 3.0, 0.5)) -> dict[str, float]:
    scene, inputs = make(kind)
    return dict(zip(scene.terms(uncut, *inputs), values, strict=False))


def assert_measures_equal(shares, at_cut, weights, relative=1e-5):
    weighted = {name: weights[name] * gradient for name, gradient in at_cut.items()}
    norms = {name: gradient.norm() for name, gradient in weighted.items()}
    assert shares.names == tuple(weights)
    for name in weights:
        assert_close(shares.norm[name].double().cpu(), norms[name], rtol=relative, atol=0)
        total = sum(norms.values())
        expected = norms[name] / total if total > 0 else total
        assert_close(shares.share[name].double().cpu(), expected, rtol=relative, atol=0)
        assert_close(float(shares.weight[name]), float(weights[name]))
    for pair in itertools.product(weights, repeat=2):
        a, b = (weighted[name] for name in pair)
        cosine = torch.zeros(()) if 0 in (a.norm(), b.norm()) else F.cosine_similarity(a, b, dim=0, eps=0)
        assert_close(shares.cosine(*pair).double().cpu(), cosine.double(), rtol=0, atol=relative)
        if pair in shares.cosines():
            assert shares.cosines()[pair] == shares.cosine(*pair)
