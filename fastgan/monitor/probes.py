"""Probes: a few forward passes at an evaluation that tell what no curve shows.

What D has learned: whether it knows its training images by heart, and whether it judges the pipeline rather
than the generator. What G makes: how many different images, and whether they are those of the training set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fastgan.monitor.look import auc
from fastgan.ops._checks import as_list, check_image, check_instance, described, is_among, shown


@dataclass(frozen=True)
class ProbeInputs:
    """What the probes compare. Images are N C H W as D sees them; None leaves the probes that need it out."""

    score: Callable[[Tensor], Tensor] | None
    """D's scores of images, (N, ...)."""
    train: Tensor
    """Real images that D is trained on."""
    held_out: Tensor | None
    """Real images that it is not."""
    fake: Tensor
    """The generator's images."""
    null: tuple[Tensor, Tensor] | None = None
    """(real, null): real images as D sees them, and what the generator's pipeline makes of them without the
    generator's contribution."""
    sign: int = 1
    """-1: D's scores are high for fakes."""


def checked_inputs(
    train: Tensor,
    fake: Tensor,
    held_out: Tensor | None,
    discriminator: nn.Module | None,
    score: Callable[[Tensor], Tensor] | None,
    null: tuple[Tensor, Tensor] | None,
    sign: int,
) -> ProbeInputs:
    """Inputs whose scores are those of the discriminator without another score, see :meth:`Monitor.probe`.

    Raises:
        TypeError, ValueError: see there.
    """
    images = {"train": train, "fake": fake}
    if held_out is not None:
        images["held_out"] = held_out
    if null is not None:
        pair = as_list("null", null)
        if len(pair) != 2:
            raise ValueError(f"null must be (real, null), got a {type(null).__name__} of {len(pair)}")
        images |= {"null[0]": cast(Tensor, pair[0]), "null[1]": cast(Tensor, pair[1])}
    for name, value in images.items():
        check_image(name, value, channels=None)
        if value.shape[1:] != train.shape[1:]:
            raise ValueError(
                f"{name} must have images of the shape of train's, {tuple(train.shape[1:])}, "
                f"got {tuple(value.shape[1:])}"
            )
    if discriminator is not None:
        check_instance("discriminator", discriminator, nn.Module, "a torch.nn.Module")
    if score is not None and not callable(score):
        raise TypeError(f"score must be a function of images, got {described(score)}")
    if not is_among(sign, (1, -1)):
        raise ValueError(f"sign must be +1 or -1, got {shown(sign)}")
    used = discriminator if score is None else score

    def checked(images: Tensor) -> Tensor:
        scores = cast(Callable[[Tensor], Tensor], used)(images)
        if not isinstance(scores, Tensor) or scores.dim() == 0 or len(scores) != len(images):
            raise ValueError(f"scores must be a tensor of {len(images)} rows, got {described(scores)}")
        return scores

    return ProbeInputs(None if used is None else checked, train, held_out, fake, null, sign)


@contextlib.contextmanager
def evaluating(network: nn.Module | None) -> Iterator[None]:
    """Puts a network in eval mode, without changing that of its parts for good."""
    modes = {} if network is None else {module: module.training for module in network.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def probe(inputs: ProbeInputs, discriminator: nn.Module | None = None) -> dict[str, float]:
    """All probes for which there are inputs; see the functions for what each figure is."""
    figures: dict[str, Tensor] = {}
    if discriminator is not None and (rank := smallest_stable_rank(discriminator)) is not None:
        figures["probe_stable_rank"] = rank
    if inputs.score is not None:
        train, fake = inputs.score(inputs.train), inputs.score(inputs.fake)
        figures["probe_auc_fake"] = auc(train, fake, inputs.sign)
        if inputs.held_out is not None:
            held_out = inputs.score(inputs.held_out)
            figures["probe_overfitting"] = overfitting(train, held_out, fake)
            figures["probe_auc_held_out"] = auc(held_out, fake, inputs.sign)
        if inputs.null is not None:
            real, null = inputs.null
            figures["probe_auc_null"] = auc(inputs.score(real), inputs.score(null), inputs.sign)
    if inputs.held_out is not None and min(map(len, (inputs.fake, inputs.held_out, inputs.train))) > 1:
        spacing = _distances(inputs.held_out).mean().clamp(min=1e-6)
        figures["probe_distance_ratio"] = _distances(inputs.fake).mean() / spacing
        figures["probe_memorized"] = memorized(inputs.fake, inputs.held_out, inputs.train)
        figures["probe_duplicates"] = duplicates(inputs.fake, inputs.held_out)
    return {name: float(value) for name, value in figures.items()}


def overfitting(train: Tensor, held_out: Tensor, fake: Tensor) -> Tensor:
    """r_v: 0 where D scores held-out reals like those it is trained on, 1 where it scores them like fakes.

    Source: Karras et al., "Training generative adversarial networks with limited data", 2020.
    """
    seen, unseen, generated = (scores.float().mean() for scores in (train, held_out, fake))
    difference = seen - generated
    ratio = (seen - unseen) / torch.where(difference == 0, 1.0, difference)
    return torch.where(difference.abs() < 1e-6, 0.0, ratio)


def memorized(fake: Tensor, held_out: Tensor, train: Tensor) -> Tensor:
    """The part of the fakes that lie closer to a training image than half of the held-out images do.

    0.5 where fakes are as new as held-out images are; near 1 where they repeat the training set. It compares
    root mean square differences of pixels, which small shifts hide.
    """
    return (_nearest(fake, train) < _nearest(held_out, train).median()).float().mean()


def duplicates(fake: Tensor, real: Tensor) -> Tensor:
    """The part of the fakes with a near duplicate among the fakes: closer than nearly all real pairs are.

    The birthday test: if half of the batches of s images hold a duplicate, G makes about s squared images.

    Source: Arora, Risteski and Zhang, "Do GANs learn the distribution?", 2018; there, people look for
    duplicates, here the bound is the hundredth part of real images' distances to their nearest other one.
    """
    bound = _nearest(real).quantile(0.01) / 2
    return (_nearest(fake) < bound).float().mean()


def smallest_stable_rank(network: nn.Module) -> Tensor | None:
    """The smallest stable rank of a network's layers: squared Frobenius norm over squared spectral norm.

    It falls to 1 where a layer passes one direction only: spectral collapse.

    Source: Liu et al., "Spectral regularization for combating mode collapse in GANs", 2019.
    """
    ranks = []
    for parameter in network.parameters():
        if parameter.dim() > 1 and min(parameter.shape[0], parameter[0].numel()) > 1:
            matrix = parameter.detach().float().flatten(1)
            # The smaller Gram matrix has the squared singular values, and costs less than they do.
            gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
            ranks.append(gram.trace() / torch.linalg.eigvalsh(gram)[-1].clamp(min=1e-24))
    return torch.stack(ranks).amin() if ranks else None


def _nearest(images: Tensor, others: Tensor | None = None) -> Tensor:
    """Each image's distance to the nearest of the others, or of the same images: (N,)."""
    return _distances(images, others).amin(1)


def _distances(images: Tensor, others: Tensor | None = None) -> Tensor:
    """Root mean square differences (N, M) to the others, or (N, N - 1) to the same images without itself."""
    flat = images.flatten(1).float()
    rest = flat if others is None else others.flatten(1).float()
    distances = torch.cdist(flat, rest, compute_mode="donot_use_mm_for_euclid_dist") / flat.shape[1] ** 0.5
    if others is not None:
        return distances
    count = len(flat)
    apart = ~torch.eye(count, dtype=torch.bool, device=flat.device)
    return distances[apart].reshape(count, count - 1)
