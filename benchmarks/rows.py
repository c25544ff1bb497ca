"""Files of rows that measurements add to, and what is said at the end of one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


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
