"""`fastgan demo`: train on photographs, hide a message in another, find it again through a real JPEG."""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import time
from pathlib import Path

import torch
from PIL import Image

from fastgan._arguments import Parser
from fastgan._tables import read_table
from fastgan.losses import yuv_color_l2
from fastgan.recipes.stegastamp.config import DEMO
from fastgan.recipes.stegastamp.message import bits_to_message, message_to_bits
from fastgan.recipes.stegastamp.model import StegaStampModel
from fastgan.recipes.stegastamp.recipe import StegaStamp
from fastgan.training.built_in import HELD_OUT_PHOTOGRAPHS, data_folder
from fastgan.training.image_files import read_image
from fastgan.training.loop import train
from fastgan.training.measurement import describe_machine, rounds_in
from fastgan.training.report import Section, write_report

MESSAGE = "hi"


def main(arguments: list[str]) -> int:
    """Runs the demo preset; `--num_steps N` shortens it."""
    parser = Parser(prog="fastgan demo", description=__doc__)
    parser.add_argument("--num_steps", type=int, default=DEMO.num_steps, help="training steps")
    steps = parser.parse_args(arguments).num_steps
    folder = DEMO.folder
    if folder.exists():  # only the demo's own folder is recreated
        shutil.rmtree(folder)
    config = dataclasses.replace(
        DEMO,
        num_steps=steps,
        lr_warmup_steps=min(DEMO.lr_warmup_steps, steps // 10),
        lr_decay_steps=min(DEMO.lr_decay_steps, steps // 2),
    )
    begin = time.perf_counter()
    train(StegaStamp, config)
    minutes = (time.perf_counter() - begin) / 60

    figures = {name: values[-1] for name, values in read_table(folder / "evaluation.csv").items()}
    message = hide_and_find(folder, data_folder(config.val_path) / HELD_OUT_PHOTOGRAPHS[0])
    speed = compare_speed()
    summary = (
        f"trained {steps} steps in {minutes:.1f} minutes\n"
        f"held out: bit accuracy {figures['bit_acc_clean']:.4f} clean, "
        f"{figures['bit_acc_jpeg_50']:.4f} after a real JPEG of quality 50; PSNR {figures['psnr']:.1f} dB\n"
        f"hidden message {MESSAGE!r}, {message}\n{speed}"
    )
    stamps = Section(
        "A message in a photograph",
        f"{MESSAGE!r} was hidden in a photograph that training never saw; the stamped one was saved as JPEG "
        "of quality 50 and decoded.",
        [
            (folder / "stamped" / "compare.png", "original, stamped, and the residual around mid-grey"),
        ],
        summary,
    )
    report = write_report(folder, "StegaStamp in minutes on a CPU", [stamps])
    numbers = {
        **describe_machine("cuda" if torch.cuda.is_available() else "cpu"),
        "steps": steps, "minutes": minutes, **figures, "message": message, "yuv_color_l2": speed,
    }  # fmt: skip
    (folder / "demo.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(f"\n{summary}\n\nreport: {report}")
    return 0


def hide_and_find(folder: Path, photograph: Path) -> str:
    """Stamps a photograph, saves it as JPEG of quality 50, decodes that; returns the result in words."""
    model = StegaStampModel.load(folder)
    image = read_image(photograph)
    secret = message_to_bits(MESSAGE, model.config.secret_size)
    stamped, residual = model.encode(image, secret, residual=True)
    target = folder / "stamped"
    target.mkdir(exist_ok=True)
    pictures = [image, stamped, residual]
    for name, picture in zip(("original", "hidden", "residual"), pictures, strict=True):
        picture.save(target / f"{photograph.stem}_{name}.png")
    jpeg = target / f"{photograph.stem}_hidden.jpg"
    pictures[1].save(jpeg, quality=50)
    compare = Image.new("RGB", (3 * image.width + 16, image.height), "white")
    for index, picture in enumerate(pictures):
        compare.paste(picture, (index * (image.width + 8), 0))
    compare.save(target / "compare.png")
    decoded = model.decode(read_image(jpeg), bits=True)
    wrong = int((decoded != secret).sum())
    message = bits_to_message(decoded)
    result = "no message found" if message is None else f"found {message!r}"
    return f"{result} in {jpeg} ({wrong} of {len(secret)} bits wrong before correction)"


def compare_speed(seconds: float = 1.0) -> str:
    """Compares yuv_color_l2 with eager PyTorch on this machine, forward and backward, 4x3x400x400."""
    x = torch.rand(4, 3, 400, 400, requires_grad=True)
    y = torch.rand(4, 3, 400, 400)

    def median_ms(backend: str | None) -> float:
        def run() -> None:
            x.grad = None
            yuv_color_l2(x, y, (1.0, 100.0, 100.0), 10.0, backend=backend).backward()

        times = []
        for _ in range(rounds_in(run, seconds)):
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
        return 1e3 * statistics.median(times)

    fused, eager = median_ms(None), median_ms("reference")
    return (
        f"yuv_color_l2 forward + backward at 4x3x400x400: {fused:.2f} ms, "
        f"eager PyTorch {eager:.2f} ms, {eager / fused:.0f} times as long"
    )
