"""TensorBoard's event files as rows of numbers: which of a folder's files are of one run, what they hold."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgan._names import printable
from fastgan.monitor.log_names import Row, listed

# Folders of parts of a run, which writers of their own have written.
_PART = re.compile(
    r"train|training|val|valid|validation|test|eval|evaluation|d|g|dis|disc|discriminator|critic|gen|generator",
    re.IGNORECASE,
)

Points = list[tuple[int, float]]


@dataclass
class _File:
    path: Path
    place: str
    """Its folder, as seen from the one that is read; "." for the same one."""
    points: dict[str, Points]
    """Steps and values by tag, in the order of the file."""

    def begins_again_after(self, other: _File) -> bool:
        """Whether this one, written later, is of another run: a figure begins where the other's did."""
        shared = self.points.keys() & other.points.keys()
        return any(self.points[tag][0][0] <= other.points[tag][0][0] for tag in shared)


def is_events(path: Path) -> bool:
    """Whether a path is one of TensorBoard's event files, or a folder with some in it or below."""
    return bool(_event_files(path))


def read_events(path: Path, notes: list[str]) -> dict[int, Row]:
    """The scalars by step and tag; tags of files of parts of a run begin with their folder.

    Raises:
        ValueError: there are none, or those of several runs, each in a folder of its own.
    """
    folders = _of_one_run(path, _read_all(path, notes), notes)
    table: dict[int, Row] = {}
    points: dict[str, Points] = {}
    for place, files in folders.items():
        for file in _newest_run(files, notes):
            for tag, values in file.points.items():
                points.setdefault(tag if place == "." else f"{place}/{tag}", []).extend(values)
    if not points:
        raise ValueError(f"{printable(path)} holds no scalars: it is no event file of TensorBoard, or empty")
    if all(step == 0 for values in points.values() for step, _ in values) and any(
        len(values) > 1 for values in points.values()
    ):
        notes.append("all points are at step 0: steps are numbers of each figure's values")
        points = {
            tag: [(step, value) for step, (_, value) in enumerate(values, start=1)]
            for tag, values in points.items()
        }
    for tag, values in points.items():
        for step, value in values:
            if step >= 0:
                table.setdefault(step, {})[tag] = value
    return dict(sorted(table.items()))


# --- which files ------------------------------------------------------------------------------------------


def _event_files(path: Path) -> list[Path]:
    """In the order in which they were begun, as their names say it; names of folders come first."""
    if path.is_dir():
        found = []
        for folder, folders, files in os.walk(path):
            folders.sort()
            found += [Path(folder, name) for name in sorted(files, key=_began) if "tfevents" in name]
        return found
    return [path] if "tfevents" in path.name and path.is_file() else []


def _began(name: str) -> tuple[int, str]:
    """The time in the name "events.out.tfevents.TIME.HOST", and the name."""
    time = re.search(r"tfevents\.(\d+)", name)
    return int(time[1][:18]) if time else 0, name


def _read_all(path: Path, notes: list[str]) -> list[_File]:
    files = []
    for file in _event_files(path):
        place = "." if file == path else file.parent.relative_to(path).as_posix()
        points = _points(file, notes)
        if points:
            files.append(_File(file, place, points))
    return files


def _of_one_run(path: Path, files: Sequence[_File], notes: list[str]) -> dict[str, list[_File]]:
    """The files of one run by the folder within it.

    Raises:
        ValueError: there are several runs.
    """
    runs: dict[str, dict[str, list[_File]]] = {}
    for file in files:
        run, part = _run_and_part(file)
        runs.setdefault(run, {}).setdefault(part, []).append(file)
    if "." in runs and len(runs) > 1:
        others = listed([run for run in runs if run != "."])
        notes.append(f"event files in the folders below are left out, as those of other runs: {others}")
        return runs["."]
    if len(runs) > 1:
        raise ValueError(
            f"{printable(path)} holds event files of {len(runs)} runs, and one at a time is judged: give the "
            f"folder of one of {listed(list(runs))}, or several to `fastgan compare`"
        )
    if "." not in runs and runs:
        notes.append(f"event files are those of the folder {next(iter(runs))}")
    return next(iter(runs.values()), {})


def _run_and_part(file: _File) -> tuple[str, str]:
    """The folder of a file's run, and the folder within it, for instance that of one of `add_scalars`."""
    folders = file.place.split("/")
    count = len(folders)
    is_of_add_scalars = all(folders[-1].startswith(f"{tag.replace('/', '_')}_") for tag in file.points)
    if file.place != "." and is_of_add_scalars:
        count -= 1
    while count and _PART.fullmatch(folders[count - 1]):
        count -= 1
    return "/".join(folders[:count]) or ".", "/".join(folders[count:]) or "."


def _newest_run(files: Sequence[_File], notes: list[str]) -> list[_File]:
    """Of the files of one folder, those of the last run; a run that was resumed has several."""
    begins = 0
    for place in range(1, len(files)):
        if any(files[place].begins_again_after(earlier) for earlier in files[begins:place]):
            begins = place
    if begins:
        left_out = listed([file.path.name for file in files[:begins]])
        notes.append(
            f"of {len(files)} event files in one folder, those of the last run count, from "
            f"{files[begins].path.name} on; to judge another run, give its file: {left_out}"
        )
    elif len(files) > 1:
        notes.append(f"{len(files)} event files in one folder are read as those of one run that was resumed")
    return list(files[begins:])


# --- what a file holds --------------------------------------------------------------------------------------


def _points(file: Path, notes: list[str]) -> dict[str, Points]:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    points: dict[str, Points] = {}
    count = 0
    try:
        for event in LegacyEventFileLoader(str(file)).Load():
            count += 1
            for value in event.summary.value:
                scalar = _scalar(value)
                if scalar is not None:
                    points.setdefault(value.tag, []).append((event.step, scalar))
    except Exception as error:  # protobuf's and tensorboard's errors have no base class of their own
        raise ValueError(
            f"{printable(file)} cannot be read as an event file of TensorBoard: {error}"
        ) from error
    if points and _has_more(file, count):
        notes.append(f"{file.name} is cut off or damaged after {count} records, and is read up to there")
    return points


def _has_more(file: Path, count: int) -> bool:
    """Whether bytes follow the first `count` records, each 8 bytes of length, 4, its content, and 4 more."""
    place = 0
    with file.open("rb") as source:
        for _ in range(count):
            source.seek(place)
            place += 16 + struct.unpack("<Q", source.read(8))[0]
        return place < os.fstat(source.fileno()).st_size


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
