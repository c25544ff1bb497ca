"""Hyper-parameters: one frozen dataclass per recipe, from presets, YAML and the command line."""

from __future__ import annotations

import dataclasses
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml

from fastgan.ops._checks import check_one_of
from fastgan.training.balance import BALANCES
from fastgan.training.files import replacing
from fastgan.training.image_files import MAX_PIXELS, READING, Reading, check_background
from fastgan.training.names import check_plain_name, printable
from fastgan.training.run_options import options_of_run
from fastgan.training.values import check_seed, check_values
from fastgan.training.world import launched_world
from fastgan.training.yaml_files import LARGEST, parse_options

PRECISIONS = ("32-true", "bf16-mixed")
Resume = bool | Literal["auto"]
LENGTHS = ("num_steps", "num_epochs")  # of a run; the second counts unless it is 0
INTERVALS = ("log_interval", "sample_interval", "eval_interval", "checkpoint_interval")


@dataclass(frozen=True)
class TrainingConfig:
    """What every recipe has. Recipes add their own fields."""

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
    """Steps to train."""
    num_epochs: int = 0
    """Passes over the data to train, instead of num_steps; 0: num_steps. The one that is given counts."""
    max_minutes: float = 0.0
    """End after so many minutes as after the last step, with samples, evaluation and checkpoint (with several
    processes: at the next log line); --resume auto goes on. Schedules keep to num_steps. 0: no limit."""
    batch_size: int = 4
    """Images per step and process."""
    seed: int = 0
    """Every random draw is a function of (seed, step, process)."""
    devices: int | None = None
    """Processes, one per device; null: one, or under torchrun as many as it starts on this machine."""
    accelerator: str = "auto"
    """cpu, cuda or auto."""
    precision: str = "32-true"
    """32-true or bf16-mixed (autocast)."""
    workers: int = 2
    """Threads that read images ahead."""
    max_pixels: int = MAX_PIXELS
    """Images of more are left out before they are decoded (the default is where Pillow warns of a bomb)."""
    background: str = READING.background
    """Colour behind transparent pixels of images: a name or #rrggbb."""
    max_unusable: float = READING.max_unusable
    """Share of the images that may be unusable (damaged, too large, of an unsupported kind); each is skipped
    and named. Above it the run ends."""
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
    """Decay of the weights' exponential moving average, used for samples and evaluation; 0: none."""
    ema_warmup: bool = True
    """Its first updates decay faster, so that it forgets the untrained start; false: all decay alike."""
    balance: str = "every_step"
    """Who trains: every_step; ratio: balance_ratio updates of D and G; threshold: a half of D's loss counts
    while above balance_threshold; adaptive: D trains while it knows fewer reals than balance_target says."""
    balance_ratio: tuple[int, int] = (1, 1)
    """Updates of D for updates of G, for balance=ratio."""
    balance_threshold: float = 0.3
    """Below it, a half of D's loss does not count, for balance=threshold."""
    balance_target: float = 0.6
    """Mean sign of D's logits on reals at which D stops, for balance=adaptive."""

    # What becomes of an option that differs from the checkpoint's when a run is resumed. Each is in one of
    # them; applied: it counts from then on; refused: the checkpoint is of no use with it.
    applied_on_resume: ClassVar[frozenset[str]] = frozenset(
        {
            "exp_name", "runs_path", "resume", "checkpoint", "num_steps", "num_epochs", "max_minutes",
            "batch_size", "seed",
            "devices", "accelerator", "precision", "workers", "max_pixels", "background",
            "max_unusable", *INTERVALS, "keep_checkpoints",
            "ema_decay", "ema_warmup", "balance", "balance_ratio", "balance_threshold", "balance_target",
        }
    )  # fmt: skip
    refused_on_resume: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_values(self)
        check_seed("seed", self.seed)
        check_plain_name("exp_name", self.exp_name)
        self.check_at_least_one("num_steps", "batch_size", "workers", "max_pixels", "keep_checkpoints")
        if self.devices is not None:
            self.check_at_least_one("devices")
        if self.checkpoint is not None and self.resume is not True:
            raise ValueError(f"checkpoint {self.checkpoint} needs --resume true, got {self.resume!r}")
        self.check_not_negative("num_epochs", "max_minutes", *INTERVALS)
        if self.precision not in PRECISIONS:
            hint = "; gradient penalties give NaN in float16" if "16-mixed" in self.precision else ""
            raise ValueError(f"precision must be one of {PRECISIONS}, got {self.precision!r}{hint}")
        check_background("background", self.background)
        if not 0 <= self.max_unusable <= 1:
            raise ValueError(f"max_unusable must lie in [0, 1], got {self.max_unusable}")
        check_one_of("balance", self.balance, BALANCES)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")

    def check_at_least_one(self, *names: str) -> None:
        """Raises a ValueError for the first of these options that is below 1."""
        for name in names:
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def check_positive(self, *names: str) -> None:
        """Raises a ValueError for the first of these options that is not above 0."""
        for name in names:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def check_not_negative(self, *names: str) -> None:
        """Raises a ValueError for the first of these options that is below 0; None passes."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")

    def check_choices(self, choices: Mapping[str, Iterable[object]]) -> None:
        """Raises a ValueError, which lists the choices, for the first option that has none of its own."""
        for name, known in choices.items():
            check_one_of(name, getattr(self, name), known)

    @property
    def reading(self) -> Reading:
        """How image files are read."""
        return Reading(self.max_pixels, self.background, self.max_unusable)

    @property
    def folder(self) -> Path:
        return Path(self.runs_path) / self.exp_name


Config = TypeVar("Config", bound=TrainingConfig)


def parse_config(
    config_class: type[Config],
    presets: Mapping[str, Config],
    arguments: list[str],
    prog: str,
    say: Callable[[str], object] = lambda text: None,
) -> Config:
    """Reads the configuration: defaults, then --preset, then --config FILE.yaml, then the options.

    A run that is resumed, and has a checkpoint, keeps its options where none are given; of a preset, those
    that are not the recipe's defaults count as given.
    Where num_steps is given and num_epochs is not, the num_epochs of what comes before does not count.

    Args:
        say: is told what was taken from a run.

    Exits with a usage message for unknown options or wrong types.

    Raises:
        ValueError: a value that the configuration refuses.
    """
    import argparse

    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--preset")
    early.add_argument("--config", action="append", default=[])
    early.add_argument("--num_steps")
    early.add_argument("--num_epochs")
    found = early.parse_known_args(arguments)[0]
    preset = found.preset
    checked = {value: _checked_text(value) for value in dict.fromkeys(found.config)}
    texts = {value: text for value, (text, _) in checked.items()}

    class ConfigFile(jsonargparse.ActionConfigFile):
        """Takes what was checked: a pipe can be read only once."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
            super().__call__(parser, cfg, texts.get(values, values), option_string)

    parser = jsonargparse.ArgumentParser(prog=prog, description=(config_class.__doc__ or "").strip())
    parser.add_argument("--preset", choices=sorted(presets), help="named settings to start from")
    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of the options")
    parser.add_class_arguments(config_class)
    if preset in presets:
        parser.set_defaults(dataclasses.asdict(presets[preset]))
    values = parser.parse_args(arguments).as_dict()
    folder = Path(values["runs_path"]) / values["exp_name"]
    if values["resume"] and (of_run := options_of_run(folder, config_class)):
        options = _options(config_class, *of_run)
        if preset:
            options |= _differences(config_class(), presets[preset])
        parser.set_defaults(options)
        as_the_run = parser.parse_args(arguments).as_dict()
        taken = [f"{n} {_short(value)}" for n, value in as_the_run.items() if values.get(n) != value]
        if taken:
            say(f"taken from {printable(of_run[0])}: {', '.join(taken)}")
        values = as_the_run
    on_the_command_line = {name for name in LENGTHS if getattr(found, name) is not None}
    if on_the_command_line == {*LENGTHS} and values["num_epochs"]:
        raise ValueError(
            f"--num_steps {printable(found.num_steps)} and --num_epochs {printable(found.num_epochs)} "
            "both say how long to train: give one of them"
        )
    for name in on_the_command_line:  # whatever a --config after it says
        values[name] = int(getattr(found, name))
    given = [on_the_command_line, *(checked[value][1] for value in reversed(found.config))]
    if next((lengths for lengths in given if lengths), None) == {"num_steps"}:
        values["num_epochs"] = 0
    names = {field.name for field in dataclasses.fields(config_class)}
    return config_class(**{name: value for name, value in values.items() if name in names})


def _options(config_class: type[TrainingConfig], path: Path, plain: dict[str, Any]) -> dict[str, Any]:
    """A run's options as they are in a configuration. Raises a ValueError that names the file."""
    try:
        config = from_plain(config_class, plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{printable(path)}: {printable(error)}") from error
    # Under torchrun it says how many processes there are, as it is now.
    return {n: getattr(config, n) for n in plain if n != "devices" or launched_world() is None}


def _differences(before: TrainingConfig, now: TrainingConfig) -> dict[str, Any]:
    """What of the second is not as in the first."""
    return {n: value for n, value in dataclasses.asdict(now).items() if value != getattr(before, n)}


def _short(value: object) -> str:
    text = str(value) if isinstance(value, (str, float, int)) else reprlib.repr(value)
    return printable(text if len(text) <= 80 else f"{text[:77]}...")


def _checked_text(value: str) -> tuple[str, set[str]]:
    """What jsonargparse may read for --config VALUE, and which of LENGTHS it has.

    That is a regular file's name, or options as text.

    It would follow aliases, show a value of any size, and read another file that a file names.

    Raises:
        OSError: the file cannot be read.
        ValueError: no plain options, see `read_options`; the message names the file.
    """
    text, origin = value, "--config"
    if os.path.exists(value) and not os.path.isdir(value):
        with open(value, "rb") as file:
            content = file.read(LARGEST + 1)
        text, origin = content.decode("utf-8", errors="replace"), value
    elif not any(mark in value for mark in ":{\n"):
        return value, set()  # the name of no file, which is jsonargparse's to tell
    else:
        content = value.encode("utf-8", errors="replace")
    options = parse_options(content, origin)
    if "config" in options:
        raise ValueError(f"{printable(origin)} must not have the option 'config': give each file by --config")
    return value if os.path.isfile(value) else text, options.keys() & {*LENGTHS}


def write_config(config: TrainingConfig, path: Path) -> None:
    """The configuration as YAML that --config reads; the file appears, or is replaced, as a whole."""
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
    given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return config_class(**given)
