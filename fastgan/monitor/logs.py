"""Logs of any trainer: CSV files, TSV files and TensorBoard's event files become rows as rules read them.

Trainers name, number and write their figures in many ways. Whatever is decided about a file here is told in
its notes: which figure was taken for what, where steps come from, which cells and rows were left out.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastgan._arguments import near_name
from fastgan._names import printable
from fastgan.monitor.history import ROWS

MOST_ROWS = 200
"""Longer logs are averaged: rules were made for log lines that are means over many steps."""
STEPS = ("step", "global_step", "steps", "iteration", "iterations", "iter", "iters", "it", "i", "niter",
         "batch", "batches_done", "kimg", "epoch", "epochs")  # fmt: skip
"""Names of columns of steps; the first that is there and that counts rows is taken."""
LONGEST_LIST = 400
"""Characters of names in an error, which may come from a file that is no table at all."""

Row = dict[str, float]


@dataclass
class Log:
    """What was read of a log."""

    rows: list[tuple[int, Row]]
    """Steps, ascending, and figures, by the names that rules know where there is one."""
    names: dict[str, str]
    """Names in the file by the names that rules know."""
    notes: list[str] = field(default_factory=list)
    """What was decided about the file, a sentence each."""
    has_probabilities: bool = False
    """Whether D_real and D_fake are means of D(x) and D(G(z)), probabilities of being real."""
    has_parts: bool = False
    """Whether D_loss is the sum of two columns, D's losses of real and of fake samples."""


def read_log(path: Path, columns: Mapping[str, str] | None = None) -> Log:
    """Reads a CSV or TSV file, a TensorBoard event file, or a folder with event files.

    Args:
        columns: names in the file by the names that rules know, "step" too; further ones are recognized.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read as any of these, has fewer than three rows, or lacks a column that is
            asked for; the message names the file and what is wrong.
        ModuleNotFoundError: event files need tensorboard.
    """
    columns = dict(columns or {})
    notes: list[str] = []
    if is_events(path):
        table = read_events(path)
        header = list(dict.fromkeys(name for row in table.values() for name in row))
        _check_columns(path, columns, header)
        steps, rows = list(table), list(table.values())
    else:
        header, rows = read_csv(path, notes)
        _check_columns(path, columns, header)
        steps = _steps(path, header, rows, columns.get("step"), notes)
    log = Log(_by_step(steps, rows, notes), _names(header, columns), notes)
    if rows and not any(rows):
        raise ValueError(f"{printable(path)} has no figures beside its steps; it has {_listed(header)}")
    if len(log.rows) < ROWS:
        raise ValueError(
            f"{printable(path)} has {len(log.rows)} row{'s' if len(log.rows) != 1 else ''}: verdicts follow "
            f"figures over steps, and need {ROWS} rows at least"
        )
    _leave_gaps(log)
    _rename(log)
    _average(log)
    return log


def _check_columns(path: Path, columns: Mapping[str, str], header: Sequence[str]) -> None:
    for ours, theirs in columns.items():
        if theirs not in header:
            near = near_name(theirs, header)
            raise ValueError(
                f"--columns {printable(f'{ours}={theirs}')}: {printable(path)} has no column "
                f"{printable(theirs)!r}"
                + (f"; did you mean {printable(near)!r}?" if near else "")
                + f"; it has {_listed(header)}"
            )


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return printable(text if len(text) <= LONGEST_LIST else f"{text[:LONGEST_LIST]}...")


# --- CSV and TSV --------------------------------------------------------------------------------------------


def read_csv(path: Path, notes: list[str]) -> tuple[list[str], list[Row]]:
    """The names of a table's columns of numbers, and its rows without their empty cells.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_log`.
    """
    shown = printable(path)
    if path.is_dir():
        raise ValueError(f"{shown} is a folder with neither metrics.csv nor TensorBoard's event files in it")
    text = _text(path)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{shown} is empty")
    try:
        delimiter = max(",;\t", key=lambda mark: len(next(csv.reader([lines[0]], delimiter=mark))))
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"{shown} cannot be read as a table: {error}") from error
    header, *cells = [[cell.strip() for cell in row] for row in table if any(cell.strip() for cell in row)]
    header[0] = header[0].lstrip("# ")
    if all(_number(cell) is not None for cell in header if cell):
        raise ValueError(f"{shown} has no names of columns: its first row is {_listed(header)}")
    again = [row for row in cells if row == header]
    if again:
        notes.append(f"the header stands in {len(again)} further rows, which are left out")
        cells = [row for row in cells if row != header]
    if not cells:
        raise ValueError(f"{shown} has names of columns, but no rows")
    names = _distinct(header, notes)
    width = len(names)
    whole = [row[:width] for row in cells if len(row) >= width and not any(row[width:])]
    if len(whole) < len(cells):
        notes.append(
            f"{len(cells) - len(whole)} of {len(cells)} rows do not have {width} cells and are left out"
        )
    comma = delimiter != ","
    numbers = [[_number(cell, comma) if cell else None for cell in row] for row in whole]
    texts = {
        name: sum(
            1 for row, values in zip(whole, numbers, strict=True) if row[place] and values[place] is None
        )
        for place, name in enumerate(names)
    }
    counted = {
        name: sum(1 for values in numbers if values[place] is not None) for place, name in enumerate(names)
    }
    left_out = [name for name in names if texts[name] and not counted[name]]
    if left_out:
        notes.append(f"left out, since they hold no numbers: {', '.join(left_out)}")
    for name in names:
        if texts[name] and counted[name]:
            notes.append(f"{name}: {texts[name]} of {len(whole)} cells are no numbers and count as empty")
    named = [name for name in names if name and counted[name]]
    if whole and not named:
        raise ValueError(f"{shown} has no column of numbers; it has {_listed(names)}")
    rows = [
        {name: value for name, value in zip(names, values, strict=True) if value is not None and name}
        for values in numbers
    ]
    return named, [row for row in rows if row]


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # as PowerShell redirects output
        return content.decode("utf-16", errors="replace")
    if b"\0" in content[:4096]:
        raise ValueError(
            f"{printable(path)} is neither text nor one of TensorBoard's event files, whose names contain "
            "'tfevents'"
        )
    return content.decode("utf-8-sig", errors="replace")


def _distinct(header: list[str], notes: list[str]) -> list[str]:
    """The names, those that were there before with a number."""
    seen: Counter[str] = Counter()
    names = []
    for name in header:
        seen[name] += 1
        names.append(f"{name} ({seen[name]})" if name and seen[name] > 1 else name)
    for name, count in seen.items():
        if name and count > 1:
            notes.append(f"{count} columns are named {name}: the later ones are called {name} (2) and so on")
    return names


def _number(cell: str, has_decimal_commas: bool = False) -> float | None:
    """A cell's number, NaN and infinity included; None for other text."""
    if has_decimal_commas and re.fullmatch(r"[-+]?\d+,\d+(e[-+]?\d+)?", cell, re.IGNORECASE):
        cell = cell.replace(",", ".")
    try:
        return float(cell.replace("_", "x"))  # Python's 1_000 is no number in a table
    except ValueError:
        return None


# --- TensorBoard --------------------------------------------------------------------------------------------


def is_events(path: Path) -> bool:
    """Whether a path is one of TensorBoard's event files, or a folder with some in it or below."""
    return any(True for _ in _event_files(path))


def _event_files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(files) if "tfevents" in name)
    elif "tfevents" in path.name and path.is_file():
        yield path


def read_events(path: Path) -> dict[int, Row]:
    """The scalars by step and tag; tags of files in a folder below, as of `add_scalars`, begin with it.

    Raises:
        ValueError: there are none.
    """
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    table: dict[int, Row] = {}
    for file in _event_files(path):
        below = "" if file == path or file.parent == path else f"{file.parent.relative_to(path).as_posix()}/"
        try:
            for event in LegacyEventFileLoader(str(file)).Load():
                for value in event.summary.value:
                    scalar = _scalar(value)
                    if scalar is not None and event.step >= 0:
                        table.setdefault(event.step, {})[below + value.tag] = scalar
        except Exception as error:  # protobuf's and tensorboard's errors have no base class of their own
            raise ValueError(
                f"{printable(file)} cannot be read as an event file of TensorBoard: {error}"
            ) from error
    if not table:
        raise ValueError(f"{printable(path)} holds no scalars: it is no event file of TensorBoard, or empty")
    return dict(sorted(table.items()))


def _scalar(value: Any) -> float | None:
    """The number in a summary: of TensorFlow 1 and torch, or of TensorFlow 2, which writes tensors."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind == "tensor" and not value.tensor.tensor_shape.dim and not value.tensor.string_val:
        from tensorboard.util import tensor_util

        try:
            return float(tensor_util.make_ndarray(value.tensor))
        except (TypeError, ValueError):
            return None
    return None


# --- steps --------------------------------------------------------------------------------------------------


def _steps(
    path: Path, header: Sequence[str], rows: Sequence[Row], chosen: str | None, notes: list[str]
) -> list[int]:
    """The step of each row, -1 where it has none. Takes counters of all kinds out of the rows."""
    kinds = {re.sub(r".*/", "", name.casefold()).strip().replace(" ", "_"): name for name in reversed(header)}
    counters = [kinds[kind] for kind in STEPS if kind in kinds]
    steps, problems = None, []
    if chosen is not None:
        steps, problem = _steps_of(rows, chosen)
        if problem == "has fractions":
            raise ValueError(
                f"--columns step={printable(chosen)}: {printable(path)} {problem} in that column"
            )
    for name in counters if steps is None else ():
        found, problem = _steps_of(rows, name)
        if not problem:
            notes.append(f"steps are those of the column {name}")
            steps = found
            break
        problems.append(f"{name} {problem}")
    if steps is None:
        notes.append(f"steps are numbers of rows{': ' if problems else ''}{'; '.join(problems)}")
        steps = list(range(1, len(rows) + 1))
    for row in rows:
        for counter in (*counters, *([chosen] if chosen else [])):
            row.pop(counter, None)
    return steps


def _steps_of(rows: Sequence[Row], name: str) -> tuple[list[int], str]:
    """A column as steps, -1 where it has none, and why it cannot count them, or ""."""
    values = [row.get(name, math.nan) for row in rows]
    whole = [value for value in values if math.isfinite(value)]
    if any(value != int(value) for value in whole):
        return [], "has fractions"
    steps = [int(value) if 0 <= value < 2**63 else -1 for value in values]
    if len({step for step in steps if step >= 0}) < len(rows) / 2:
        return steps, "does not tell rows apart"
    return steps, ""


def _by_step(steps: Sequence[int], rows: Sequence[Row], notes: list[str]) -> list[tuple[int, Row]]:
    """Rows in the order of steps; of one step, later values replace earlier ones."""
    numbered = [(step, row) for step, row in zip(steps, rows, strict=True) if step >= 0]
    if len(numbered) < len(rows):
        notes.append(f"{len(rows) - len(numbered)} of {len(rows)} rows have no step and are left out")
    merged: dict[int, Row] = {}
    for step, row in numbered:
        merged.setdefault(step, {}).update(row)
    given = [step for step, _ in numbered]
    if len(merged) < len(given):
        notes.append(f"{len(given) - len(merged)} steps are there more than once: the last row counts")
    if given != sorted(given):
        notes.append("rows were not in the order of steps, and are sorted")
    return sorted(merged.items())


# --- names --------------------------------------------------------------------------------------------------

_D = r"(?:d|dis|disc|discriminator|critic|netd)"
_G = r"(?:g|gen|generator|netg)"
_LOSS = r"(?:loss|losses|err|error)"
_SCORE = r"(?:score|scores|logit|logits|output|outputs|out|pred|validity|mean)"
_KIND = r"(?:gan|adv|adversarial)"
PART_REAL, PART_FAKE = "D_real_loss", "D_fake_loss"
# Patterns of what is left of foreign names after `_plain`, the surest first.
FOREIGN: dict[str, tuple[str, ...]] = {
    "D_loss": (
        rf"{_D}_?{_LOSS}(_(total|all))?", rf"{_LOSS}_?{_D}(_(total|all|{_LOSS}))?", rf"total_{_D}_{_LOSS}",
        rf"{_D}_total",
        rf"{_D}_total_{_LOSS}", rf"{_D}_{_KIND}(_{_LOSS})?", rf"{_LOSS}_{_D}_{_KIND}",
        rf"{_KIND}_{_LOSS}_{_D}",
    ),
    # G's adversarial loss before the sum of all its terms.
    "G_loss": (
        rf"{_G}_{_KIND}(_{_LOSS})?", rf"{_G}_{_LOSS}_{_KIND}", rf"{_LOSS}_{_G}_{_KIND}",
        rf"(adv|adversarial)_{_LOSS}", rf"{_LOSS}_(adv|adversarial)",
        rf"{_KIND}_{_LOSS}_{_G}", rf"{_G}_?{_LOSS}(_(total|all))?", rf"{_LOSS}_?{_G}(_(total|all|{_LOSS}))?",
        rf"total_{_G}_{_LOSS}", rf"{_G}_total_{_LOSS}", rf"{_G}_total",
    ),
    "D_real": (
        "d_x", "dx", rf"{_D}_real", rf"{_D}_real_{_SCORE}", rf"{_D}_{_SCORE}_real", rf"{_SCORE}_real",
        rf"real_{_SCORE}", rf"{_LOSS}_scores_real", "score_d", "d_score",
    ),
    "D_fake": (
        "d_g_z(_?1)?", "d_?gz(_?1)?", rf"{_D}_fake", rf"{_D}_fake_{_SCORE}", rf"{_D}_{_SCORE}_fake",
        rf"{_SCORE}_fake", rf"fake_{_SCORE}", rf"{_LOSS}_scores_fake", "score_g", "g_score",
    ),
    "D_probability_real": (r"(d_)?prob(ability)?_real", r"(d_)?real_prob(ability)?"),
    "D_probability_fake": (r"(d_)?prob(ability)?_fake", r"(d_)?fake_prob(ability)?"),
    "D_accuracy_real": (r"(d_)?acc(uracy)?_real", r"(d_)?real_acc(uracy)?"),
    "D_accuracy_fake": (r"(d_)?acc(uracy)?_fake", r"(d_)?fake_acc(uracy)?"),
    "D_auc": (r"d_auc",),
    PART_REAL: (
        rf"{_D}_?{_LOSS}_real", rf"{_LOSS}_?{_D}_real", rf"{_D}_real_{_LOSS}", rf"{_LOSS}_real_{_D}",
        rf"real_{_D}_{_LOSS}",
    ),
    PART_FAKE: (
        rf"{_D}_?{_LOSS}_fake", rf"{_LOSS}_?{_D}_fake", rf"{_D}_fake_{_LOSS}", rf"{_LOSS}_fake_{_D}",
        rf"fake_{_D}_{_LOSS}",
    ),
    "r1_penalty": (rf"(({_LOSS}|{_D})_)?r1(_penalty|_{_LOSS})?", rf"{_D}_r1_{_LOSS}"),
    "D_penalty": (rf"({_D}_|{_LOSS}_)?(gp|gradient_penalty)(_{_LOSS})?",),
    "lr_g": (rf"lr_{_G}", rf"{_G}_lr"),
    "lr_d": (rf"lr_{_D}", rf"{_D}_lr"),
    "lr": (r"lr", r"learning_rate"),
    **{name: (name,) for name in ("psnr", "ssim", "lpips", "fid")},
}  # fmt: skip
NOT_OF_THE_GAME = {"lr", "lr_d", "lr_g", "psnr", "ssim", "lpips", "fid"}
# Names of figures on other data than the training's.
_HELD_OUT = re.compile(r"(val|valid|validation|test|eval|evaluation)(_.*)?")
_AROUND = (
    re.compile(r"^(train|training|metrics?|scalars?|losses|stats?|epoch|batch|avg|mean|running|log)_(?=.)"),
    re.compile(r"(?<=.)_(epoch|step|avg|train|batch|iter)$"),
)


def _plain(name: str) -> str:
    """A name in lower case with single underscores, without words such as train and avg."""
    plain = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()).strip("_")
    before = ""
    while plain != before:
        before = plain
        for words in _AROUND:
            plain = words.sub("", plain)
    return plain


def _names(header: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Names in the file by names that rules know: as asked for, then the same ones, then recognized ones."""
    names = {ours: theirs for ours, theirs in columns.items() if ours != "step"}
    free = [name for name in header if name not in columns.values()]
    for name in FOREIGN:
        if name in free and name not in names:
            names[name] = name
    plain = {name: _plain(name) for name in free if name not in names.values()}
    candidates = {name: text for name, text in plain.items() if not _HELD_OUT.fullmatch(text)}
    for ours, patterns in FOREIGN.items():
        found = (
            name for pattern in patterns for name, text in candidates.items() if re.fullmatch(pattern, text)
        )
        theirs = next(found, None)
        if ours not in names and theirs is not None:
            names[ours] = theirs
            del candidates[theirs]
    # pix2pix and CycleGAN print D's two losses by the names that others give to its scores.
    if any(re.fullmatch(r"(loss_)?g_gan(_.*)?", text) for text in plain.values()) and "D_loss" not in names:
        for score, part in (("D_real", PART_REAL), ("D_fake", PART_FAKE)):
            if score in names and score not in columns and part not in names:
                names[part] = names.pop(score)
    return names


def _rename(log: Log) -> None:
    """Gives the figures the names that rules know, and puts D's loss together where only its parts are."""
    ours = {theirs: name for name, theirs in log.names.items()}
    log.rows = [
        (step, {ours.get(name, _kept(name, ours)): value for name, value in row.items()})
        for step, row in log.rows
    ]
    if taken := [f"{name} is {theirs}" for name, theirs in log.names.items() if name != theirs]:
        log.notes.append(f"taken for what rules know: {', '.join(taken)}")
    if not log.names.keys() - NOT_OF_THE_GAME:
        known = _listed(list(dict.fromkeys(name for _, row in log.rows for name in row)))
        log.notes.append(
            f"no figure was recognized; say which is what by --columns, as D_loss=NAME, among: {known}"
        )
    if {PART_REAL, PART_FAKE} <= log.names.keys() and "D_loss" not in log.names:
        log.has_parts = True
        for _, row in log.rows:
            if PART_REAL in row and PART_FAKE in row:
                row["D_loss"] = row[PART_REAL] + row[PART_FAKE]
        parts = f"{log.names[PART_REAL]} and {log.names[PART_FAKE]}"
        log.notes.append(f"D_loss is the sum of {parts}, D's losses of real and of fake samples")
    log.has_probabilities = _are_probabilities(log)
    if log.has_probabilities:
        log.notes.append(
            f"{log.names['D_real']} and {log.names['D_fake']} lie in [0, 1]: probabilities of being real"
        )


def _kept(name: str, ours: Mapping[str, str]) -> str:
    """The name of a figure that is none that rules know, other than that of one that has been renamed."""
    return f"{name} (of the file)" if name in ours.values() else name


def _are_probabilities(log: Log) -> bool:
    """Whether D_real and D_fake are called D(x) and D(G(z)), as probabilities are, and lie in [0, 1]."""
    names = [log.names.get(name, "") for name in ("D_real", "D_fake")]
    values = [row[name] for _, row in log.rows for name in ("D_real", "D_fake") if name in row]
    finite = [value for value in values if math.isfinite(value)]
    is_named = all(re.match(r"d_(x|g_z)|dg?[xz]", _plain(name)) for name in names)
    return is_named and bool(finite) and min(finite) >= 0 and max(finite) <= 1


# --- rows ---------------------------------------------------------------------------------------------------


def _leave_gaps(log: Log) -> None:
    """Takes NaN between numbers for cells that were left empty, as some trainers write what they skip."""
    for name in dict.fromkeys(name for _, row in log.rows for name in row):
        given = [(row, math.isnan(row[name])) for _, row in log.rows if name in row]
        ends = sum(1 for (_, is_nan), (_, next_is) in itertools.pairwise(given) if is_nan and not next_is)
        if ends >= 2:
            gaps = [row for row, is_nan in given if is_nan]
            for row in gaps:
                del row[name]
            log.notes.append(
                f"{name}: nan in {len(gaps)} of {len(given)} rows, between numbers, counts as not measured"
            )


def _average(log: Log) -> None:
    """Averages neighbouring rows of a long log, but none in which a figure stops being finite."""
    count = len(log.rows)
    if count <= MOST_ROWS:
        return
    size = math.ceil(count / MOST_ROWS)
    parts: list[list[tuple[int, Row]]] = [[]]
    broken: set[str] = set()
    for step, row in log.rows:
        stops = {name for name, value in row.items() if not math.isfinite(value)} - broken
        if stops or len(parts[-1]) == size:
            parts.append([])
        broken |= stops
        parts[-1].append((step, row))
        if stops:
            parts.append([])
    log.rows = [(part[-1][0], _means(row for _, row in part)) for part in parts if part]
    log.notes.append(f"its {count} rows are averaged by {size}")


def _means(rows: Iterable[Row]) -> Row:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {name: sum(each) / len(each) for name, each in values.items()}


def parse_columns(text: str, is_known: Callable[[str], bool], known: Sequence[str]) -> dict[str, str]:
    """Names in the file by our names, from "D_real=D(x),D_fake=D(G(z))"; ours in lower case too.

    Raises:
        ValueError: not of that form, a name that no rule knows, or a name twice.
    """
    columns: dict[str, str] = {}
    lower = {name.casefold(): name for name in known}
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not equals or not ours or not theirs:
            raise ValueError(f"--columns must be NAME=COLUMN,NAME=COLUMN,..., got {printable(part)!r}")
        ours = lower.get(ours.casefold(), ours)
        if ours != "step" and not is_known(ours):
            near = near_name(ours, known)
            raise ValueError(
                f"--columns: rules know no {printable(ours)!r}; "
                + (f"did you mean {near}?" if near else f"they know {', '.join(known)} and others")
            )
        if ours in columns or theirs in columns.values():
            raise ValueError(f"--columns has {printable(ours if ours in columns else theirs)!r} twice")
        columns[ours] = theirs
    return columns
