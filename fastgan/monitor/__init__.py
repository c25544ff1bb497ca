"""Measurements that say what a GAN's training does.

:class:`LossBudget` measures what each loss term contributes to the generator's gradient, within the backward
pass that a step runs anyway, and sets the terms' weights by it if asked to.
"""

from fastgan.monitor.adaptive_weight import AdaptiveWeight
from fastgan.monitor.loss_budget import BudgetedLoss, LossBudget
from fastgan.monitor.shares import Shares

__all__ = ["AdaptiveWeight", "BudgetedLoss", "LossBudget", "Shares"]
