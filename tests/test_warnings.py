"""Every warning refers to the line of the caller's program, whatever the call path."""

import ast
import importlib
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fastgan
from fastgan import ops
from fastgan._warnings import warn
from fastgan.losses import BinaryLoss, PerceptualLoss, YUVColorL2, _input_gradient, r1_penalty
from fastgan.ops import _library, squared_norm
from fastgan.ops._dispatch import _warned

ROOT = Path(fastgan.__file__).parent.parent


def calls_of_warn():
    """`FILE::FUNCTION` of each call in the package."""
    actual = set()
    for path in sorted([*ROOT.glob("fastgan/**/*.py"), *ROOT.glob("kernels/**/*.py")]):
        name = path.relative_to(ROOT).as_posix()

        def visit(node, function, name=name):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                function = f"{function}.{node.name}" if function else node.name
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("warn", "_warnings.warn", "warnings.warn", "warnings.warn_explicit"):
                    actual.add(f"{name}::{function}" if called.endswith("warn") else f"{name}::{called}")
                    assert called == "warn" or name == "fastgan/_warnings.py", f"{name} calls {called}"
            for child in ast.iter_child_nodes(node):
                visit(child, function)

        visit(ast.parse(path.read_text()), "")
    return actual - {"fastgan/_warnings.py::warnings.warn_explicit"}


def no_kernel(monkeypatch, tmp_path):
    monkeypatch.setattr(_library, "cpu_missing", "_C was not built")
    monkeypatch.setattr(ops._dispatch, "_warned", set())
    squared_norm(torch.rand(2, 3))


def wrong_range(monkeypatch, tmp_path):
    pytest.importorskip("torchvision")
    PerceptualLoss((3,), weights=None)(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))


def grossly_wrong_range(monkeypatch, tmp_path):
    YUVColorL2()(255 * torch.rand(1, 3, 32, 32), 255 * torch.rand(1, 3, 32, 32))


def half_logits(monkeypatch, tmp_path):
    monkeypatch.setattr(_input_gradient, "_warned", set())
    x = torch.rand(2, 3, requires_grad=True)
    r1_penalty(x.sum(1).bfloat16(), x)


def probabilities(monkeypatch, tmp_path):
    loss, values = BinaryLoss(True), torch.linspace(0.1, 0.9, 64)
    for _ in range(3):
        loss(values)


def unusable_image(monkeypatch, tmp_path):
    data = pytest.importorskip("fastgan.training.data")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="1 of 1 images"):
        data.ImageFolder([tmp_path / "broken.png"], (8, 8)).sample(0)


def unusable_held_out_image(monkeypatch, tmp_path):
    evaluation = pytest.importorskip("fastgan.recipes.enhancenet.evaluation")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 1"):
        evaluation.read_held_out([tmp_path / "broken.png"], 1, 4, 0)


def damaged_checkpoint(monkeypatch, tmp_path):
    toy = pytest.importorskip("tests.training.toy")
    config = toy.ToyConfig(runs_path=str(tmp_path), num_steps=2, checkpoint_interval=1, accelerator="cpu")
    folder = importlib.import_module("fastgan.training.loop").train(toy.Toy, config) / "checkpoints"
    (folder / "step-00000002.safetensors").write_bytes(b"cut")
    importlib.import_module("fastgan.training.checkpoint").load_checkpoint(folder)


def no_whole_checkpoint(monkeypatch, tmp_path):
    toy = pytest.importorskip("tests.training.toy")
    model_files = importlib.import_module("fastgan.training.model_files")
    config = toy.ToyConfig(runs_path=str(tmp_path), num_steps=1, accelerator="cpu")
    folder = importlib.import_module("fastgan.training.loop").train(toy.Toy, config)
    for checkpoint in (folder / "checkpoints").glob("step-*.safetensors"):
        checkpoint.write_bytes(b"cut")
    (folder / model_files.FILE_NAME).touch()
    monkeypatch.setattr(model_files, "_read_file", lambda path, recipe: SimpleNamespace(recipe=recipe))
    model_files.read_saved(folder)


def torn_table(monkeypatch, tmp_path):
    report = pytest.importorskip("fastgan.training.report")
    (tmp_path / "config.yaml").write_text("batch_size: 4\n")
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2.0\n2,")
    report.write_report(tmp_path, "torn")


def options_of_another_version(monkeypatch, tmp_path):
    run_options = pytest.importorskip("fastgan.training.run_options")
    config = pytest.importorskip("fastgan.training.config")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000001.safetensors").write_bytes(b"")
    (tmp_path / "config.yaml").write_text("colour: red\n")
    run_options.options_of_run(tmp_path, config.TrainingConfig)


def facts_of_a_newer_version(monkeypatch, tmp_path):
    facts = importlib.import_module("fastgan.monitor.facts")
    (tmp_path / facts.FACTS).write_text('{"moon": 3}')
    facts.read_facts(tmp_path)


def unusable_reference(monkeypatch, tmp_path):
    commands = pytest.importorskip("fastgan.recipes.starganv2.commands")
    config = pytest.importorskip("fastgan.recipes.starganv2.config").StarGANv2Config(image_size=16)
    inputs = commands.Inputs(SimpleNamespace(config=config, fitted=None), config.reading)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 1 files"):
        inputs.read(str(tmp_path), 2)


# Each call of `warn`, and code that triggers it.
CASES = {
    "fastgan/losses/_input_gradient.py::_warn_of_half": half_logits,
    "fastgan/losses/_probabilities.py::ProbabilityCheck._decide": probabilities,
    "fastgan/monitor/facts.py::read_facts": facts_of_a_newer_version,
    "fastgan/ops/_dispatch.py::warn_once": no_kernel,
    "fastgan/ops/_value_range.py::GrossRangeCheck._decide": grossly_wrong_range,
    "fastgan/ops/_value_range.py::RangeCheck._decide": wrong_range,
    "fastgan/recipes/enhancenet/evaluation.py::read_held_out": unusable_held_out_image,
    "fastgan/recipes/starganv2/commands.py::Inputs.read": unusable_reference,
    "fastgan/training/checkpoint.py::_newest_intact": damaged_checkpoint,
    "fastgan/training/data.py::ImageFolder._read": unusable_image,
    "fastgan/training/model_files.py::read_saved": no_whole_checkpoint,
    "fastgan/training/report/page.py::write_report": torn_table,
    "fastgan/training/run_options.py::options_of_run": options_of_another_version,
}


def test_each_warning_has_a_case():
    assert calls_of_warn() == set(CASES), "a call of warn() without a case here, or a case without a call"


@pytest.mark.parametrize("case", CASES)
def test_the_warning_names_this_file(case, monkeypatch, tmp_path):
    provoke = CASES[case]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        provoke(monkeypatch, tmp_path)
    assert caught
    first = provoke.__code__.co_firstlineno
    last = max(line for *_, line in provoke.__code__.co_lines() if line)
    for warning in caught:
        assert warning.filename == __file__
        assert first < warning.lineno <= last


# --- ways to a warning ------------------------------------------------------------------------------------


@pytest.fixture
def loss():
    pytest.importorskip("torchvision")
    return PerceptualLoss((3,), weights=None)


@pytest.fixture
def image():
    return torch.rand(1, 3, 32, 32)


def line_of(caught):
    """The text of the line that the warning refers to."""
    (warning,) = caught
    assert warning.filename == __file__
    return Path(__file__).read_text().splitlines()[warning.lineno - 1].strip()


class Trainer(torch.nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = torch.nn.Sequential(torch.nn.Identity(), loss)

    def forward(self, image):
        return self.loss[1](self.loss[0](image), image)  # innermost


@pytest.mark.parametrize("decorate", [torch.no_grad(), torch.autocast("cpu"), torch.inference_mode()])
def test_the_innermost_line_of_the_callers(loss, image, decorate):
    with pytest.warns(RuntimeWarning) as caught:
        decorate(Trainer(loss))(image)
    assert line_of(caught).endswith("# innermost")


def test_in_a_checkpointed_module(loss, image):
    with pytest.warns(RuntimeWarning) as caught:
        torch.utils.checkpoint.checkpoint(loss, image.requires_grad_(), image.detach(), use_reentrant=True)
    assert line_of(caught).startswith("torch.utils.checkpoint.checkpoint(loss")


def test_in_a_module_that_torch_generated(loss, image):
    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return module is loss

    generated = torch.fx.GraphModule(model := Trainer(loss), Tracer().trace(model))
    with pytest.warns(RuntimeWarning) as caught:
        generated(image)  # of the graph
    assert line_of(caught).endswith("# of the graph")


def test_under_distributed_data_parallel(loss, image):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:

        class Network(torch.nn.Linear):
            def forward(self, image):
                return super().forward(image).sum(), loss(image, image)  # inside of the wrapper

        wrapped = torch.nn.parallel.DistributedDataParallel(Network(32, 2))
        with pytest.warns(RuntimeWarning) as caught:
            wrapped(image)
        assert line_of(caught).endswith("# inside of the wrapper")
    finally:
        torch.distributed.destroy_process_group()


def test_while_torch_compiles_one_graph(monkeypatch):
    monkeypatch.setattr(_library, "cpu_missing", "_C was not built")
    monkeypatch.setattr(ops._dispatch, "_warned", set())
    compiled = torch.compile(lambda x: 2 * squared_norm(x), fullgraph=True, backend="eager")
    x = torch.rand(2, 3)
    with pytest.warns(RuntimeWarning, match="runs its PyTorch reference") as caught:
        actual = compiled(x)  # compiles
    assert line_of(caught).endswith("# compiles")
    torch.testing.assert_close(actual, 2 * x.square().sum(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(x)


def test_in_threads():
    """In the user's threads their line is named; in others only fastgan's own is available."""

    def target():
        warn("in a thread", RuntimeWarning)  # the thread's

    with pytest.warns(RuntimeWarning, match="in a thread") as caught:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert line_of(caught).endswith("# the thread's")

    _warned.discard(("squared_norm", "nobody called"))
    with pytest.warns(RuntimeWarning, match="nobody called") as caught:
        thread = threading.Thread(target=ops._dispatch.warn_once, args=("squared_norm", "nobody called"))
        thread.start()
        thread.join()
    assert caught[0].filename == ops._dispatch.__file__


def test_in_a_backward_of_ours():
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            ops._dispatch.warn_once("squared_norm", "the test wants it")
            return grad

    _warned.discard(("squared_norm", "the test wants it"))
    x = torch.rand(3, requires_grad=True)
    with pytest.warns(RuntimeWarning, match="the test wants it") as caught:
        Function.apply(x).sum().backward()
    assert line_of(caught).startswith("ops._dispatch.warn_once")


# --- filters ----------------------------------------------------------------------------------------------

PROGRAM = """
    import torch
    from fastgan._warnings import warn
    from fastgan.losses import r1_penalty

    def penalty():
        x = torch.rand(2, 3, requires_grad=True)
        return r1_penalty(x.sum(1).bfloat16(), x)

    for _ in range(3):
        penalty()
"""


def run(tmp_path, *options):
    (tmp_path / "trainer.py").write_text(textwrap.dedent(PROGRAM))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    environment.pop("PYTHONWARNINGS", None)
    return subprocess.run(
        [sys.executable, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("options", "count", "fails"),
    [
        (["trainer.py"], 1, False),
        (["-m", "trainer"], 1, False),
        (["-W", "once", "trainer.py"], 1, False),
        (["-W", "ignore::RuntimeWarning:__main__", "trainer.py"], 0, False),
        (["-W", "ignore::RuntimeWarning:fastgan", "trainer.py"], 1, False),
        (["-W", "error::RuntimeWarning", "trainer.py"], 1, True),
    ],
)
def test_filters_are_those_of_the_callers_module(tmp_path, options, count, fails):
    done = run(tmp_path, *options)
    assert (done.returncode != 0) == fails, done.stderr
    assert done.stderr.count("RuntimeWarning: a penalty of bfloat16") == count
    if count:
        assert "trainer.py" in done.stderr and "return r1_penalty(x.sum(1).bfloat16(), x)" in done.stderr
    if not fails:
        assert "fastgan" not in done.stderr
