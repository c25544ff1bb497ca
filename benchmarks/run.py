"""`fastgan bench [op]`: runs the benchmarks, prints one table, writes one JSON of rows.

Each row carries device, versions, commit and date. The rows of one op replace only that op's in the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from fastgan.bench.harness import MEMORY
from fastgan.bench.machine import describe_machine, merge_rows

FOLDER = Path(__file__).parent


def main(arguments: list[str]) -> int:
    import pytest_benchmark  # noqa: F401  (named by the error of an installation without it)

    if arguments[:1] == ["recipes"]:
        from fastgan.bench.recipes import main as bench_recipes

        return bench_recipes(arguments[1:])
    if arguments[:1] == ["demos"]:
        from fastgan.bench.demos import main as bench_demos

        return bench_demos(arguments[1:])
    known = sorted(path.stem.removeprefix("bench_") for path in (FOLDER / "ops").glob("bench_*.py"))
    parser = argparse.ArgumentParser(
        prog="fastgan bench",
        description="Times every op against its peers, in one run. Also: `fastgan bench recipes`, `demos`.",
    )
    parser.add_argument("op", nargs="?", choices=known, help="default: all")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--memory", choices=[*MEMORY, "both"], default="both", help="what becomes of freed memory on the CPU"
    )
    parser.add_argument(
        "--output", type=Path, help="folder for <device name>.json; rows of other ops in it stay"
    )
    options = parser.parse_args(arguments)

    states = MEMORY if options.memory == "both" else [options.memory]
    if options.device != "cpu":
        states = ["returned"]
    rows = []
    for op in [options.op] if options.op else known:
        for memory in states:
            finished = _run(op, options.device, memory)
            if isinstance(finished, str):
                print(finished)
                return 1
            rows += finished
    if not rows:
        print(f"{options.op} measures nothing with --memory {options.memory}")
        return 1
    machine = describe_machine(options.device)
    rows = [row | machine for row in rows]
    print(table(rows))
    if options.output:
        path = merge_rows(rows, options.output, "", machine["device"], ("op",))
        print(f"\nwritten to {path}")
    return 0


def _run(op: str, device: str, memory: str) -> list[dict] | str:
    """The rows of one op, or what went wrong.

    Each op and state of memory gets a process of its own: what one leaves in the allocator would change the
    next one's times.
    """
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        command = [
            sys.executable, "-m", "pytest", str(FOLDER / "ops" / f"bench_{op}.py"), f"--device={device}",
            f"--memory={memory}", "-q", "--no-header", f"--rootdir={FOLDER}", "--import-mode=importlib",
            "-p", "no:cacheprovider", "--benchmark-disable-gc", "--benchmark-columns=median",
            "--benchmark-quiet", f"--benchmark-json={report}", "-o", "python_files=bench_*.py",
            "-o", "addopts=",
        ]  # fmt: skip
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode != 0:
            return finished.stdout + finished.stderr
        if not report.exists():  # all of it was skipped
            return []
        return [_row(entry) for entry in json.loads(report.read_text())["benchmarks"]]


def _row(entry: dict) -> dict:
    seconds = sorted(entry["stats"]["data"])
    quantiles = statistics.quantiles(seconds, n=5)
    return {
        **entry["extra_info"],
        "median_s": statistics.median(seconds),
        "p20_s": quantiles[0],
        "p80_s": quantiles[3],
    }


def table(rows: list[dict]) -> str:
    """The rows of one run as text: milliseconds, how much faster fastgan is, floor, megabytes, page faults,
    and the time per pixel against the op's first size, taken in turn.
    """
    lines = [
        f"{rows[0]['device']}, torch {rows[0]['torch']}, fastgan {rows[0]['fastgan']} ({rows[0]['commit']}), "
        f"copy {rows[0]['copy_gb_per_s']:.0f} GB/s",
        f"{'op':<8} {'mode':<8} {'size':<14} {'memory':<9} {'provider':<20} {'median ms':>9} "
        f"{'20%':>8} {'80%':>8} {'fastgan is':>11} {'x floor':>8} {'saved MB':>9} {'peak MB':>8} "
        f"{'faults':>7} {'per pixel':>9}",
    ]
    for row in rows:
        ours = next(
            other["median_s"]
            for other in rows
            if other["provider"] == "fastgan"
            and all(other[key] == row[key] for key in ("op", "mode", "size", "memory"))
        )
        scaling = f"{row['per_element_ratio']:.2f}x" if "per_element_ratio" in row else ""
        saved = "" if row["saved_bytes"] is None else f"{row['saved_bytes'] / 1e6:.1f}"
        faster = "" if row["provider"] == "fastgan" else f"{row['median_s'] / ours:.1f}x"
        lines.append(
            f"{row['op']:<8} {row['mode']:<8} {row['size']:<14} {row['memory'] or '':<9} "
            f"{row['provider']:<20} "
            f"{row['median_s'] * 1e3:>9.3f} {row['p20_s'] * 1e3:>8.3f} {row['p80_s'] * 1e3:>8.3f} "
            f"{faster:>11} {row['median_s'] / row['floor_s']:>8.2f} {saved:>9} "
            f"{row['peak_bytes'] / 1e6:>8.1f} {row['page_faults']:>7.0f} {scaling:>9}".rstrip()
        )
    return "\n".join(lines)
