"""What is known of a run beside its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastgan.losses.adversarial import Kind


@dataclass(frozen=True)
class Facts:
    """What is known of a run beside its figures; rules that need an unknown one say nothing.

    All names of columns are those of :mod:`fastgan.monitor.columns`.
    """

    adversarial: Kind | None = None
    """The adversarial loss; None: unknown, or there is none."""
    real_label: float = 1.0
    """D's label of reals, for bce and lsgan."""
    fake_label: float = 0.0
    """D's label of fakes, for bce and lsgan."""
    critic_sign: int = 1
    """-1: D's scores are high for fakes."""
    adversarial_term: str = "G_loss"
    """Which of G's terms is the adversarial one."""
    value_range: tuple[float, float] | None = None
    """Of the images that D and the losses see."""
    penalties: Mapping[str, float] = field(default_factory=dict)
    """Weights in D's loss by the column of the penalty, such as {"r1_penalty": 5.0}."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """What a task's figure is without any skill, such as {"bit_acc": 0.5}; higher is better."""
    num_steps: int | None = None
    """Steps that the run is planned to take."""
    advice: Mapping[str, str] = field(default_factory=dict)
    """What to change first in this trainer, by the name of the verdict or "NAME SUBJECT"; rules have general
    advice for the others."""

    @property
    def has_probabilities(self) -> bool:
        """Whether sigmoid(D) means something: for cross entropies of single logits."""
        return self.adversarial in ("bce", "nonsaturating")

    @property
    def loss_of_chance(self) -> float | None:
        """D's loss where it cannot tell at all; None for critics, whose scores have no scale."""
        kind = self.adversarial
        if kind in ("bce", "nonsaturating"):
            return 2 * math.log(2)
        if kind == "relativistic":
            return math.log(2)
        if kind == "hinge":
            return 2.0
        if kind == "lsgan":
            return ((self.real_label - self.fake_label) / 2) ** 2
        return None
