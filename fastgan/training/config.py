"""Hyper-parameters: one frozen dataclass per recipe, from presets, YAML and the command line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import yaml

from fastgan._files import replacing
from fastgan._names import check_plain_name
from fastgan.training.balance import Balance
from fastgan.training.image_files import MAX_PIXELS, READING, Reading, check_background
from fastgan.training.values import check_seed, check_values

if TYPE_CHECKING:
    from fastgan.monitor.facts import Facts

Resume = bool | Literal["auto"]
Config = TypeVar("Config", bound="TrainingConfig")
YEAR = 525_600  # minutes
INTERVALS = ("log_interval", "sample_interval", "eval_interval", "checkpoint_interval")


@dataclass(frozen=True)
class TrainingConfig:
    """The options of every recipe, to which recipes add their own."""

    exp_name: str = "run"
    """Name of the run: results go to RUNS_PATH/EXP_NAME."""
    runs_path: str = "runs"
    """Folder of all runs."""
    resume: Resume = False
    """true: continue the run from its newest checkpoint, bit-exactly on the CPU. auto: that, or start anew
    where there is no checkpoint: one command for start and restart. false: refuse a folder that holds a run;
    torchrun's restarts (--max-restarts) are as auto all the same, in a folder that their own job began."""
    checkpoint: int | None = None
    """Step of the checkpoint that --resume true goes on from; later ones are set aside. null: the newest."""
    num_steps: int = 140000
    """Steps to train. Where it is given and num_epochs is not, it counts, and num_epochs becomes 0; both on
    the command line are an error."""
    num_epochs: int = 0
    """Passes over the data to train: unless it is 0, it counts and num_steps does not, also where a file or a
    preset has both."""
    max_minutes: float = 0.0
    """End after so many minutes as after the last step, with samples, evaluation and checkpoint (with several
    processes: at the next log line); --resume auto goes on. Schedules keep to num_steps. 0: no limit."""
    batch_size: int = 4
    """Images per step, process and micro-batch (see accumulate)."""
    global_batch_size: int | None = None
    """Images per step of all processes together, in place of batch_size, which then follows from their
    number: the same batches whatever that is. null: batch_size counts. Learning rates depend on neither."""
    accumulate: int = 1
    """Micro-batches of batch_size per step and process, one after the other: the memory of one, the step of a
    batch of that many times the size (but batch normalization sees one at a time)."""
    seed: int = 0
    """Every random draw is a function of (seed, step, process); in [0, 2**63)."""
    devices: int | None = None
    """Processes on this machine, one per device, which this one starts; null: one, or under torchrun, on any
    number of machines, as many as it starts."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """cpu, cuda or auto."""
    timeout: float = 720.0
    """Minutes that a process waits for the others, as during an evaluation, before the run ends; at most
    525600 (a year). A process that dies is noticed at once."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """32-true or bf16-mixed (autocast); float16 is not offered, in which gradient penalties give NaN."""
    exchange: Literal["float32", "bf16"] = "float32"
    """In which numbers several processes send each other gradients, which are summed in float32. bf16: half
    the bytes, half of which are sent after backward, so it is for slow links only; what rounding takes is
    added in the next step (a resumed run loses that of one step, and is not bit-exact). A single process
    sends none."""
    workers: int = 2
    """Threads that read images ahead."""
    max_pixels: int = MAX_PIXELS
    """Images of more are left out before they are decoded (the default is where Pillow warns of a bomb)."""
    background: str = READING.background
    """Colour behind transparent pixels of images: a name or #rrggbb."""
    max_unusable: float = READING.max_unusable
    """Share of the images, in [0, 1], that may be unusable (damaged, too large, of an unsupported kind); each
    is skipped and named. Above it the run ends."""
    download_weights: bool = False
    """true: weights of VGG, AlexNet or Inception that a loss or an evaluation needs are downloaded to torch
    hub's cache if they are missing. false: an error names file and address, or an evaluation does without."""
    log_interval: int = 100
    """Steps between log lines; between them nothing waits for the device. 0: once per epoch."""
    sample_interval: int = 1000
    """Steps between sample grids; 0: once per epoch."""
    eval_interval: int = 5000
    """Steps between evaluations on held-out data; 0: once per epoch."""
    checkpoint_interval: int = 5000
    """Steps between checkpoints; 0: once per epoch."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep."""
    ema_decay: float = 0.0
    """Decay of the weights' exponential moving average, used for samples and evaluation, in [0, 1);
    0: none."""
    ema_warmup: bool = True
    """Its first updates decay faster, so that it forgets the untrained start; false: all decay alike."""
    balance: Balance = "every_step"
    """Who trains: every_step; ratio: balance_ratio updates of D and G; threshold: a half of D's loss counts
    while above balance_threshold; adaptive: D trains while it knows fewer reals than balance_target says."""
    balance_ratio: tuple[int, int] = (1, 1)
    """Updates of D for updates of G, for balance=ratio."""
    balance_threshold: float = 0.3
    """Below it, a half of D's loss does not count, for balance=threshold."""
    balance_target: float = 0.6
    """Mean sign of D's logits on reals at which D stops, for balance=adaptive."""
    budget_interval: int = 10
    """Steps between measurements of what each of G's loss terms contributes to its gradient (share_NAME,
    cosine_A_B in metrics.csv), if G trains in them. Such a step takes some percent longer, most where terms
    share a forward pass, which is run backward for each. 0: none."""
    shares: tuple[str, ...] = ()
    """In place of the terms' weights and their ramps: each term's share of G's gradient, such as
    [l1_loss=0.7,G_loss=0.3], which then sets its weight; all terms that the run has."""

    # The sections of --help, in order, with the options of every recipe.
    sections: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "run": (
            "exp_name", "runs_path", "resume", "checkpoint", "num_steps", "num_epochs", "max_minutes",
            "batch_size", "global_batch_size", "accumulate", "seed", "devices", "accelerator", "timeout",
            "precision", "exchange", *INTERVALS, "keep_checkpoints",
        ),
        "data": ("workers", "max_pixels", "background", "max_unusable"),
        "networks": (),
        "losses": ("shares", "budget_interval", "download_weights"),
        "optimizers": ("ema_decay", "ema_warmup"),
        "schedule": ("balance", "balance_ratio", "balance_threshold", "balance_target"),
        "distortions": (),
        "evaluation": (),
    }  # fmt: skip
    # The options that a recipe adds to each.
    own_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # The options that a resumed run must have as its checkpoint does, because they determine the shapes of
    # networks or the kind of optimizer; of all others, a new value counts from then on.
    refused_on_resume: ClassVar[frozenset[str]] = frozenset()

    # Bounds of numbers, which --help shows as well; null always passes.
    at_least_one: ClassVar[frozenset[str]] = frozenset(
        {
            "num_steps",
            "batch_size",
            "global_batch_size",
            "accumulate",
            "workers",
            "max_pixels",
            "keep_checkpoints",
            "devices",
        }
    )
    positive: ClassVar[frozenset[str]] = frozenset({"timeout"})
    not_negative: ClassVar[frozenset[str]] = frozenset(
        {"num_epochs", "max_minutes", "budget_interval", *INTERVALS}
    )

    def __post_init__(self) -> None:
        if self.precision in ("16-mixed", "fp16-mixed"):
            raise ValueError(
                f"precision {self.precision} is not offered: gradient penalties give NaN in float16"
            )
        check_values(self)
        check_seed("seed", self.seed)
        check_plain_name("exp_name", self.exp_name)
        self._check_bounds()
        if self.timeout > YEAR:
            raise ValueError(f"timeout must be at most {YEAR} (a year), got {self.timeout}")
        if self.checkpoint is not None and self.resume is not True:
            raise ValueError(f"checkpoint {self.checkpoint} needs --resume true, got {self.resume!r}")
        check_background("background", self.background)
        if not 0 <= self.max_unusable <= 1:
            raise ValueError(f"max_unusable must lie in [0, 1], got {self.max_unusable}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        if self.accumulate > 1 and (self.balance in ("threshold", "adaptive") or self.shares):
            option, value = ("shares", list(self.shares)) if self.shares else ("balance", self.balance)
            instead = "the terms' weights" if self.shares else "balance every_step or ratio"
            raise ValueError(
                f"accumulate {self.accumulate} does not go with {option} {value}, which is decided for a "
                f"whole batch at once: take {instead}, or more processes"
            )
        wanted, terms = self.wanted_shares, self.generator_terms
        if wanted and set(wanted) != set(terms):
            raise ValueError(f"shares must name the terms {', '.join(terms)}, got {', '.join(wanted)}")

    def shared_by(self: Config, processes: int) -> Config:
        """The configuration with the `batch_size` that follows from `global_batch_size`, if that is given.

        Raises:
            ValueError: it is not a multiple of the number of micro-batches of all processes.
        """
        if self.global_batch_size is None:
            return self
        size, rest = divmod(self.global_batch_size, processes * self.accumulate)
        if rest or not size:
            times = f" times {self.accumulate} micro-batches" if self.accumulate > 1 else ""
            raise ValueError(
                f"global_batch_size must be a multiple of {processes} processes{times}, got "
                f"{self.global_batch_size}"
            )
        return dataclasses.replace(self, batch_size=size)

    def measures(self, step: int) -> bool:
        """Whether this step measures what the monitor asks for beside the step's own figures."""
        return self.budget_interval > 0 and step % self.budget_interval == 0

    def facts(self) -> Facts:
        """What the monitor's rules know of a run with these options."""
        from fastgan.monitor.facts import Facts  # imports torch, which `--help` does not need

        return Facts()

    @property
    def generator_terms(self) -> tuple[str, ...]:
        """Names of the terms of G's loss with these options."""
        return ("G_loss",)

    @property
    def wanted_shares(self) -> dict[str, float]:
        """`shares` as numbers by term; empty if the weights count.

        Raises:
            ValueError: a text that is not NAME=SHARE, a share that is not a number above 0, a name twice.
        """
        wanted: dict[str, float] = {}
        for text in self.shares:
            name, _, share = text.partition("=")
            try:
                wanted[name] = float(share)
            except ValueError:
                raise ValueError(f"shares must be NAME=SHARE each, got {text!r}") from None
            if not 0 < wanted[name] < math.inf:
                raise ValueError(f"shares must be numbers above 0, got {text!r}")
        if len(wanted) < len(self.shares):
            raise ValueError(f"shares must name each term once, got {', '.join(self.shares)}")
        return wanted

    def _check_bounds(self) -> None:
        """Raises a ValueError for the first option, in field order, that violates its bound."""
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if value is None:
                continue
            if name in self.at_least_one and not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
            if name in self.positive and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
            if name in self.not_negative and not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")

    @classmethod
    def bound_of(cls, name: str) -> str:
        """An option's bound in words, for --help; "" if it has none."""
        bounds = {"At least 1.": cls.at_least_one, "Above 0.": cls.positive, "Not below 0.": cls.not_negative}
        return next((words for words, names in bounds.items() if name in names), "")

    @classmethod
    def in_sections(cls) -> dict[str, list[str]]:
        """All options by section, the recipe's own first; section "other" has those that are in none."""
        options = {title: [*cls.own_sections.get(title, ()), *names] for title, names in cls.sections.items()}
        placed = {name for names in options.values() for name in names}
        options["other"] = [field.name for field in dataclasses.fields(cls) if field.name not in placed]
        return {title: names for title, names in options.items() if names}

    @property
    def reading(self) -> Reading:
        """How image files are read."""
        return Reading(self.max_pixels, self.background, self.max_unusable)

    @property
    def folder(self) -> Path:
        return Path(self.runs_path) / self.exp_name


def write_config(config: TrainingConfig, path: Path) -> None:
    """Writes the configuration as YAML that --config reads; the file is replaced atomically."""
    with replacing(path) as file:
        file.write(yaml.safe_dump(to_plain(config), sort_keys=False))


def to_plain(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as JSON-able values."""
    values = dataclasses.asdict(config)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def from_plain(config_class: type[Config], values: dict[str, Any]) -> Config:
    """The inverse of :func:`to_plain`; unknown names are an error.

    Raises:
        ValueError: a name that the configuration does not have.
    """
    names = {field.name for field in dataclasses.fields(config_class)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ValueError(f"unknown options for {config_class.__name__}: {', '.join(unknown)}")
    arguments: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return config_class(**arguments)
