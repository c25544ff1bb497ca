"""`fastgan bench`: results, failures, and times of a GPU's clock and profiler."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.autograd import DeviceType

pytest.importorskip("jsonargparse")
pytest.importorskip("pytest_benchmark")

from fastgan.bench import demos, harness, recipes, run
from fastgan.cli import main
from fastgan.recipes.stegastamp.recipe import StegaStamp
from fastgan.training import measurement
from tests.processes import ROOT

GPU_ROW = {
    "op": "blur", "provider": "fastgan", "size": "1", "mode": "full", "memory": None, "floor_s": 1e-3,
    "copy_gb_per_s": 3000.0, "saved_bytes": None, "peak_bytes": 8, "host_s": 2e-3, "median_s": 4e-3,
    "p20_s": 3e-3, "p80_s": 5e-3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _outside_of_xdist(monkeypatch):
    """pytest-benchmark measures nothing in a process that it takes for an xdist worker."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gpu(monkeypatch):
    """Fakes the description of a machine with a GPU."""
    report = {"device": "GPU", "torch": "2", "fastgan": "0", "commit": "c", "date": "d", "python": "3"}
    for module in (run, demos, recipes):
        monkeypatch.setattr(module, "describe_machine", lambda device: report)


def test_every_op_is_written_before_the_next_one_and_failures_are_told(tmp_path, monkeypatch, gpu, capsys):
    calls = []

    def measured(op, device, memory, quick):
        (before,) = [*tmp_path.glob("*.json"), None][:1]
        calls.append(len(json.loads(before.read_text())) if before else 0)
        if op == "jpeg":
            return [], [], "out of memory"
        return [GPU_ROW | {"op": op}, GPU_ROW | {"op": op, "provider": "eager"}], [], None

    monkeypatch.setattr(run, "_run", measured)
    arguments = ["bench", "blur", "jpeg", "r1", "--device", "cuda", "--output", str(tmp_path)]
    assert main(arguments) == 1
    assert calls == [0, 2, 2]
    text = capsys.readouterr().out
    assert "out of memory" in text and "failed: jpeg" in text and "host ms" in text and "faults" not in text
    assert {row["op"] for row in json.loads((tmp_path / "gpu.json").read_text())} == {"blur", "r1"}


def test_a_quick_run_leaves_the_rows_that_it_does_not_measure(tmp_path, monkeypatch, gpu):
    rows = [GPU_ROW, GPU_ROW | {"provider": "compiled"}]
    monkeypatch.setattr(run, "_run", lambda op, device, memory, quick: (rows[: 1 if quick else 2], [], None))
    for quick in ([], ["--quick"]):
        assert main(["bench", "blur", "--device", "cuda", "--output", str(tmp_path), *quick]) == 0
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert {row["provider"] for row in written} == {"fastgan", "compiled"}
    with pytest.raises(SystemExit):
        main(["bench", "nothing"])


def test_rows_stand_in_the_order_of_the_benchmarks_cases_however_they_came(tmp_path, monkeypatch, gpu):
    cases = [
        ("blur", provider, size, mode)
        for size, provider, mode in itertools.product("21", ("fastgan", "eager"), ("full", "forward"))
    ]
    in_order = [
        GPU_ROW | run.describe_machine("cpu") | dict(zip(run.CASE, case, strict=True)) | {"memory": memory}
        for case, memory in itertools.product(cases, run.MEMORY)
    ]
    unknown = GPU_ROW | {"size": "3", "memory": "kept"}
    others = [GPU_ROW | {"op": "jpeg", "size": size, "memory": "kept"} for size in "31"]
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps([*others, unknown]))
    some = in_order[5::3]
    for measured in (in_order[::-1], some):
        monkeypatch.setattr(
            run, "_run", lambda op, device, memory, quick, rows=measured: (
                [row for row in rows if row["memory"] == memory], cases, None
            ),
        )  # fmt: skip
        assert main(["bench", "blur", "--quick", "--output", str(tmp_path)]) == 0
        assert json.loads(path.read_text()) == [*in_order, unknown, *others]


def test_rows_that_could_not_be_measured_again_stay(tmp_path, monkeypatch, gpu):
    rows = [
        GPU_ROW | {"memory": memory, "provider": p} for memory in run.MEMORY for p in ("fastgan", "theirs")
    ]
    fails = False

    def measured(op, device, memory, quick):
        rows_of_state = [row | {"commit": fails} for row in rows if row["memory"] == memory]
        return (rows_of_state[:1], [], "no such attribute") if fails else (rows_of_state, [], None)

    monkeypatch.setattr(run, "_run", measured)
    arguments = ["bench", "blur", "--output", str(tmp_path)]
    assert main(arguments) == 0
    fails = True
    assert main(arguments) == 1
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert len(written) == 4
    monkeypatch.setattr(run, "_run", lambda op, device, memory, quick: (rows[:2], [], None))
    assert main([*arguments, "--memory", "returned"]) == 0
    assert len(json.loads((tmp_path / "gpu.json").read_text())) == 4


def test_ops_are_measured_in_processes_of_their_own(tmp_path, monkeypatch, capsys):
    measurements, measure = [], run._run

    def kept(*options):
        measurements.append(measure(*options))
        return measurements[-1]

    monkeypatch.setattr(run, "_run", kept)
    arguments = ["bench", "adversarial", "--quick", "--memory", "returned", "--output", str(tmp_path)]
    assert main(arguments) == 0
    (path,) = tmp_path.glob("*.json")
    rows = json.loads(path.read_text())
    assert {"fastgan", "eager"} <= {row["provider"] for row in rows}
    assert not any("compiled" in row["provider"] for row in rows)
    _, cases, _ = measurements[0]
    assert {"fastgan", "eager", "compiled"} <= {provider for _, provider, _, _ in cases}
    for row in rows:
        assert 0 < row["p20_s"] <= row["median_s"] <= row["p80_s"] < 1 and row["floor_s"] > 0
    assert "fastgan is" in capsys.readouterr().out


def test_a_row_of_a_gpu_has_the_times_of_its_events():
    report = {"op": "blur", "device_seconds": [3.0, 1.0, 2.0], "host_s": 5.0}
    row = run._row({"extra_info": report, "stats": {"data": [9.0]}})
    assert row == {"op": "blur", "host_s": 5.0, "median_s": 2.0, "p20_s": 0.8, "p80_s": 3.2}


def test_a_failing_recipe_or_demo_does_not_stop_the_others(tmp_path, monkeypatch, gpu, capsys):
    row = {
        "recipe": "dcgan", "preset": "demo", "precision": "32-true", "provider": "fastgan", "mean_s": 1.0,
        "p20_s": 1.0, "p80_s": 1.0, "parts": {},
    }  # fmt: skip

    def measure(name, options):
        if name == "dcgan":
            raise RuntimeError("no memory for dcgan")
        return [row | {"recipe": name}]

    monkeypatch.setattr(recipes, "measure", measure)
    assert main(["bench", "recipes", "--device", "cuda", "--output", str(tmp_path)]) == 1
    assert len(json.loads((tmp_path / "recipes-gpu.json").read_text())) == len(recipes.RECIPES) - 1
    printed = capsys.readouterr()
    assert "no memory for dcgan" in printed.err and "failed: dcgan" in printed.out

    def trained(recipe, preset, options):
        figures = {"minutes": 1.0, "figures": {}, "warnings": [], "verdicts": []}
        return None if recipe == "dcgan" else {"recipe": recipe, "preset": preset, **figures}

    monkeypatch.setattr(demos, "_run", trained)
    assert main(["bench", "demos", "--output", str(tmp_path)]) == 1
    assert len(json.loads((tmp_path / "demos-gpu.json").read_text())) == 3


def test_a_gpu_is_busy_while_the_host_issues_what_is_timed(monkeypatch):
    clock = SimpleNamespace(host=0.0, device=0.0)

    class Event:
        def __init__(self, enable_timing):
            pass

        def record(self):  # when the device reaches it
            self.time = clock.device = max(clock.device, clock.host)

        def synchronize(self):
            clock.host = max(clock.host, self.time)

        def elapsed_time(self, end):
            return 1e3 * (end.time - self.time)

    def fill(self):
        clock.device = max(clock.device, clock.host) + 0.001

    def run():
        for _ in range(3):
            clock.host += 0.002
            clock.device = max(clock.device, clock.host) + 0.0005

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=64))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(harness.DeviceTimer, "_fill", fill)
    monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=lambda: clock.host))
    on_device, host = harness.DeviceTimer("cpu").times(run, 4)
    assert on_device == pytest.approx([0.0015] * 4) and host == pytest.approx([0.006] * 4)


def test_parts_of_a_step_on_a_gpu_are_of_its_time():
    def event(key, device, cpu, gpu, label=True):
        return SimpleNamespace(
            key=key, device_type=device, cpu_time_total=cpu, device_time_total=gpu, is_user_annotation=label
        )

    cpu, cuda = DeviceType.CPU, DeviceType.CUDA
    events = [
        event("step", cpu, 100, 5), event("step", cuda, 0, 50), event("part", cpu, 90, 1),
        event("part", cuda, 0, 10), event("fastgan::jpeg", cpu, 1, 5, False),
        event("kernel", cuda, 0, 5, False),
    ]  # fmt: skip
    profiler = SimpleNamespace(key_averages=lambda: events)
    assert recipes._shares(profiler, "cuda") == {"parts": {"part": 0.2}, "ops": {"jpeg": 0.1}}
    profiler = SimpleNamespace(key_averages=lambda: [e for e in events if e.device_type == cpu])
    assert recipes._shares(profiler, "cpu") == {"parts": {"part": 0.9}}
    # Without permission to profile the GPU.
    assert recipes._shares(profiler, "cuda") == {"parts": {}, "ops": {}}


def test_the_commit_of_a_copy_is_named_by_the_environment(monkeypatch):
    monkeypatch.setenv("FASTGAN_COMMIT", "abc")
    assert measurement.describe_machine("cpu")["commit"] == "abc"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
def test_the_commit_is_found_through_links(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTGAN_COMMIT", raising=False)
    (tmp_path / "fastgan").symlink_to(ROOT / "fastgan", target_is_directory=True)  # as editable installs have
    monkeypatch.setattr(measurement, "__file__", str(tmp_path / "fastgan" / "training" / "measurement.py"))
    assert measurement.describe_machine("cpu")["commit"] == measurement.commit_of(ROOT) != "unknown"


def test_results_alone_make_no_commit_dirty(tmp_path):
    assert measurement.commit_of(tmp_path) == "unknown"

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    rows, code = tmp_path / "benchmarks" / "results" / "cpu.json", tmp_path / "code.py"
    rows.write_text("[]")
    code.write_text("")
    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    clean = measurement.commit_of(tmp_path)
    assert len(clean) == 12
    rows.write_text("[1]")
    assert measurement.commit_of(tmp_path) == clean
    code.write_text("pass")
    assert measurement.commit_of(tmp_path) == f"{clean}-dirty"


def test_steps_of_a_recipe_are_timed_with_their_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = {"recipe": "other", "preset": "demo", "precision": "32-true"}
    for _ in range(2):
        assert main(["bench", "recipes", "dcgan", "--steps", "2", "--output", str(tmp_path)]) == 0
        (path,) = tmp_path.glob("recipes-*.json")
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([*(row for row in rows if row["recipe"] != "other"), other]))
    assert [row.get("provider") for row in rows] == [*recipes.PROVIDERS, None]
    for row in rows[:-1]:
        assert row["steps"] == 2 and row["mean_s"] > 0 and row["batch_size"] == 64
        assert {"discriminator_step", "generator_step"} <= row["parts"].keys()
        assert all(0 < share <= 1 for share in row["parts"].values())
        assert row["device"] and row["torch"] and row["commit"]
    table = capsys.readouterr().out
    assert "dcgan" in table and "generator_step" in table


def test_stegastamps_measurement_leaves_other_runs_alone(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metrics.csv").write_text("step")
    assert main(["bench", "stegastamp", "--runs_path", str(tmp_path), "--exp_name", "mine"]) == 1
    assert "mine already holds a run" in capsys.readouterr().err
    assert (tmp_path / "mine" / "metrics.csv").read_text() == "step"


SMALL_STEGASTAMP = (
    "--steps", "2", "--image_size", "32", "--secret_size", "8", "--batch_size", "2", "--val_images", "2",
    "--precision", "32-true",
)  # fmt: skip


def test_stegastamp_is_trained_for_its_minutes_evaluated_and_timed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = ("--output", str(tmp_path), "--runs_path", str(tmp_path / "runs"))
    assert main(["bench", "stegastamp", "--minutes", "0.05", *folders, *SMALL_STEGASTAMP]) == 0
    (path,) = tmp_path.glob("stegastamp-*.json")
    report = json.loads(path.read_text())
    assert {"bit_acc_clean", "bit_acc_jpeg_50", "psnr", "parts_fastgan"} <= report.keys()
    assert report["settings"]["image_size"] == 32 and report["step"] >= 1 and report["minutes"] > 0
    assert (
        report["settings"]["val_path"] == "builtin:photographs/val" and str(tmp_path) not in path.read_text()
    )
    for name in ("fastgan", "reference", "in_training"):
        assert report[f"steps_per_second_{name}"] > 0
    assert len(list(tmp_path.glob("stegastamp-*.jpg"))) == 1
    with pytest.raises(SystemExit):
        main(["bench", "stegastamp", "--minutes", "0"])


def test_stegastamp_that_is_stopped_leaves_what_it_has(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine").mkdir()
    for name in ("one", "two", "three"):
        Image.new("RGB", (40, 40), "teal").save(tmp_path / "mine" / f"{name}.png")
    (tmp_path / "held").mkdir()
    Image.new("RGB", (40, 40), "olive").save(tmp_path / "held" / "out.png")
    evaluated, calls = StegaStamp.evaluate, []

    def stopped_there(recipe):
        if not calls:
            os.kill(os.getpid(), signal.SIGINT)
        calls.append(recipe)
        return evaluated(recipe)

    monkeypatch.setattr(StegaStamp, "evaluate", stopped_there)
    options = ("--output", str(tmp_path), "--runs_path", str(tmp_path / "runs"), "--eval_interval", "1")
    mine = ("--train_path", str(tmp_path / "mine"))
    assert main(["bench", "stegastamp", "--minutes", "5", *options, *mine, *SMALL_STEGASTAMP]) == 1
    assert "stopped after step" in capsys.readouterr().out
    (path,) = tmp_path.glob("stegastamp-*.json")
    report = json.loads(path.read_text())
    assert "bit_acc_clean" in report and report["settings"]["train_path"] == "mine"
    assert report["settings"]["val_path"] == "" and str(tmp_path) not in path.read_text()
    calls.clear()
    held_out = ("--val_path", str(tmp_path / "held"))
    assert main(["bench", "stegastamp", *options, *mine, *held_out, *SMALL_STEGASTAMP]) == 1
    assert json.loads(path.read_text())["settings"]["val_path"] == "held"
    calls.clear()
    held_out = ("--val_path", "builtin:photographs/val")
    assert main(["bench", "stegastamp", *options, *mine, *held_out, *SMALL_STEGASTAMP]) == 1
    assert json.loads(path.read_text())["settings"]["val_path"] == "builtin:photographs/val"


def test_bench_trainers_names_clones_that_are_missing_and_trainers_that_it_does_not_know(tmp_path, capsys):
    assert run.main(["trainers", str(tmp_path), "zi2zi"]) == 1
    assert f"failed: zi2zi (no {tmp_path / 'zi2zi-pytorch'})" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run.main(["trainers", str(tmp_path), "unknown"])
    assert "no trainer 'unknown', choose from StarGAN v2" in capsys.readouterr().err
