"""Entries of fastgan.monitor."""

from __future__ import annotations

import os
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


def _watch_arguments() -> dict[str, Any]:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    return {"generator": network, "optimizers": [optimizer]}


def _probe_arguments() -> dict[str, Any]:
    images = {name: torch.rand(4, 3, 4, 4) for name in ("train", "fake", "held_out")}
    return {**images, "discriminator": nn.Sequential(nn.Flatten(), nn.Linear(48, 1)), "sign": -1}


def _monitor(folder: Any, facts: Any) -> None:
    if isinstance(folder, (str, os.PathLike)):  # would be made here
        folder = None
    monitor.Monitor(folder, facts).report(D_loss=2.0)


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
constructor(
    "monitor.Facts",
    lambda: {
        "adversarial": "hinge", "value_range": (-1.0, 1.0), "penalties": {"r1_penalty": 5.0},
        "chance": {"bit_acc": 0.5}, "num_steps": 100, "advice": {"critic_dead": "another critic"},
    },
    lambda facts: monitor.Diagnosis(facts).add(1, {"D_loss": 2.0}),
)  # fmt: skip
constructor(
    "monitor.Diagnosis",
    lambda: {"facts": monitor.Facts(adversarial="bce")},
    lambda diagnosis: diagnosis.add(1, {"D_loss": 2.0}),
)
method("monitor.Diagnosis.add", lambda: {"step": 1, "row": {"D_loss": 2.0}}, monitor.Diagnosis)
entry("monitor.Monitor", lambda: {"facts": monitor.Facts()}, _monitor)
entry(
    "monitor.Monitor.report",
    lambda: {"D_loss": torch.ones(())},
    lambda D_loss: monitor.Monitor().report(D_loss=D_loss),
)
method(
    "monitor.Monitor.look",
    lambda: {"real": torch.rand(2, 3, 4, 4), "fake": torch.rand(2, 3, 4, 4)},
    monitor.Monitor,
)
method("monitor.Monitor.report_shares", lambda: {"shares": _shares()}, monitor.Monitor)
method("monitor.Monitor.probe", _probe_arguments, monitor.Monitor)
entry("monitor.Monitor.watch", _watch_arguments, lambda **given: monitor.Monitor().watch(**given))
method("monitor.Monitor.verdicts", lambda: {"step": 3}, monitor.Monitor)
