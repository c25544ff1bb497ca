"""Resuming from a checkpoint with changed options: each is applied from then on, or refused."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from fastgan._names import printable
from fastgan.training.checkpoint import Checkpoint, restore
from fastgan.training.config import TrainingConfig, to_plain
from fastgan.training.recipe import Recipe

# Entries of a param_group that are the optimizer's state, not set by options.
STATE = {"params", "rounding_seed"}


def resume_from(recipe: Recipe, checkpoint: Checkpoint) -> list[str]:
    """Loads a checkpoint's state into a recipe; returns the options that differ, as "lr 0.0002 -> 0.0001".

    Learning rates, betas, clips and decays are those of the recipe's configuration; schedules depend on the
    step alone.

    Raises:
        ValueError: an option of the networks or the type of optimizer differs, or the networks do not fit;
            the message lists the options with both values.
    """
    changed = differences(checkpoint.config, recipe.config)
    named = {n: printable(f"{n} {_short(before)} -> {_short(now)}") for n, (before, now) in changed.items()}
    refused = [text for name, text in named.items() if name in recipe.config.refused_on_resume]
    if refused:
        raise ValueError(
            f"{printable(checkpoint.path)} cannot be continued with other networks or optimizers: "
            f"{', '.join(refused)}"
        )
    if "shares" in changed:
        checkpoint.networks.pop("budget", None)  # the averages of other terms' norms
    for name in ("balance", "budget"):
        if name in recipe.networks and name not in checkpoint.networks:
            # The policy, or the wanted shares, are new and start with their initial state.
            checkpoint.networks[name] = recipe.networks[name].state_dict()
    options = [{name: group[name] for name in group.keys() - STATE} for group in _groups(recipe)]
    try:
        restore(recipe, checkpoint)
    except ValueError as error:
        changes = f"; options that changed: {', '.join(named.values())}" if named else ""
        raise ValueError(f"{error}{changes}") from error
    for group, configured in zip(_groups(recipe), options, strict=True):
        group.update(configured)
    return [*named.values()]


def _short(value: object) -> str:
    """A short text for a checkpoint's value, which may be of any size and depth."""
    if isinstance(value, str):
        return value if len(value) <= 80 else f"{value[:77]}..."
    return reprlib.repr(value) if isinstance(value, (list, dict, int)) else str(value)


def _groups(recipe: Recipe) -> list[dict[str, Any]]:
    return [group for optimizer in recipe.optimizers.values() for group in optimizer.param_groups]


def differences(before: Mapping[str, Any], config: TrainingConfig) -> dict[str, tuple[Any, Any]]:
    """Options whose value has changed, with both values; those that only one side has are left out."""
    now = to_plain(config)
    return {
        name: (before[name], value)
        for name, value in now.items()
        if name in before and before[name] != value and name not in ("resume", "checkpoint")
    }
