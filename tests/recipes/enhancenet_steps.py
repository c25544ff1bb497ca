"""Helpers of EnhanceNet's tests: a small recipe and its steps."""

from __future__ import annotations

import csv
import dataclasses

import torch

from fastgan.recipes.enhancenet.recipe import EnhanceNet
from fastgan.training.processes.runtime import Runtime


def make(config, **changes):
    config = dataclasses.replace(config, **changes)
    torch.manual_seed(0)
    return EnhanceNet(config, Runtime(config))


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
