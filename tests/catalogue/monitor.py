"""Entries of fastgan.monitor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastgan import monitor
from tests.catalogue.entry import constructor


def _output() -> Tensor:
    return nn.Linear(3, 2)(torch.rand(4, 3))


def _terms(x: Tensor) -> dict[str, Tensor]:
    return {"l1": x.abs().mean(), "gan": x.square().mean()}


def _use(budget: monitor.LossBudget) -> None:
    weights = {"l1": 1.0, "gan": monitor.AdaptiveWeight(("l1",))}
    budget.backward(_terms(budget.cut(_output())), weights)
    budget.backward(_terms(budget.cut(_output())), shares={"l1": 1.0, "gan": 2.0})


def _shares() -> monitor.Shares:
    budget = monitor.LossBudget()
    return budget.backward(_terms(budget.cut(_output())))


_CUT = {}


def _cut_budget() -> monitor.LossBudget:
    return _CUT["budget"]


def _backward_arguments() -> dict[str, Any]:
    _CUT["budget"] = budget = monitor.LossBudget()
    return {"terms": _terms(budget.cut(_output())), "weights": {"l1": 1.0, "gan": 0.1}}


def _weighted(weight: monitor.AdaptiveWeight) -> None:
    budget = monitor.LossBudget()
    budget.backward(_terms(budget.cut(_output())), {"l1": 1.0, "gan": weight})


constructor("monitor.LossBudget", dict, _use)
constructor("monitor.AdaptiveWeight", lambda: {"relative_to": ("l1",), "scale": 0.5}, _weighted)
