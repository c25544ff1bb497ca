"""Entries of fastgan.training.balance."""

from __future__ import annotations

import functools

import torch

from fastgan.losses import AdversarialLoss
from fastgan.optim import Adam
from fastgan.training import balance
from tests.catalogue.entry import constructor, entry, method
from tests.catalogue.inputs import parameters, two_logits


def _game() -> AdversarialLoss:
    return AdversarialLoss("hinge")


def _train(policy: balance.EveryStep) -> None:
    policy.trains_discriminator(1)
    policy.trains_generator(1)
    policy.discriminator_loss(_game(), **two_logits())


def _policy(name: str, arguments: dict[str, int]) -> balance.EveryStep:
    return getattr(balance, name)(**arguments)


for _name, _arguments in (
    ("EveryStep", {}),
    ("Ratio", {"n_critic": 5, "n_generator": 1}),
    ("Threshold", {}),
    ("Adaptive", {}),
):
    _path, _owner = f"training.balance.{_name}", functools.partial(_policy, _name, _arguments)
    constructor(_path, functools.partial(dict, _arguments), _train)
    method(f"{_path}.trains_discriminator", lambda: {"step": 3}, _owner)
    method(f"{_path}.trains_generator", lambda: {"step": 3}, _owner)
    method(f"{_path}.check", lambda: {"adversarial": _game()}, _owner)
    method(f"{_path}.discriminator_loss", lambda: {"adversarial": _game(), **two_logits()}, _owner)
constructor("training.balance.make_balance", lambda: {"name": "ratio"}, _train)
entry(
    "training.balance.step_where",
    lambda: {"optimizer": Adam(parameters()), "applies": torch.tensor(True)},
)
