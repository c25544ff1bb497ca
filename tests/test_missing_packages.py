"""Without the recipes' packages the remaining tests are still collected, as `make gpu` requires."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import FOR_RECIPES, NEED_RECIPES

TESTS = Path(__file__).parent
# docs/gpu.md: what tests of ops need, too.
ALWAYS_THERE = {"hypothesis", "numpy", "PIL", "skimage"}
COLLECT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "tests"]))
"""


def test_the_rest_of_the_tests_is_collected_without_them():
    missing = [name for name in FOR_RECIPES if name not in ALWAYS_THERE]
    collected = subprocess.run(
        [sys.executable, "-c", COLLECT, ",".join(missing)], cwd=TESTS.parent, capture_output=True, text=True
    )
    assert collected.returncode == 0, collected.stdout[-3000:] + collected.stderr[-1000:]
    actual = {line.partition("::")[0] for line in collected.stdout.splitlines() if "::" in line}
    assert not [file for file in actual for part in NEED_RECIPES if file.startswith(f"tests/{part}")]
    assert {"tests/ops/test_blur.py", "tests/stress/test_valid_calls.py"} <= actual
