"""Held-out figures of translations: accuracy of the target domain, diversity, cycle consistency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.recipes.starganv2.data import Domain, Labelled
from fastgan.recipes.starganv2.translator import Translator
from fastgan.training.data import batches

CLASSIFIED_SIZE = 64  # larger images are averaged down to it, which suffices to recognize a domain


class DomainClassifier(nn.Sequential):
    """N C H W to logits (N, D)."""

    def __init__(self, channels: int, num_domains: int) -> None:
        layers: list[nn.Module] = []
        for narrow, wide in ((channels, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(narrow, wide, 3, 2, 1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_domains))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] > CLASSIFIED_SIZE:
            images = F.adaptive_avg_pool2d(images, CLASSIFIED_SIZE)
        return super().forward(images)


def train_classifier(
    domains: Sequence[Domain],
    prepare: Callable[[Tensor], Tensor],
    channels: int,
    steps: int,
    device: torch.device,
) -> DomainClassifier:
    """Trains a classifier on real training images, deterministically, without changing torch's generators.

    Args:
        domains: the training data.
        prepare: converts batches of :func:`fastgan.training.data.batches` to input of the networks.
        channels: of that input.
        steps: number of Adam's steps, with batches of 64.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(0)
        classifier = DomainClassifier(channels, len(domains)).to(device)
        optimizer = torch.optim.Adam(classifier.parameters(), lr=2e-3)
        stream = batches(Labelled(domains), 64, device=device)
        for _, (images, labels) in zip(range(steps), stream, strict=False):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(classifier(prepare(images)), labels).backward()
            optimizer.step()
        stream.close()
    return classifier.eval().requires_grad_(False)


@torch.no_grad()
def evaluate_translations(
    translator: Translator,
    images: Sequence[Tensor],
    classifier: nn.Module,
    z_dim: int,
    draws: int,
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """Translates every image into every other domain, in styles from noise and from references.

    Args:
        images: held-out images of each domain, N C H W as the networks take them.
        draws: translations of each image into each domain, by noise and by references.
        lpips: the mean LPIPS of two batches of the networks' output; None: diversity is the mean absolute
            difference.

    Returns:
        classifier_acc: accuracy of the classifier on the images themselves.
        translated_acc_latent, translated_acc_reference: share of translations that it assigns to the target.
        cycle_l1: mean |image - back|, where back is the translation translated with the image's own style.
        lpips_latent, lpips_reference, or pairwise_l1_latent, pairwise_l1_reference: mean distance of the
        translations of an image into a domain from each other.
    """
    device = images[0].device
    random = torch.Generator(device).manual_seed(0)
    name, distance = ("lpips", lpips) if lpips else ("pairwise_l1", F.l1_loss)
    values_by_figure: dict[str, list[Tensor]] = {"classifier_acc": [], "cycle_l1": []}
    for domain, real in enumerate(images):
        values_by_figure["classifier_acc"].append((classifier(real).argmax(1) == domain).float().mean())
    for source, target in permutations(range(len(images)), 2):
        real, references = images[source], images[target]
        own_styles = translator.style_of(real, source)
        reference_styles = translator.style_of(references, target)
        positions = torch.arange(len(real), device=device)
        for kind in ("latent", "reference"):
            translated = []
            for draw in range(draws):
                if kind == "latent":
                    z = torch.randn(len(real), z_dim, generator=random, device=device)
                    styles = translator.random_styles(z, target)
                else:
                    styles = reference_styles[(positions + draw) % len(references)]
                translated.append(translator.in_style(real, styles))
            correct = torch.cat([classifier(each).argmax(1) == target for each in translated])
            values_by_figure.setdefault(f"translated_acc_{kind}", []).append(correct.float().mean())
            x_rec = translator.in_style(translated[0], own_styles)
            values_by_figure["cycle_l1"].append(F.l1_loss(x_rec, real))
            distances = torch.stack([distance(a, b) for a, b in combinations(translated, 2)])
            values_by_figure.setdefault(f"{name}_{kind}", []).append(distances.mean())
    return {figure: torch.stack(values).mean().item() for figure, values in values_by_figure.items()}
