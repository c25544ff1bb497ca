"""Writes tests/slow.txt, the tests that `make test-fast` skips, from the durations of the last `make test`.

`make test` writes the durations to build/tests.xml. The shortest tests are kept, as many as fit in BUDGET
seconds with WORKERS processes; a test with several cases is kept or skipped as a whole.
Usage: slow_tests.py [REPORT]
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
LIST = ROOT / "tests" / "slow.txt"
BUDGET = 180.0
WORKERS = 2
# Seconds for starting pytest, for collection, and for the last test of the longer process.
OVERHEAD = 40.0
HEADER = "# Left out by `make test-fast`: tests, or whole files, and the seconds that they took.\n"


def durations(report: Path) -> dict[str, float]:
    """Seconds per test function, summed over its cases, by FILE::NAME or FILE::CLASS::NAME."""
    seconds: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):
        parts = case.get("classname", "").split(".")
        # The longest prefix that is a module's file; the rest is a class.
        length = max(n for n in range(len(parts) + 1) if n == 0 or _file(parts[:n]).is_file())
        name = "::".join([_file(parts[:length]).relative_to(ROOT).as_posix(), *parts[length:], _name(case)])
        seconds[name] += float(case.get("time", 0))
    return dict(seconds)


def _file(parts: list[str]) -> Path:
    return ROOT.joinpath(*parts).with_suffix(".py") if parts else ROOT


def _name(case: ElementTree.Element) -> str:
    return case.get("name", "").partition("[")[0]


def slow(seconds: dict[str, float], budget: float) -> list[str]:
    """The longest tests that must be left out for the others to fit in the budget."""
    skipped, total = [], sum(seconds.values())
    for name in sorted(seconds, key=lambda name: -seconds[name]):
        if total <= budget:
            break
        skipped.append(name)
        total -= seconds[name]
    return sorted(skipped)


def main(arguments: list[str]) -> int:
    report = Path(arguments[0]) if arguments else ROOT / "build" / "tests.xml"
    if not report.is_file():
        print(f"{report} is not there: `make test` writes it")
        return 1
    seconds = durations(report)
    names = slow(seconds, (BUDGET - OVERHEAD) * WORKERS)
    LIST.write_text(HEADER + "".join(f"{name} {seconds[name]:.1f}\n" for name in names), encoding="utf-8")
    kept = sum(seconds.values()) - sum(seconds[name] for name in names)
    print(f"{len(names)} of {len(seconds)} tests are slow; the others took {kept:.0f} s of one process")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
