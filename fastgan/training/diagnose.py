"""`fastgan diagnose`: verdicts on a run and its curves explained, from a folder, a table or an event file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastgan._arguments import Parser
from fastgan._names import LAYOUT, printable
from fastgan._tables import rows_of
from fastgan.losses.adversarial import KINDS
from fastgan.monitor.columns import is_known
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.facts import FACTS, Facts, read_facts
from fastgan.monitor.log_names import FOREIGN, parse_columns
from fastgan.monitor.logs import Log, read_log
from fastgan.monitor.verdict import SEVERITIES
from fastgan.training.config import TrainingConfig, from_plain
from fastgan.training.diagnose_output import as_json, describe
from fastgan.training.registration import registered
from fastgan.training.run_options import options_of_run, recipe_of_run

TABLES = ("metrics.csv", "evaluation.csv")


def replayed(folder: Path, facts: Facts, *, skip_unreadable: bool = False) -> Diagnosis:
    """The diagnosis of what a run's tables hold, row by row as the run has logged them.

    Args:
        skip_unreadable: whether a table that cannot be read counts as one without rows.
    """
    rows: list[tuple[int, dict[str, float]]] = []
    for table in (folder / name for name in TABLES):
        with contextlib.suppress(*((OSError, ValueError) if skip_unreadable else ())):
            rows += rows_of(table) if table.exists() else ()
    diagnosis = Diagnosis(facts)
    # A stable sort: of one step, log lines come before the evaluation.
    for step, row in sorted(rows, key=lambda pair: pair[0]):
        diagnosis.add(step, row)
    return diagnosis


def diagnose_run(folder: Path, *, skip_unreadable: bool = False) -> Diagnosis:
    """The diagnosis of a run's folder: the same verdicts as the run has printed.

    Args:
        skip_unreadable: as for :func:`replayed`.

    Raises:
        FileNotFoundError: the folder holds no metrics.csv.
        ValueError: metrics.csv or the facts of the run cannot be read.
    """
    if not (folder / "metrics.csv").exists():
        raise FileNotFoundError(f"{printable(folder)} holds no metrics.csv: is this a run's folder?")
    return replayed(folder, facts_of_run(folder), skip_unreadable=skip_unreadable)


def facts_of_run(folder: Path) -> Facts:
    """What is known of a run: from its facts.json, or, in runs older than that, from its options."""
    facts = read_facts(folder)
    if facts is not None:
        return facts
    config = _config_of_run(folder)
    if config is None:
        return Facts()
    return dataclasses.replace(config.facts(), num_steps=None if config.num_epochs else config.num_steps)


def _config_of_run(folder: Path) -> TrainingConfig | None:
    """The options of a run whose recipe is installed; None otherwise."""
    try:
        name = recipe_of_run(folder)
        recipe = next(registration.load() for known, registration in registered() if known == name)
        found = options_of_run(folder, recipe.config_class, name)
        return from_plain(recipe.config_class, found[1]) if found else None
    except (OSError, ValueError, TypeError, StopIteration):
        return None


@dataclass
class Diagnosed:
    """A run or a log, and how it was read."""

    path: Path
    diagnosis: Diagnosis
    notes: list[str] = field(default_factory=list)
    """What was decided about the file, a sentence each."""
    is_file: bool = False
    """Whether it is a file of another trainer, and no run's folder."""


def diagnose(
    path: Path, columns: str = "", given: Mapping[str, Any] | None = None, d_loss: str = ""
) -> Diagnosed:
    """The diagnosis of a run's folder, or of any trainer's log, see :func:`read_log`.

    Args:
        columns: for files: "NAME=COLUMN,...", the columns that hold the figures of these names.
        given: fields of :class:`Facts` that the user knows; they take precedence over those of the folder.
        d_loss: for files: whether D_loss is the "sum" of D's losses of real and of fake samples, or their
            "mean"; "": as most trainers do, the mean for lsgan, and the sum for others.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it cannot be read, a column is not there, or a fact is none.
    """
    given = {name: value for name, value in (given or {}).items() if value is not None}
    if not path.exists():
        raise FileNotFoundError(f"{printable(path)} does not exist")
    if _is_run(path):
        if columns or d_loss:
            option, value = ("--columns", columns) if columns else ("--d_loss", d_loss)
            raise ValueError(
                f"{option} is for tables and event files, got {printable(value)} for the run's folder "
                f"{printable(path)}"
            )
        facts = dataclasses.replace(facts_of_run(path), **given)
        return Diagnosed(path, replayed(path, facts))
    names = [*FOREIGN, "collapse_ratio", "spread_ratio", "D_gradient_norm", "G_gradient_norm", "bit_acc"]
    table = path / "metrics.csv" if (path / "metrics.csv").is_file() else path
    log = read_log(table, parse_columns(columns, is_known, ["step", *names]) if columns else None)
    facts = dataclasses.replace(
        Facts(scores_are_probabilities=log.has_probabilities, counts_updates=False), **given
    )
    if facts.adversarial is None:
        log.notes.append(
            "the adversarial loss is not known, and rules that need it say nothing: --adversarial"
        )
    factor = _factor(facts, "sum" if log.has_parts else d_loss)
    if facts.loss_of_chance and any("D_loss" in row for _, row in log.rows):
        what = {1.0: "as it is", 2.0: "doubled", 0.5: "halved"}[factor]
        log.notes.append(
            f"D_loss counts {what}: without skill it is {facts.loss_of_chance:.3g} for {facts.adversarial} "
            "(--d_loss sum or mean says how the trainer adds D's losses of real and of fake samples)"
        )
    if facts.adversarial is not None and "G_loss" in log.names:
        log.notes.append(f"G_loss counts as G's {facts.adversarial} loss alone, without a weight")
    if facts.has_probabilities and not facts.scores_are_probabilities and _lie_in_0_1(log):
        log.notes.append(
            "D_real and D_fake count as D's raw outputs, although all lie in [0, 1]: give probabilities by "
            "--columns D_probability_real=...,D_probability_fake=..."
        )
    if table.name == "metrics.csv" and (table.parent / FACTS).exists():
        log.notes.append(f"{printable(table.parent)} is a run's folder: its diagnosis knows more")
    diagnosis = Diagnosis(facts)
    for step, row in log.rows:
        if "D_loss" in row:
            row["D_loss"] *= factor
        diagnosis.add(step, row)
    return Diagnosed(path, diagnosis, [printable(note) for note in log.notes], is_file=True)


def _lie_in_0_1(log: Log) -> bool:
    values = [row[name] for _, row in log.rows for name in ("D_real", "D_fake") if name in row]
    return bool(values) and all(0 <= value <= 1 for value in values)


def _is_run(path: Path) -> bool:
    known = (FACTS, "config.yaml", "checkpoints")
    return (path / "metrics.csv").is_file() and any((path / name).exists() for name in known)


def _factor(facts: Facts, d_loss: str) -> float:
    """What D's loss must be multiplied by to have the scale of :attr:`Facts.loss_of_chance`."""
    if facts.loss_of_chance is None or not d_loss:
        return 1.0
    if facts.adversarial == "lsgan":
        return 0.5 if d_loss == "sum" else 1.0
    return 2.0 if d_loss == "mean" and facts.adversarial != "relativistic" else 1.0


# --- the command --------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan diagnose",
        description="Says what is wrong with a training, by rules on its figures, and explains each curve in "
        "its own numbers. Reads a run's folder, or a table, JSON lines, messages, or event files of "
        "TensorBoard of any trainer. Exit code 2: no rule could judge anything.",
    )
    parser.add_argument("path", metavar="RUN", type=Path, help="a run's folder, or a file")
    add_options_of_files(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--fail-on", choices=SEVERITIES,
        help="leave with exit code 1 if a verdict of this severity or a graver one holds",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    found = diagnosed(options.path, options, is_alone=True)
    print(as_json(found) if options.json else printable(describe(found), keep=LAYOUT))
    if not found.diagnosis.has_judged:
        return 2
    if options.fail_on:
        gravest = SEVERITIES[: SEVERITIES.index(options.fail_on) + 1]
        return int(any(verdict.severity in gravest for verdict in found.diagnosis.verdicts()))
    return 0


def add_options_of_files(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what a file of another trainer does not."""
    group = parser.add_argument_group("what a file of another trainer does not say")
    group.add_argument(
        "--columns", metavar="NAME=COLUMN,...", default="",
        help="figures by the names that rules know, such as D_real=D(x),D_fake=D(G(z)),step=iter; common "
        "names are recognized without it",
    )  # fmt: skip
    group.add_argument("--adversarial", choices=KINDS, help="the adversarial loss")
    group.add_argument(
        "--d_loss", choices=("sum", "mean"),
        help="whether D_loss is the sum of D's losses of real and of fake samples, or their mean; default: "
        "mean for lsgan, sum for others",
    )  # fmt: skip
    group.add_argument("--real_label", type=float, help="D's label of real samples, for bce and lsgan")
    group.add_argument("--fake_label", type=float, help="D's label of fakes, for bce and lsgan")
    group.add_argument("--critic_sign", type=int, help="-1: D's scores are high for fakes")
    group.add_argument("--num_steps", type=int, help="steps that the run is planned to take")


def diagnosed(path: Path, options: argparse.Namespace, *, is_alone: bool = False) -> Diagnosed:
    """The diagnosis of a run or file with the options of :func:`add_options_of_files`.

    Args:
        is_alone: False for one of several, of which these options concern the files only.
    """
    if not is_alone and _is_run(path):
        found = diagnose(path)
        if options.columns or options.d_loss:
            found.notes.append("--columns and --d_loss are for files, and do not apply to this run's folder")
        return found
    names = ("adversarial", "real_label", "fake_label", "critic_sign", "num_steps")
    facts = {name: getattr(options, name) for name in names}  # None for those that are not given
    return diagnose(path, options.columns, facts, options.d_loss or "")
