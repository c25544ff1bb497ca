"""Measurements that say what a GAN's training does, and verdicts on it.

:class:`LossBudget` measures what each loss term contributes to the generator's gradient, within the backward
pass that a step runs anyway, and sets the terms' weights by it if asked to. :class:`Monitor` takes a
training's figures, shares and probes among them, and says what is wrong with it, and what to change first.
"""

from fastgan.monitor.adaptive_weight import AdaptiveWeight
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.facts import Facts
from fastgan.monitor.loss_budget import BudgetedLoss, LossBudget
from fastgan.monitor.monitor import Monitor
from fastgan.monitor.rules import VERDICTS
from fastgan.monitor.shares import Shares
from fastgan.monitor.verdict import Evidence, Verdict

__all__ = [
    "VERDICTS",
    "AdaptiveWeight",
    "BudgetedLoss",
    "Diagnosis",
    "Evidence",
    "Facts",
    "LossBudget",
    "Monitor",
    "Shares",
    "Verdict",
]
