"""`fastgan export`: a run's networks as a file for use elsewhere, checked against the networks themselves."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

import fastgan
from fastgan._arguments import Parser
from fastgan._names import printable
from fastgan.ops._checks import check_one_of
from fastgan.training.checkpoint_files import checkpoint_files
from fastgan.training.config import to_plain
from fastgan.training.model import Exported, Model, load_model
from fastgan.training.model_files import without_places
from fastgan.training.outputs import check_new, check_not_read

EXTENSIONS = {"safetensors": ".safetensors", "onnx": ".onnx", "pt2": ".pt2"}
TRACED, CHECKED = 2, (1, 3)  # batch sizes
TOLERANCE = 1e-4  # of the largest value: another library adds in another order
ABOUT = "fastgan.json"  # in a .pt2
Run = Callable[[Mapping[str, Tensor]], Tensor]


class WrongExport(RuntimeError):
    """What was written does not compute what the network does."""


def export(model: Model, output: str | Path, form: str, *, overwrite: bool = False) -> list[Path]:
    """Writes a trained model for use without its run, and checks it against the model itself.

    Nothing appears under its name before the check has passed: outputs for batches of other sizes than that
    of the export, and what :func:`fastgan.load` reads from a .safetensors file.

    Args:
        model: on the CPU, in float32.
        output: the file. Of a model with several exported networks, onnx and pt2 get a file each, whose name
            has the network's, such as stamp-encoder.onnx and stamp-decoder.onnx for stamp.onnx.
        form: "safetensors", for :func:`fastgan.load`; "onnx"; or "pt2", for torch.export.load.
        overwrite: whether files may exist.

    Returns:
        What was written.

    Raises:
        FileExistsError: a file exists.
        ModuleNotFoundError: a package of the extra `onnx` is not installed.
        OSError: it cannot be written.
        ValueError: an unknown form, an extension of another form, a model in another dtype or elsewhere.
        WrongExport: the outputs differ.
    """
    check_one_of("form", form, EXTENSIONS)
    path = Path(output)
    if form == "safetensors":
        networks: dict[str, Exported] = {}
        paths = [path]
    else:
        networks = model.exported()
        names = [""] if len(networks) == 1 else [f"-{name}" for name in networks]
        paths = [path.with_name(f"{path.stem}{name}{path.suffix}") for name in names]
    for each in paths:
        check_new(each, (EXTENSIONS[form],), overwrite, "output", "--overwrite")
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ValueError(
            f"model must be on the CPU in torch.float32, got {model.device} and {model.dtype}: to('cpu', "
            "torch.float32) moves it"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        temporary = [Path(folder) / each.name for each in paths]
        if form == "safetensors":
            model.save(temporary[0])
            _check_saved(model, temporary[0])
        for (name, exported), file in zip(networks.items(), temporary, strict=False):
            run = (_write_onnx if form == "onnx" else _write_pt2)(model, exported, file)
            _check_outputs(name, exported, run)
        for file, target in zip(temporary, paths, strict=True):
            shutil.copymode(_new_file(Path(folder)), file)
            os.replace(file, target)
    return paths


def _new_file(folder: Path) -> Path:
    """A file with the permissions of any new file."""
    path = folder / "new"
    path.touch()
    return path


def _about(model: Model) -> dict[str, str]:
    return {
        "recipe": model.recipe,
        "config": json.dumps(to_plain(without_places(model.config))),
        "about": json.dumps(model.about_elsewhere(), ensure_ascii=False),
        "fastgan": fastgan.__version__,
    }


def _dynamic(exported: Exported) -> dict[str, dict[int, torch.export.Dim]]:
    """The dimensions of each input that differ between batches of different sizes."""
    dynamic: dict[str, dict[int, torch.export.Dim]] = {}
    inputs, others = exported.inputs(TRACED), exported.inputs(TRACED + 1)
    for name, tensor in inputs.items():
        sizes = enumerate(zip(tensor.shape, others[name].shape, strict=True))
        dynamic[name] = {index: torch.export.Dim.DYNAMIC for index, (a, b) in sizes if a != b}  # type: ignore[misc]
    return dynamic


def _write_pt2(model: Model, exported: Exported, file: Path) -> Run:
    # As plain operations of PyTorch, so that no machine that runs it needs fastgan.
    with fastgan.use("reference"), torch.no_grad(), _quiet():
        program = torch.export.export(
            exported.network, (), exported.inputs(TRACED), dynamic_shapes=_dynamic(exported)
        )
        torch.export.save(program, file, extra_files={ABOUT: json.dumps(_about(model))})
        loaded = torch.export.load(file).module()
    return lambda inputs: loaded(**inputs)


def _write_onnx(model: Model, exported: Exported, file: Path) -> Run:
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401 - torch.onnx needs it, and would say so in another way

    with fastgan.use("reference"), torch.no_grad(), _quiet():
        program = torch.onnx.export(
            exported.network, (), kwargs=exported.inputs(TRACED), dynamic_shapes=_dynamic(exported),
            output_names=[exported.output], dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    made = program.model_proto
    for key, value in _about(model).items():
        made.metadata_props.add(key=f"fastgan.{key}" if key != "fastgan" else key, value=value)
    onnx.save(made, file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run(None, {key: x.numpy() for key, x in inputs.items()})[0])

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the exporters say of themselves; errors are raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@torch.no_grad()
def _check_outputs(name: str, exported: Exported, run: Run) -> None:
    for num in CHECKED:
        inputs = exported.inputs(num)
        expected, actual = exported.network(**inputs), run(inputs)
        if actual.shape != expected.shape:
            shapes = f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
            raise WrongExport(f"the exported {name} gives another shape for a batch of {num}: {shapes}")
        largest = expected.abs().max().item()
        difference = (actual - expected).abs().max().item()
        if not difference <= TOLERANCE * max(largest, 1e-3):  # also for NaN
            raise WrongExport(
                f"the exported {name} differs by {difference:g} for a batch of {num}, whose largest value is "
                f"{largest:g}"
            )


def _check_saved(model: Model, file: Path) -> None:
    loaded, weights = load_model(file, type(model)), model.state_dict()
    actual = loaded.state_dict()
    if wrong := [key for key in weights if not torch.equal(actual[key], weights[key])]:
        raise WrongExport(f"{wrong[0]} is not what was written")


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan export",
        description="Writes a run's networks for use elsewhere, and checks them against the run's own on "
        "batches of other sizes than that of the export. Of several networks, onnx and pt2 get a file each: "
        "FILE-encoder, FILE-decoder.",
    )
    parser.add_argument("run", metavar="RUN", help="run's folder, checkpoint or model.safetensors")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to write")
    parser.add_argument(
        "--format", choices=EXTENSIONS,
        help="safetensors, which fastgan.load reads; onnx; pt2, which torch.export.load reads (default: what "
        "FILE ends in)",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that are there already (default: refuse)"
    )
    options = parser.parse_args(arguments)
    form = options.format or options.output.suffix.lower().removeprefix(".")
    check_one_of(
        "--format, or what FILE ends in," if options.format is None else "--format", form, EXTENSIONS
    )
    check_new(options.output, (EXTENSIONS[form],), True, "--output", "")
    run = Path(options.run)
    sources = [run] if run.is_file() else checkpoint_files(run) + checkpoint_files(run / "checkpoints")
    check_not_read([options.output], sources, "export", "--output", "a trained model")
    model: Model = load_model(run)
    try:
        paths = export(model, options.output, form, overwrite=options.overwrite)
    except WrongExport as error:
        raise ValueError(str(error)) from error
    for path in paths:
        print(printable(path))
    return 0
