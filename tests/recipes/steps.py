"""What tests of single steps ask of a recipe."""

from __future__ import annotations

import torch


def one_batch(recipe):
    return next(recipe.batches(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weights_of(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def moved(before, network):
    """Names of the parameters that changed."""
    return {n for n, p in network.named_parameters() if not torch.equal(before[n], p)}
