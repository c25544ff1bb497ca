"""Training runs under external faults: full disks, lost permissions, damaged files, signals, ...

In any case a run either continues to its end or ends with one error that says what is wrong. Once the cause
is removed, the same command resumes it, with results that equal those of an undisturbed run bit by bit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastgan._folder_lock import NAME as LOCK
from fastgan.recipes import RECIPES
from fastgan.training import run_folder
from fastgan.training.checkpoint import checkpoint_files
from tests.stress.tiny_runs import PHASES, TRACEBACK, Run, Stage

NOBODY = 65534
BOMB = "a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: &d [*c, *c, *c, *c]\n"


class Skipped(Exception):
    """This machine cannot produce the fault."""


def run(calls: int, seed: int, recipes: tuple[str, ...] = tuple(RECIPES)) -> dict[str, Any]:
    """Produces `calls` faults, cycling through DAMAGES.

    Returns:
        calls, the number of each kind, skipped (for lack of permissions); faults: for each failure a line
        with the damage, the run and the problem.
    """
    figures: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        stage = Stage(Path(folder))
        for number in range(calls):
            kind = list(DAMAGES)[number % len(DAMAGES)]
            random = Random(f"{seed}.{number}")
            recipe = random.choice(recipes)
            name = f"{kind}-{number}"
            try:
                wrong = DAMAGES[kind](stage, recipe, name, random)
            except Skipped:
                figures["skipped"] += 1
                continue
            figures[kind] += 1
            if wrong:
                faults.append(f"{kind}, {recipe}, seed {seed}.{number}: {'; '.join(wrong)}")
            else:
                stage.remove(name)
    return {"calls": calls, **{k: figures[k] for k in (*DAMAGES, "skipped")}, "faults": faults}


def disk_full(stage: Stage, recipe: str, name: str, random: Random) -> list[str]:
    """The disk has less space than the run needs, by a random amount."""
    stage.whole(recipe)
    needed = sum(path.stat().st_size for path in (stage.runs / f"{recipe}-whole").rglob("*"))
    with _disk(stage.folder / name, random.randint(16 * 1024, needed)) as disk:
        run = stage.start(recipe, name, runs=disk, prepare=lambda: setattr(run_folder, "NEEDED_BYTES", 0))
        if run.ends() != 0 and not run.failed_by_name:
            return [_end_of(run)]
        _mount("-o", "remount,size=1g", str(disk))
        return stage.finishes(recipe, name, runs=disk)


def read_only(stage: Stage, recipe: str, name: str, random: Random) -> list[str]:
    """The run's folder is not writable, from a random moment on or from the start."""
    runs = stage.folder / name
    (runs / name).mkdir(parents=True)
    as_root = os.getuid() == 0
    if as_root:  # permissions do not apply to root
        for path in (runs, runs / name):
            os.chown(path, NOBODY, NOBODY)
    from_the_start = random.random() < 0.2
    if from_the_start:
        _set_modes(runs, 0o555)
    run = stage.start(recipe, name, runs=runs, prepare=_drop_rights if as_root else lambda: None)
    if not from_the_start:
        _reach(stage, recipe, run, random)
        _set_modes(runs / name, 0o555)
    if run.ends() != 0 and not run.failed_by_name:
        return [_end_of(run)]
    _set_modes(runs, 0o755)
    wrong = stage.finishes(recipe, name, runs=runs)
    shutil.rmtree(runs)
    return wrong


def lost_output(stage: Stage, recipe: str, name: str, random: Random) -> list[str]:
    """The run's output is not read, or has no space: the run trains anyway."""
    reader, writer = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    kind = random.choice(("closed", "full", "pipe"))

    def lose() -> None:
        for descriptor in (1, 2):
            if kind == "closed":
                os.close(descriptor)
            else:
                os.dup2({"full": full, "pipe": writer}[kind], descriptor)
        os.close(reader)

    run = stage.start(recipe, name, prepare=lose)
    _reach(stage, recipe, run, random)
    for descriptor in (reader, writer, full):
        os.close(descriptor)
    if run.ends() != 0:
        return [_end_of(run)]
    return stage.differences(recipe, name)


def two_starts(stage: Stage, recipe: str, name: str, random: Random) -> list[str]:
    """The command is started twice: one trains, the other names the one that trains."""
    first = stage.start(recipe, name)
    if random.random() < 0.7:
        _reach(stage, recipe, first, random)
    second = stage.start(recipe, name)
    runs = sorted((first, second), key=Run.ends)
    if runs[1].code:
        is_named = f"is in use by process {runs[0].pid} " in runs[1].output
        if runs[0].code != 0 or not runs[1].failed_by_name or not is_named:
            return [_end_of(run) for run in runs]
    return stage.differences(recipe, name)


def signals(stage: Stage, recipe: str, name: str, random: Random) -> list[str]:
    """Ctrl-C, SIGTERM or a terminal that hangs up."""
    number = random.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    run = stage.start(recipe, name)
    while not (stage.runs / name / LOCK).exists() and run.goes_on(0.001):
        pass  # before that, its signal handlers are not installed
    _reach(stage, recipe, run, random)
    run.kill(number)
    if run.ends() not in (0, 128 + number) or TRACEBACK in run.output:
        return [_end_of(run)]
    return stage.finishes(recipe, name)


def damaged_checkpoints(stage: Stage, recipe: str, name: str, random: Random) -> list[str]:
    """The newest or all checkpoints are truncated, overwritten, or have a bit flipped."""
    _kill_with_checkpoint(stage, recipe, name, random)
    files = checkpoint_files(stage.runs / name / "checkpoints")
    hit = files if random.random() < 0.3 else files[-1:]
    for path in hit:
        data = bytearray(path.read_bytes())
        place = random.randrange(len(data))
        match random.randrange(5):
            case 0:
                data[place] ^= 1 << random.randrange(8)
            case 1:
                data = data[:place]
            case 2:
                data[place : place + 4096] = bytes(len(data[place : place + 4096]))
                data[place // 2] ^= 1  # where the bytes were zero already
            case 3:
                data = bytearray()
            case 4:
                data += random.randbytes(100)
        path.write_bytes(data)
    if len(hit) < len(files):
        return stage.finishes(recipe, name)
    run = stage.start(recipe, name)
    if run.ends() != 1 or not run.failed_by_name or str(hit[-1]) not in run.output:
        return [_end_of(run)]
    for path in hit:
        path.unlink()
    return stage.finishes(recipe, name)


def crafted_files(stage: Stage, recipe: str, name: str, random: Random) -> list[str]:
    """A stopped run's folder gets files that do not come from training."""
    _kill_with_checkpoint(stage, recipe, name, random)
    folder, before, outside = stage.runs / name, stage.folder / f"{name}-before", stage.folder / "outside"
    shutil.copytree(folder, before)
    outside.write_text("not the run's")
    done = [random.choice(CRAFTS)(folder, outside, random) for _ in range(random.randint(1, 2))]
    run = stage.start(recipe, name)
    if run.ends() == 0 and TRACEBACK not in run.output:
        wrong = stage.differences(recipe, name, tables="metrics.csv is a link" not in done)
    elif run.failed_by_name:
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        wrong = stage.finishes(recipe, name)
    else:
        wrong = [_end_of(run)]
    if outside.read_text() != "not the run's":
        wrong.append("a file outside was written")
    shutil.rmtree(before)
    return [f"{', '.join(done)}: {text}" for text in wrong]


DAMAGES: dict[str, Callable[[Stage, str, str, Random], list[str]]] = {
    damage.__name__: damage
    for damage in (
        disk_full, read_only, lost_output, two_starts, signals, damaged_checkpoints, crafted_files
    )
}  # fmt: skip


# --- what may be found in a folder ------------------------------------------------------------------------


def _torn_table(folder: Path, outside: Path, random: Random) -> str:
    tables = [path for path in folder.glob("*.csv") if path.is_file()]
    end = random.choice(
        (b"7,1.0", b"\0" * 100, b"\xff\xfe,1\n", b'"', b'"\n', b"\n\n", b"99,a,b\n", b"\x1b[2J\n")
    )
    for path in tables:
        with path.open("ab") as file:
            file.write(end)
    return f"tables end with {end!r}"


def _odd_config(folder: Path, outside: Path, random: Random) -> str:
    text = random.choice(
        ("", "[1, 2]", BOMB, f"!!python/object/apply:os.system ['> {outside}']", "\0", "a: [")
    )
    with contextlib.suppress(OSError):
        (folder / "config.yaml").write_text(text)
    return f"config.yaml is {text!r}"


def _odd_lock(folder: Path, outside: Path, random: Random) -> str:
    text = random.choice(("", "{", "[]", '{"pid": "x"}', "\xff" * 5000, "[" * 5000))
    (folder / LOCK).write_text(text, "latin-1")
    return f"the lock is {text[:20]!r}"


def _link_out(folder: Path, outside: Path, random: Random) -> str:
    path = folder / random.choice(
        ("config.yaml", "metrics.csv", "report.html", LOCK, "config.yaml.incomplete")
    )
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        path.symlink_to(outside)
    return f"{path.name} is a link"


def _other_kind(folder: Path, outside: Path, random: Random) -> str:
    path = folder / random.choice(
        ("config.yaml", "metrics.csv", "samples", "report.html", "events.out.tfevents.1")
    )
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("")
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
    return f"{path.name} is of another kind"


def _odd_checkpoint(folder: Path, outside: Path, random: Random) -> str:
    newest = checkpoint_files(folder / "checkpoints")[-1]
    path = newest.with_name("step-99999999.safetensors")
    if random.random() < 0.3:
        path.write_bytes(random.choice((b"", b"junk", random.randbytes(1000), b"\xff" * 8 + b"{}")))
        return "a newest checkpoint of junk"
    with safe_open(newest, "pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if not key.startswith("crc32")}
    name = random.choice(sorted(metadata))
    metadata[name] = value = random.choice(("", "x", "[]", "{}", "null", "-1", "[" * 5000, '{"a": 1e400}'))
    save_file(load_file(newest), path, metadata)
    return f"a newest checkpoint whose {name} is {value[:20]!r}"


CRAFTS = (_torn_table, _odd_config, _odd_lock, _link_out, _other_kind, _odd_checkpoint)


# --- helpers ----------------------------------------------------------------------------------------------


def _reach(stage: Stage, recipe: str, run: Run, random: Random) -> None:
    """Waits for a random moment of the run."""
    phase, occurrence, seconds = stage.moment(recipe, random, PHASES)
    if run.reaches(phase, occurrence):
        run.goes_on(seconds)


def _kill_with_checkpoint(stage: Stage, recipe: str, name: str, random: Random) -> None:
    """A run that was killed after it had saved one, two or more checkpoints."""
    run = stage.start(recipe, name)
    run.reaches("checkpoint", random.choice((2, 4, 6)))  # two such phases a checkpoint
    run.kill()
    if run.ends() != -signal.SIGKILL:
        raise RuntimeError(f"{recipe} ended before it was killed: {_end_of(run)}")


def _end_of(run: Run) -> str:
    return f"exit code {run.code} in {run.phase}: {' | '.join(run.output.splitlines()[-12:])}"


def _set_modes(folder: Path, mode: int) -> None:
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        path.chmod(mode)


def _drop_rights() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


@contextlib.contextmanager
def _disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of the given number of bytes."""
    folder.mkdir()
    if os.getuid() != 0 or not _mount("-t", "tmpfs", "-o", f"size={size}", "none", str(folder)):
        raise Skipped
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
