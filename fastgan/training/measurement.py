"""What makes measurements comparable: enough rounds, and a record of device, versions and commit."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

import fastgan


def describe_machine(device: str) -> dict[str, str]:
    """Device ("cpu" or "cuda"), date, versions of fastgan, torch and Python, and the commit.

    FASTGAN_COMMIT gives the commit where there is no repository.
    """
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        name = f"{_cpu_model()} {torch.get_num_threads()} cores"
    return {
        "device": name,
        "date": datetime.date.today().isoformat(),
        "fastgan": fastgan.__version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def rounds_in(run: Callable[[], object], seconds: float, least: int = 100) -> int:
    """The number of runs that take about so many seconds, measured after a warm-up.

    The first dozens of runs of a sub-millisecond op wake threads and fill the allocator, and take twice as
    long as later ones; a fixed number of rounds would compare providers in different states.
    """
    begin = time.perf_counter()
    runs = 0
    while runs < 20 or time.perf_counter() - begin < seconds / 4:
        run()
        runs += 1
    return max(least, int(runs * seconds / (time.perf_counter() - begin)))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    if os.environ.get("FASTGAN_COMMIT"):
        return os.environ["FASTGAN_COMMIT"]
    return commit_of(Path(__file__).resolve().parents[2])


def commit_of(root: Path) -> str:
    """The commit of a repository, with "-dirty" if files other than the results themselves differ from it."""
    if not (root / ".git").exists():  # installed: a repository around it would be someone else's
        return "unknown"

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)

    try:
        name = git("describe", "--always", "--abbrev=12").stdout.strip()
        changed = git("diff", "--quiet", "HEAD", "--", ".", ":(exclude)benchmarks/results").returncode
    except OSError:
        return "unknown"
    return f"{name}-dirty" if name and changed else name or "unknown"
