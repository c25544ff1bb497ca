"""Entries of fastgan.monitor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastgan import monitor
from tests.catalogue.entry import constructor, entry, method

# The budget whose cut the latest arguments depend on.
_CUT: list[monitor.LossBudget] = []


def _output() -> Tensor:
    return nn.Linear(3, 2)(torch.rand(4, 3))


def _terms(budget: monitor.LossBudget) -> dict[str, Tensor]:
    x = budget.cut(_output())
    return {"l1": x.abs().mean(), "gan": x.square().mean()}


def _backward_arguments() -> dict[str, Any]:
    _CUT[:] = [monitor.LossBudget()]
    weights = {"l1": 1.0, "gan": monitor.AdaptiveWeight(("l1",))}
    return {"terms": _terms(_CUT[0]), "weights": weights, "beside": torch.ones((), requires_grad=True) * 2}


def _loss_arguments() -> dict[str, Any]:
    scaler = torch.amp.GradScaler("cpu")
    return {**_backward_arguments(), "weights": None, "shares": {"l1": 1.0, "gan": 0.5}, "scaler": scaler}


def _use(budget: monitor.LossBudget) -> None:
    budget.backward(_terms(budget), shares={"l1": 1.0, "gan": 2.0})


def _weigh(weight: monitor.AdaptiveWeight) -> None:
    budget = monitor.LossBudget()
    budget.backward(_terms(budget), {"l1": 1.0, "gan": weight})


def _shares() -> monitor.Shares:
    budget = monitor.LossBudget()
    return budget.backward(_terms(budget))


constructor("monitor.AdaptiveWeight", lambda: {"relative_to": ("l1",), "scale": 0.5}, _weigh)
constructor("monitor.LossBudget", lambda: {"layer": nn.Linear(3, 2), "total_norm": 1.0}, _use)
entry(
    "monitor.LossBudget.cut",
    lambda: {"tensor": _output()},
    lambda tensor, measured: monitor.LossBudget().cut(tensor, measured=measured),
)
method("monitor.LossBudget.backward", _backward_arguments, lambda: _CUT[0])
method("monitor.LossBudget.loss", _loss_arguments, lambda: _CUT[0])
method("monitor.Shares.cosine", lambda: {"first": "l1", "second": "gan"}, _shares)
