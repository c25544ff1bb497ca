"""What a measurement must carry to mean anything: device, versions, commit."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import fastgan


def describe_machine(device: str) -> dict[str, str]:
    """Device ("cpu" or "cuda"), date, versions of fastgan, torch and Python, and the commit.

    FASTGAN_COMMIT names the commit of a copy without its repository.
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


def merge_rows(
    rows: list[dict[str, Any]], folder: Path, kind: str, device: str, keys: tuple[str, ...]
) -> Path:
    """Writes rows to folder/KIND-DEVICE.json, where those of other `keys` stay; returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file_name(kind, device)}.json"
    before = json.loads(path.read_text()) if path.exists() else []
    measured = {tuple(row[key] for key in keys) for row in rows}
    kept = [row for row in before if tuple(row[key] for key in keys) not in measured]
    path.write_text(
        json.dumps(sorted(rows + kept, key=lambda row: [row[key] for key in keys]), indent=1) + "\n"
    )
    return path


def conclude(path: Path | None, failed: Iterable[str]) -> int:
    """Says where rows were written and what failed, each once; returns the exit status."""
    failed = list(dict.fromkeys(failed))
    if path:
        print(f"\nwritten to {path}")
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


def file_name(kind: str, device: str) -> str:
    """Without its ending: KIND-DEVICE, or DEVICE for no kind."""
    name = "".join(c if c.isalnum() else "-" for c in device.lower()).strip("-")
    return f"{kind}-{name}" if kind else name


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    if os.environ.get("FASTGAN_COMMIT"):
        return os.environ["FASTGAN_COMMIT"]
    return commit_of(Path(__file__).resolve().parent.parent)  # resolve: `fastgan/bench` may be a link


def commit_of(root: Path) -> str:
    """The commit of a repository, "-dirty" where files differ from it, but for the results themselves."""
    if not (root / ".git").exists():  # installed: the commit around us would be somebody else's
        return "unknown"

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)

    try:
        name = git("describe", "--always", "--abbrev=12").stdout.strip()
        changed = git("diff", "--quiet", "HEAD", "--", ".", ":(exclude)benchmarks/results").returncode
    except OSError:
        return "unknown"
    return f"{name}-dirty" if name and changed else name or "unknown"
