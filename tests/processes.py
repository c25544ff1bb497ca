"""Runs scripts in separate processes, one or several that communicate by gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Ends a script that has its own process group without Python's clean-up: what holds the group, as a
# DistributedDataParallel module does, keeps gloo's threads alive, and Python aborts if one of them releases
# tensors then (pytorch#38228).
LEAVE = """
import os, sys, torch.distributed
torch.distributed.destroy_process_group()
sys.stdout.flush(), sys.stderr.flush(), os._exit(0)
"""


def run_script(source: str, folder: Path, *arguments: object, processes: int = 1) -> None:
    """Runs the source in the repository's root; fails with its stderr."""
    script = folder / "run.py"
    script.write_text(source + LEAVE if "init_process_group(" in source else source)
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    finished = subprocess.run(
        [*launcher, str(script), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]


FORKING = """
import os, sys, traceback, torch

for program in sys.argv[1:]:
    if os.fork() == 0:
        with open(f"{program}.out", "w") as file:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        try:
            exec(compile(open(program).read(), program, "exec"), {"__name__": "__main__"})
        except BaseException as error:
            if not isinstance(error, SystemExit) or error.code:
                traceback.print_exc()
                sys.stderr.flush(), os._exit(1)
        sys.stdout.flush(), os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def in_forks(programs: Sequence[str], folder: Path) -> list[tuple[int, str]]:
    """Exit code and output of each program, run by a fork of a process that has imported torch and no more.

    Importing torch takes most of the time of a short program.
    """
    files = [folder / f"program-{number}.py" for number in range(len(programs))]
    for file, program in zip(files, programs, strict=True):
        file.write_text(program)
    finished = subprocess.run(
        [sys.executable, "-c", FORKING, *map(str, files)], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    codes = map(int, finished.stdout.split())
    return [(code, Path(f"{file}.out").read_text()) for code, file in zip(codes, files, strict=True)]
