"""`make gpu`'s script: phases that fail or hang, and what is said of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "gpu.py"


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_GPU_OUTPUT", str(tmp_path))
    monkeypatch.setenv("FASTGAN_CUDA_ARCHS", "90")
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "GRACE_SECONDS", 1)
    return module


def python(code):
    return (sys.executable, "-c", code)


def test_phases_go_on_after_failures_and_hangs(gpu, tmp_path, monkeypatch, capsys):
    hangs = "import time; print('partial', flush=True); time.sleep(60)"
    phases = {
        "build": [python("import os; print('for sm_' + os.environ['FASTGAN_CUDA_ARCHS'])")],
        "tests": [python("print('seen'); raise SystemExit(3)"), python("print('the next one')")],
        "ops": [python(hangs)],
        "info": [python("print('last')")],
    }
    monkeypatch.setattr(gpu, "PHASES", {name: (lambda c=c: c, 30) for name, c in phases.items()})
    assert gpu.main(["build", "tests", "ops:1", "info"]) == 1
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.split(" ")[0] in phases]
    assert [line.split()[1] for line in lines] == ["ok", "FAILED", "STOPPED", "ok"]
    assert "for sm_90" in lines[0] and "failed: tests, ops" in said
    log = (tmp_path / "gpu.log").read_text()
    assert all(text in log for text in ("seen", "the next one", "partial", "last"))
    assert gpu.main(["info"]) == 0


def test_an_unknown_phase_is_refused(gpu, capsys):
    assert gpu.main(["build", "everything"]) == 2
    assert "choose from build, info, tests, ops, recipes, stegastamp" in capsys.readouterr().err


def test_every_phase_has_commands(gpu):
    for commands, seconds in gpu.PHASES.values():
        assert seconds > 0 and all(all(isinstance(part, str) for part in c) for c in commands())
