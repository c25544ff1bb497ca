"""Helpers of tests of single steps."""

from __future__ import annotations

import torch

from fastgan.training.statistics import Statistics, gathering


def one_batch(recipe):
    return next(recipe.batches(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weights_of(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def moved(before, network):
    """Names of the parameters that changed."""
    return {n for n, p in network.named_parameters() if not torch.equal(before[n], p)}


class Recorded(Statistics):
    """Keeps every reported value."""

    def __init__(self):
        super().__init__()
        self.reports = {}

    def add(self, name, value):
        super().add(name, value)
        self.reports.setdefault(name, []).append(torch.as_tensor(value).detach().clone())


def reports_of(step, *args):
    """All values that a step reports, in order, by name."""
    with gathering(Recorded()) as recorded:
        step(*args)
    return recorded.reports


def terms_of(step, *args):
    """The means of what a step reports, by name: 0-d tensors."""
    return {name: torch.stack(values).float().mean() for name, values in reports_of(step, *args).items()}


def count_updates(recipe, steps, draws):
    """How often some steps updated D and G. Each moves exactly on the steps that report its update."""
    updates = {"D_updated": 0, "G_loss": 0}
    for step in range(steps):
        before_g, before_d = weights_of(recipe.generator), weights_of(recipe.discriminator)
        reports = reports_of(recipe.train_step, one_batch(recipe), step, draws())
        assert bool(moved(before_g, recipe.generator)) == ("G_loss" in reports)
        assert bool(moved(before_d, recipe.discriminator)) == (reports.get("D_updated") == [1])
        for name in updates:
            updates[name] += len(reports.get(name, []))
    return updates
