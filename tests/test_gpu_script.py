"""`make gpu`'s script: phases that fail or hang, their report and their processes."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
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
    assert gpu.main(["build", "tests", "ops:5", "info"]) == 1
    output = capsys.readouterr().out
    lines = [line for line in output.splitlines() if line.split(" ")[0] in phases]
    assert lines[:4] == lines[4:], "each at its end, and all at last"
    assert [line.split()[1] for line in lines[:4]] == ["ok", "FAILED", "STOPPED", "ok"]
    assert "for sm_90" in lines[0] and "failed: tests, ops" in output
    log = (tmp_path / "gpu.log").read_text()
    assert all(text in log for text in ("seen", "the next one", "partial", "last"))
    assert gpu.main(["info"]) == 0


def test_an_unknown_phase_is_refused(gpu, capsys):
    assert gpu.main(["build", "everything"]) == 2
    assert "choose from build, info, tests, ops, recipes, stegastamp" in capsys.readouterr().err


def test_a_build_that_fails_is_made_without_cuda(gpu, tmp_path, monkeypatch, capsys):
    code = (
        "import os; cuda = os.environ['FASTGAN_CUDA']; print('CUDA ' + cuda); raise SystemExit(cuda == 'ON')"
    )
    monkeypatch.setattr(gpu, "build", lambda: [python(code)])
    monkeypatch.setattr(
        gpu, "PHASES", {"build": (gpu.build, 30), "info": (lambda: [python("print('last')")], 30)}
    )
    monkeypatch.delenv("FASTGAN_CUDA", raising=False)
    assert gpu.main([]) == 1
    *_, build, without, info, _ = capsys.readouterr().out.splitlines()
    assert "FAILED" in build and "CUDA ON" in build
    assert without.split()[:3] == ["build", "CPU", "ok"] and "CUDA OFF" in without and "last" in info


def test_a_script_that_is_ended_ends_what_it_started(tmp_path):
    pid = tmp_path / "pid"
    # Imported first by every Python process; in that of the phase, named by this variable of gpu.py, it
    # hangs.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, time\n"
        "if os.environ.get('PYTHONUNBUFFERED'):\n"
        f"    pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
    )
    changes = {"FASTGAN_GPU_OUTPUT": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | changes
    # A shell's background jobs ignore SIGINT, and with them what they start: that would wait for SIGKILL.
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "info"], env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not pid.exists() or not pid.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_command_that_wants_to_go_on_is_ended(gpu):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(python(stubborn), stdout=subprocess.PIPE, preexec_fn=os.setpgrp)
    process.stdout.readline()
    gpu.end(process)
    assert process.poll() == -signal.SIGKILL


def test_without_a_gpu_nothing_is_asked_of_one(gpu, monkeypatch):
    monkeypatch.delenv("FASTGAN_CUDA_ARCHS")
    monkeypatch.delenv("FASTGAN_CUDA", raising=False)
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "architecture", lambda: pytest.fail("asked"))
    monkeypatch.setattr(gpu, "PHASES", {"build": (lambda: [python("pass")], 30)})
    assert gpu.main([]) == 0


def test_every_phase_has_commands_that_are_understood(gpu, monkeypatch):
    pytest.importorskip("jsonargparse")
    pytest.importorskip("pytest_benchmark")
    from fastgan.bench import recipes, run, stegastamp
    from fastgan.cli import main

    class Understood(Exception):
        pass

    def stop(*arguments, **options):
        raise Understood

    monkeypatch.setenv("FASTGAN_PHOTOGRAPHS", "photographs")
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(run, "describe_machine", stop)
    monkeypatch.setattr(recipes, "describe_machine", stop)
    monkeypatch.setattr(stegastamp, "train", stop)
    for name, (commands, seconds) in gpu.PHASES.items():
        assert seconds > 0 and commands()
        for command in commands():
            assert command[0] == sys.executable
            if name in ("ops", "recipes", "stegastamp"):
                with pytest.raises(Understood):
                    main([*command[3:]])
