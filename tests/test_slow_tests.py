"""`make test-fast`: the tests that it leaves out, and how tools/slow_tests.py determines them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from tests.processes import ROOT

spec = importlib.util.spec_from_file_location("slow_tests", ROOT / "tools" / "slow_tests.py")
assert spec and spec.loader
slow_tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(slow_tests)

REPORT = """<testsuites><testsuite>
<testcase classname="tests.ops.test_blur" name="test_a[1-2]" time="2.5" />
<testcase classname="tests.ops.test_blur" name="test_a[3.5]" time="1.0" />
<testcase classname="tests.test_cli.TestHelp" name="test_b" time="0.5" />
</testsuite></testsuites>"""


def test_cases_of_a_test_count_together(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text(REPORT)
    assert slow_tests.durations(report) == {
        "tests/ops/test_blur.py::test_a": 3.5, "tests/test_cli.py::TestHelp::test_b": 0.5,
    }  # fmt: skip


def test_the_longest_are_left_out():
    seconds = {"a": 1.0, "b": 30.0, "c": 5.0, "d": 10.0}
    assert slow_tests.slow(seconds, 20) == ["b"]
    assert slow_tests.slow(seconds, 6) == ["b", "d"]
    assert slow_tests.slow(seconds, 100) == []


def listed():
    lines = slow_tests.LIST.read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if not line.startswith("#")]


def test_what_is_left_out_exists():
    names = listed()
    assert names == sorted(set(names))
    for name in names:
        file, _, test = name.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or f"def {test.rpartition('::')[2]}(" in text, name


def test_fast_tests_are_the_others():
    slow, fast = listed()[0], "tests/test_slow_tests.py::test_the_longest_are_left_out"
    files = {name.partition("::")[0] for name in (slow, fast)}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--fast", "-p", "no:cacheprovider"]
    collected = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True).stdout
    tests = {line.partition("[")[0] for line in collected.splitlines() if "::" in line}
    assert fast in tests and slow not in tests and "deselected" in collected
    assert tests.isdisjoint(listed())
