"""`fastgan bench stegastamp`: StegaStamp at full size, for a given number of minutes.

400x400 pixels, 100 bits, bfloat16: trains on a folder of photographs, then evaluates on held-out ones, and
times its steps, fused against the reference. Writes figures, settings and sample pictures.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from PIL import Image

from fastgan._arguments import Parser, at_least_one
from fastgan._tables import read_table
from fastgan.bench.recipes import measure_steps
from fastgan.bench.rows import file_name
from fastgan.recipes.stegastamp.config import DEMO, StegaStampConfig
from fastgan.recipes.stegastamp.recipe import StegaStamp
from fastgan.training.built_in import PREFIX
from fastgan.training.command_line import parse_config
from fastgan.training.config import to_plain
from fastgan.training.loop import Interrupted, train
from fastgan.training.measurement import describe_machine
from fastgan.training.report import write_report

# The demo's settings at full size, with more time for the longer secret; time ends the run, not num_steps.
SHORT = dataclasses.replace(
    DEMO,
    exp_name="stegastamp-measured",
    image_size=400,
    secret_size=100,
    batch_size=8,
    precision="bf16-mixed",
    num_steps=140000,
    lr_decay_steps=0,
    no_im_loss_steps=1500,
    l2_loss_ramp=1500,
    G_loss_ramp=1500,
    sample_interval=140000,
    eval_interval=1000,
    checkpoint_interval=140000,
)


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan bench stegastamp",
        description="Trains StegaStamp for some minutes and measures it. Other options: see `fastgan train "
        "stegastamp --help`.",
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--minutes", type=float, default=3, help="of training (default: 3)")
    parser.add_argument("--steps", type=at_least_one, default=30, help="steps to time of each (default: 30)")
    parser.add_argument("--output", type=Path, help="folder for stegastamp-<device name>.json and .jpg")
    options, others = parser.parse_known_args(arguments)
    if options.minutes <= 0:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    # A part of the user's photographs is held out, unless --val_path names others.
    given = any(option.partition("=")[0] == "--train_path" for option in others)
    config = parse_config(
        StegaStampConfig,
        {"short": dataclasses.replace(SHORT, val_path="") if given else SHORT},
        ["--preset", "short", f"--accelerator={options.device}", f"--max_minutes={options.minutes}", *others],
        parser.prog,
    )
    if config.exp_name == SHORT.exp_name and config.folder.exists():  # only the last measurement's folder
        shutil.rmtree(config.folder)
    begin, interrupted = time.perf_counter(), None
    try:
        train(StegaStamp, config)
    except Interrupted as stopped:
        interrupted = stopped
    folder, minutes = config.folder, (time.perf_counter() - begin) / 60
    if interrupted is None:
        write_report(folder, "StegaStamp")
    figures: dict[str, Any] = {
        **describe_machine(options.device),
        "minutes": minutes,
        **{name: values[-1] for name, values in _table(folder / "evaluation.csv").items()},
    }
    if seconds := _table(folder / "metrics.csv").get("seconds_per_step"):  # over the run's second half
        figures["steps_per_second_in_training"] = 1 / statistics.median(seconds[len(seconds) // 2 :])
    _write(figures, config, folder, options.output)
    if interrupted is not None:
        print(f"{interrupted}, after {minutes:.1f} minutes; its steps were not timed against the reference's")
        return 1
    rows = measure_steps(StegaStamp, config, options.device, options.steps)
    for row in rows:
        figures[f"steps_per_second_{row['provider']}"] = 1 / row["mean_s"]
        figures |= {f"{name}_{row['provider']}": row[name] for name in ("parts", "ops") if name in row}
    _write(figures, config, folder, options.output)
    print(
        f"{figures['step']:.0f} steps in {minutes:.1f} minutes, "
        f"{figures['steps_per_second_fastgan']:.1f} a second "
        f"(reference {figures['steps_per_second_reference']:.1f}); held out: bit accuracy "
        f"{figures['bit_acc_clean']:.4f}, after JPEG 50 {figures['bit_acc_jpeg_50']:.4f}, "
        f"PSNR {figures['psnr']:.1f} dB"
    )
    return 0


def _table(path: Path) -> dict[str, list[float]]:
    """A table of the run; empty if the run was stopped before it was written."""
    return read_table(path) if path.exists() else {}


def _write(figures: dict[str, Any], config: StegaStampConfig, folder: Path, output: Path | None) -> None:
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    name = file_name("stegastamp", figures["device"])
    # Published results must not contain this machine's paths.
    settings = to_plain(dataclasses.replace(config, runs_path=SHORT.runs_path))
    for key in ("train_path", "val_path"):
        if not settings[key].startswith(PREFIX):
            settings[key] = Path(settings[key]).name
    text = json.dumps({**figures, "settings": settings}, indent=1)
    (output / f"{name}.json").write_text(text + "\n")
    for newest in sorted((folder / "samples").glob("step-*.png"))[-1:]:
        with Image.open(newest) as picture:
            picture.convert("RGB").save(output / f"{name}.jpg", quality=90)
