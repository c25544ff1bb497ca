"""What is known of a run beside its figures."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fastgan._files import replacing
from fastgan._names import printable
from fastgan._warnings import warn
from fastgan.losses.adversarial import KINDS, Kind
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    as_not_negative,
    as_numbers,
    as_whole_number,
    check_instance,
    check_one_of,
    described,
    is_among,
    shown,
)

FACTS = "facts.json"


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
    scores_are_probabilities: bool = False
    """Whether D_real and D_fake are means of probabilities of being real, and not of D's raw outputs."""
    adversarial_term: str = "G_loss"
    """Which of G's terms is the adversarial one, in `share_NAME` and `NAME_weight`. A :class:`Monitor` calls
    shares of terms named gan, adv or adversarial by this name."""
    generator_loss: str = "G_loss"
    """The column of G's adversarial loss."""
    value_range: tuple[float, float] | None = None
    """Of the images that D and the losses see."""
    is_standardized: bool = False
    """Whether they are latents that are meant to have a standard deviation of about 1."""
    penalties: Mapping[str, float] = field(default_factory=dict)
    """Weights in D's loss by the column of the penalty, such as {"r1_penalty": 5.0}."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """What a task's figure is without any skill, such as {"bit_acc": 0.5}; higher is better."""
    decaying: tuple[str, ...] = ()
    """Columns of weights that fall to 0 over the run."""
    counts_updates: bool = True
    """Whether steps count updates. False: they may count epochs or rows, whose number does not say for how
    long the networks have been trained."""
    num_steps: int | None = None
    """Steps that the run is planned to take."""
    collapse_ratio: float = 0.5
    """For evaluations that measure `collapse_ratio`: the part of the distance between real images below which
    the distance between generated ones means collapse."""
    collapse_after: int = 1000
    """Steps in which G may get above it first; later, and once it has been there, below is collapse."""
    advice: Mapping[str, str] = field(default_factory=dict)
    """What to change first in this trainer, by the name of the verdict or "NAME SUBJECT"; rules have general
    advice for the others."""

    def __post_init__(self) -> None:
        """Raises a TypeError or ValueError that names the field and its value."""
        if self.adversarial is not None:
            check_one_of("adversarial", self.adversarial, KINDS)
        as_finite("real_label", self.real_label)
        as_finite("fake_label", self.fake_label)
        if self.real_label == self.fake_label:
            raise ValueError(f"real_label and fake_label must differ, got {shown(self.real_label)} for both")
        as_not_negative("collapse_ratio", self.collapse_ratio)
        as_whole_number("collapse_after", self.collapse_after, least=0)
        as_flag("is_standardized", self.is_standardized)
        as_flag("counts_updates", self.counts_updates)
        if not isinstance(self.decaying, tuple) or any(not isinstance(name, str) for name in self.decaying):
            raise TypeError(f"decaying must be a tuple of strings, got {described(self.decaying)}")
        as_flag("scores_are_probabilities", self.scores_are_probabilities)
        if not is_among(self.critic_sign, (1, -1)):
            raise ValueError(f"critic_sign must be +1 or -1, got {shown(self.critic_sign)}")
        check_instance("adversarial_term", self.adversarial_term, str, "a string")
        check_instance("generator_loss", self.generator_loss, str, "a string")
        if self.value_range is not None:
            low, high = as_numbers("value_range", self.value_range, 2)
            if not low < high:
                raise ValueError(f"value_range must be (low, high), got {shown(self.value_range)}")
        _check_numbers("penalties", self.penalties)
        _check_numbers("chance", self.chance)
        check_instance("advice", self.advice, Mapping, "a dict of texts by name")
        for key, text in self.advice.items():
            check_instance("a name in advice", key, str, "a string")
            check_instance(f"advice[{key!r}]", text, str, "a string")
        if self.num_steps is not None:
            as_whole_number("num_steps", self.num_steps)

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


def write_facts(folder: Path, facts: Facts) -> None:
    """Writes facts.json."""
    with replacing(folder / FACTS) as file:
        file.write(json.dumps(dataclasses.asdict(facts), indent=1) + "\n")


def read_facts(folder: Path) -> Facts | None:
    """The facts of a run's folder; None if there are none. Warns of facts that this version does not know.

    Raises:
        ValueError: the file does not hold facts.
    """
    path = folder / FACTS
    if not path.exists():
        return None
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(Facts)}
        given = {name: value for name, value in values.items() if name in known}
        if unknown := [f"{name} {shown(value)}" for name, value in values.items() if name not in known]:
            warn(
                f"{printable(path)} holds what this version of fastgan does not know, and no rule minds: "
                f"{printable(', '.join(unknown))}"
            )
        if given.get("value_range") is not None:
            low, high = map(float, given["value_range"])
            given["value_range"] = (low, high)
        if isinstance(given.get("decaying"), list):
            given["decaying"] = tuple(given["decaying"])
        facts = Facts(**given)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold facts of a run: {error}") from error
    return facts


def _check_numbers(field: str, value: object) -> None:
    check_instance(field, value, Mapping, "a dict of numbers by name")
    for key, number in cast(Mapping[object, object], value).items():
        check_instance(f"a name in {field}", key, str, "a string")
        as_finite(f"{field}[{key!r}]", number)
