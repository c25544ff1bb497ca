"""`fastgan bench [op ...]`: runs the benchmarks, prints one table, writes one JSON of rows.

Each row has device, versions, commit and date. As soon as an op is measured, its rows replace that op's in
the file. If an op fails, that is reported, its rows stay, and the others are still measured.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from fastgan._arguments import Parser
from fastgan.bench.harness import MEMORY
from fastgan.bench.rows import conclude, merge_rows
from fastgan.training.measurement import describe_machine

FOLDER = Path(__file__).parent
# What names a case of a benchmark, which is measured in one or both states of memory.
CASE = ("op", "provider", "size", "mode")


def main(arguments: list[str]) -> int:
    import pytest_benchmark  # noqa: F401  (named by the error of an installation without it)

    if arguments[:1] == ["recipes"]:
        from fastgan.bench.recipes import main as bench_recipes

        return bench_recipes(arguments[1:])
    if arguments[:1] == ["demos"]:
        from fastgan.bench.demos import main as bench_demos

        return bench_demos(arguments[1:])
    if arguments[:1] == ["stegastamp"]:
        from fastgan.bench.stegastamp import main as bench_stegastamp

        return bench_stegastamp(arguments[1:])
    if arguments[:1] == ["verdicts"]:
        from fastgan.bench.verdicts import main as bench_verdicts

        return bench_verdicts(arguments[1:])
    if arguments[:1] == ["exchange"]:
        from fastgan.bench.exchange import main as bench_exchange

        return bench_exchange(arguments[1:])
    if arguments[:1] == ["scale"]:
        from fastgan.bench.scale import main as bench_scale

        return bench_scale(arguments[1:])
    if arguments[:1] == ["questions"]:
        from fastgan.bench.questions import main as bench_questions

        return bench_questions(arguments[1:])
    if arguments[:1] == ["stream"]:
        from fastgan.bench.stream import main as bench_stream

        return bench_stream(arguments[1:])
    if arguments[:1] == ["trainers"]:
        from fastgan.bench.trainers import main as bench_trainers

        return bench_trainers(arguments[1:])
    known = sorted(path.stem.removeprefix("bench_") for path in (FOLDER / "ops").glob("bench_*.py"))
    parser = Parser(
        prog="fastgan bench",
        description="Times every op against its peers, in one run. Also: `fastgan bench recipes`, `demos`, "
        "`stegastamp`, `verdicts`, `questions`, `exchange`, `scale`, `stream`, `trainers`.",
    )
    parser.add_argument("ops", nargs="*", metavar="op", help=f"{', '.join(known)}; default: all")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--memory", choices=[*MEMORY, "both"], default="both", help="what becomes of freed memory on the CPU"
    )
    parser.add_argument(
        "--quick", action="store_true",
        help="fewer rounds, and without what compiles for long, whose rows in the file stay",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, help="folder for <device name>.json; rows of other ops in it stay"
    )
    options = parser.parse_args(arguments)
    for op in options.ops:
        if op not in known:
            parser.error(f"no op {op!r} to measure, choose from {', '.join(known)}")

    states = MEMORY if options.memory == "both" else [options.memory]
    if options.device != "cpu":
        states = ["returned"]
    machine = describe_machine(options.device)
    measured, failed, path = 0, [], None
    for op in options.ops or known:
        rows = []
        cases: dict[tuple[str, ...], None] = {}
        for memory in states:
            finished, of_state, error = _run(op, options.device, memory, options.quick)
            rows += [row | machine for row in finished]
            cases |= dict.fromkeys(of_state)
            if error:
                print(error, flush=True)
                failed.append(op)
        if not rows:
            continue
        order = order_of(cases)
        rows.sort(key=order)
        print("\n".join([*(() if measured else header(rows[0])), *lines(rows)]), flush=True)
        measured += len(rows)
        if options.output:
            is_complete = not options.quick and options.memory == "both" and op not in failed
            keys = ("op",) if is_complete else (*CASE, "memory")
            path = merge_rows(rows, options.output, "", machine["device"], keys, order=order)
    if not measured and not failed:
        print(f"{', '.join(options.ops)} measures nothing with --memory {options.memory}")
        return 1
    return conclude(path, failed)


def order_of(cases: Iterable[tuple[str, ...]]) -> Callable[[dict], tuple[int, int]]:
    """A key that sorts an op's rows as its benchmark lists its cases, each with both states of memory.

    Rows of cases that the benchmark does not list (any more) come last. Rows of other ops compare as equal,
    so that a stable sort leaves their order.
    """
    places = {case: place for place, case in enumerate(cases)}
    ops = {case[0] for case in places}

    def key(row: dict) -> tuple[int, int]:
        if row["op"] not in ops:
            return 0, 0
        case = tuple(row[name] for name in CASE)
        return places.get(case, len(places)), MEMORY.index(row["memory"]) if row["memory"] else 0

    return key


def _run(
    op: str, device: str, memory: str, quick: bool
) -> tuple[list[dict], list[tuple[str, ...]], str | None]:
    """The rows of one op, all cases of its benchmark in their order, and a failure's output or None.

    Each op and memory state runs in its own process, since memory that one leaves in the allocator would
    change the times of the next.
    """
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        command = [
            sys.executable, "-m", "pytest", str(FOLDER / "ops" / f"bench_{op}.py"), f"--device={device}",
            f"--memory={memory}", "-q", "--no-header", f"--rootdir={FOLDER}", "--import-mode=importlib",
            "-p", "no:cacheprovider", "--benchmark-disable-gc", "--benchmark-columns=median",
            "--benchmark-quiet", f"--benchmark-json={report}", "-o", "python_files=bench_*.py",
            "-o", "addopts=", *(["--quick"] if quick else []),
        ]  # fmt: skip
        finished = subprocess.run(command, capture_output=True, text=True)
        # The report is empty or missing if everything failed or was skipped.
        text = report.read_text() if report.exists() else ""
        content = json.loads(text) if text else {"benchmarks": [], "cases": []}
        rows = [_row(entry) for entry in content["benchmarks"]]
        cases = [tuple(case) for case in content["cases"]]
        return rows, cases, None if finished.returncode == 0 else finished.stdout + finished.stderr


def _row(entry: dict) -> dict:
    row = dict(entry["extra_info"])
    seconds = sorted(row.pop("device_seconds", None) or entry["stats"]["data"])
    quantiles = statistics.quantiles(seconds, n=5)
    return {
        **row,
        "median_s": statistics.median(seconds),
        "p20_s": quantiles[0],
        "p80_s": quantiles[3],
    }


def header(row: dict) -> list[str]:
    """The lines above the rows of one run: machine, versions and columns."""
    return [
        f"{row['device']}, torch {row['torch']}, fastgan {row['fastgan']} ({row['commit']}), "
        f"copy {row['copy_gb_per_s']:.0f} GB/s",
        f"{'op':<8} {'mode':<8} {'size':<14} {'memory':<9} {'provider':<20} {'median ms':>9} "
        f"{'20%':>8} {'80%':>8} {'fastgan is':>11} {'x floor':>8} {'saved MB':>9} {'peak MB':>8} "
        + (f"{'host ms':>8}" if "host_s" in row else f"{'faults':>7} {'per pixel':>9}"),
    ]


def lines(rows: list[dict]) -> list[str]:
    """The rows of an op as text: milliseconds, fastgan's speedup, floor, megabytes; on the CPU page faults
    and the time per pixel relative to the op's first size, measured in turn; on a GPU the host's time.
    """
    text = []
    for row in rows:
        keys = ("op", "mode", "size", "memory")
        fused = next(
            (
                other["median_s"]
                for other in rows
                if other["provider"] == "fastgan" and all(other[key] == row[key] for key in keys)
            ),
            None,
        )
        saved = "" if row["saved_bytes"] is None else f"{row['saved_bytes'] / 1e6:.1f}"
        faster = "" if row["provider"] == "fastgan" or fused is None else f"{row['median_s'] / fused:.1f}x"
        if "host_s" in row:
            last = f"{row['host_s'] * 1e3:>8.3f}"
        else:
            scaling = f"{row['per_element_ratio']:.2f}x" if "per_element_ratio" in row else ""
            last = f"{row['page_faults']:>7.0f} {scaling:>9}"
        text.append(
            f"{row['op']:<8} {row['mode']:<8} {row['size']:<14} {row['memory'] or '':<9} "
            f"{row['provider']:<20} "
            f"{row['median_s'] * 1e3:>9.3f} {row['p20_s'] * 1e3:>8.3f} {row['p80_s'] * 1e3:>8.3f} "
            f"{faster:>11} {row['median_s'] / row['floor_s']:>8.2f} {saved:>9} "
            f"{row['peak_bytes'] / 1e6:>8.1f} {last}".rstrip()
        )
    return text
