"""EnhanceNet made small, and what its tests ask of it."""

from __future__ import annotations

import csv
import dataclasses

import torch

from fastgan.recipes.enhancenet import EnhanceNet
from fastgan.training.runtime import Runtime


def make(config, **changes):
    config = dataclasses.replace(config, **changes)
    torch.manual_seed(0)
    return EnhanceNet(config, Runtime(config))


def one_batch(recipe):
    return next(recipe.batches(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weights_of(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def moved(before, network):
    return {n for n, p in network.named_parameters() if not torch.equal(before[n], p)}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
