"""Shared fixtures: devices to test on and real photographs."""

from __future__ import annotations

import gc
import importlib.util
from pathlib import Path

import pytest
import torch

# `make gpu` runs with the packages of that machine's Python, whereas `make test` installs everything.
FOR_RECIPES = (
    "bchlib", "fontTools", "hypothesis", "jsonargparse", "matplotlib", "numpy", "PIL",
    "safetensors", "skimage", "sklearn", "tensorboard", "torchmetrics", "torchvision", "tqdm", "yaml",
)  # fmt: skip
MISSING = [name for name in FOR_RECIPES if importlib.util.find_spec(name) is None]
# Ignore the folders themselves: otherwise pytest would still load their conftest.py.
NEED_RECIPES = [
    "recipes", "training", "monitor/test_look.py", "stress/test_junk_calls.py",
    "stress/test_failed_processes.py", "stress/test_training_runs.py", "test_bench.py",
    "test_bench_scale.py", "test_catalogue.py", "test_cli.py",
]  # fmt: skip
collect_ignore_glob = NEED_RECIPES if MISSING else []

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(20260714)


@pytest.fixture(autouse=True)
def _exact_on_gpus(request, monkeypatch):
    """Makes cuDNN exact and deterministic, for tolerances of float32 and reproducible bits.

    cuDNN's convolutions are TF32 by default, a thousand times less exact, and may add in any order.
    """
    if request.node.get_closest_marker("gpu"):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
        monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.fixture(scope="session")
def photographs() -> torch.Tensor:
    """Two real photographs, (2, 3, 300, 451) in [0, 1]: scikit-image's cat and coffee."""
    data = pytest.importorskip("skimage.data")
    images = [data.chelsea(), data.coffee()[:300, :451]]
    return torch.stack([torch.from_numpy(i).permute(2, 0, 1).float() / 255 for i in images])


def pytest_collection_finish():
    """Keeps garbage collections from going through all that was imported and collected, which lasts anyway.

    Where torch.compile traces, they took 13% of the time, and now 3%.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_report_header():
    if MISSING:
        return f"left out: tests of recipes, training and all that is public, which need {', '.join(MISSING)}"
    return None


def pytest_addoption(parser):
    parser.addoption(
        "--fast", action="store_true", help="leave out what tests/slow.txt lists (`make test-fast`)"
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--fast"):
        _leave_out_slow(config, items)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):  # not in item.keywords, which has folders' names, too
            item.add_marker(skip)


def _leave_out_slow(config, items):
    """Deselects the tests in tests/slow.txt: FILE is a whole file, FILE::NAME a test with all its cases."""
    lines = (Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").splitlines()
    slow = {line.split()[0] for line in lines if line and not line.startswith("#")}
    left_out = [item for item in items if not slow.isdisjoint(_names(item.nodeid))]
    items[:] = [item for item in items if slow.isdisjoint(_names(item.nodeid))]
    config.hook.pytest_deselected(items=left_out)


def _names(node):
    return {node.partition("::")[0], node.partition("[")[0]}
