"""Small models of every recipe, with the weights that they begin with."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from fastgan.training.model import Model
from fastgan.training.registration import model_class
from tests.recipes.test_commands_input import CONFIGS, networks


def untrained(name: str, **changes: Any) -> Model:
    """A model of this recipe, with changed options."""
    torch.manual_seed(0)
    kind, config = model_class(name), dataclasses.replace(CONFIGS[name], **changes)
    made = networks(name, config)
    if name == "enhancenet":  # whose residual is 0 at first
        torch.nn.init.normal_(made["generator"].residual.weight, std=0.1)
    return kind(config, made)
