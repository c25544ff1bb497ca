"""`fastgan bench stream`: images per second that a training step could get, from folders and from shards.

All providers read the same photographs, each once, and cut them with the same code, in turns of some batches
each. A turn's first batch is not counted, since others were read ahead while it was waited for. So that
nothing is read twice, which the readers would have kept, an epoch is long enough for all turns.

For comparison, what a step takes: images per second that StegaStamp in full width uses on the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastgan._arguments import Parser
from fastgan.bench.rows import conclude, merge_rows
from fastgan.recipes import load_recipe
from fastgan.training.built_in import data_folder
from fastgan.training.crops import cut
from fastgan.training.data import ImageFolder, batches, find_images, find_local_images
from fastgan.training.loop import step_seed
from fastgan.training.measurement import describe_machine
from fastgan.training.memory import keep_freed_memory
from fastgan.training.processes.runtime import Runtime
from fastgan.training.shards.cache import FOLDER
from fastgan.training.shards.writer import MEGABYTE, write_shards

BATCH, TURNS = 16, 6
# Small, so that each turn fetches some.
SHARD_SIZE = 8 * MEGABYTE
Stream = Callable[[int], Generator[Any, None, None]]
"""Batches from a batch on."""


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan bench stream",
        description="Measures images per second of folders and shards, by threads and by processes, in turn.",
    )
    parser.add_argument(
        "--images", default="builtin:photographs/train", help="photographs, repeated to the number of files"
    )
    parser.add_argument("--files", type=int, default=2000, help="an epoch's (default: 2000)")
    parser.add_argument("--image_size", type=int, default=256, help="of the crops (default: 256)")
    parser.add_argument("--workers", type=int, default=2, help="threads or processes (default: 2)")
    parser.add_argument("--steps", type=int, default=3, help="training steps (default: 3; 0: none)")
    parser.add_argument("--output", type=Path, help="folder for stream-<device name>.json")
    options = parser.parse_args(arguments)
    if options.files < 2 * TURNS * BATCH:
        parser.error(f"--files must be at least {2 * TURNS * BATCH}, got {options.files}")
    machine = describe_machine("cpu")
    rows = [row | machine for row in measure(options)]
    print("\n".join([*header(rows[0]), *lines(rows)]), flush=True)
    path = None
    if options.output:
        keys = ("provider", "image_size", "workers")
        path = merge_rows(rows, options.output, "stream", machine["device"], keys)
    return conclude(path, [])


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per provider, and one of the training step."""
    size, workers = options.image_size, options.workers
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, shards = Path(name) / "folder", Path(name) / "shards"
        _repeat(find_local_images(data_folder(options.images)), folder, options.files)
        index = write_shards(folder, shards, shard_size=SHARD_SIZE)
        stack.enter_context(_cache(Path(name) / "cache"))
        url = stack.enter_context(_served(shards))
        providers: dict[str, Stream] = {
            "folder, threads": _by_threads(folder, size, workers),
            "folder, 1 thread": _by_threads(folder, size, 1),
            "folder, processes": _by_processes(folder, size, workers),
            "shards, threads": _by_threads(shards, size, workers),
            "shards at a URL, threads": _by_threads(url, size, workers),
        }
        with contextlib.suppress(ImportError):
            providers["webdataset, processes"] = _by_webdataset(shards, size, workers)
        speeds = _in_turn(providers, options.files // BATCH // TURNS)
    keys = {"image_size": size, "workers": workers, "files": options.files, "bytes": index.size}
    rows = [keys | {"provider": provider} | _summary(values) for provider, values in speeds.items()]
    if options.steps:
        step = {"provider": "step of stegastamp on the CPU", **_summary(_step_speeds(size, options.steps))}
        rows.append(keys | step)
    return rows


def _in_turn(providers: dict[str, Stream], length: int) -> dict[str, list[float]]:
    """Images per second of each provider's turns, of `length` batches each."""
    speeds: dict[str, list[float]] = {provider: [] for provider in providers}
    names = list(providers)
    for turn in range(TURNS):
        for provider in (*names[turn % len(names) :], *names[: turn % len(names)]):
            with contextlib.closing(providers[provider](turn * length)) as stream:
                next(stream)
                began = time.perf_counter()
                for _ in range(length - 1):
                    next(stream)
                speeds[provider].append((length - 1) * BATCH / (time.perf_counter() - began))
    return speeds


def _by_threads(place: str | Path, size: int, threads: int) -> Stream:
    files = find_images(place)
    # A new dataset for each turn, so that those that wait keep no decoded images.
    return lambda first: batches(
        ImageFolder(files, (size, size), "random"), BATCH, start_step=first, workers=threads
    )


class _Samples(torch.utils.data.Dataset):
    def __init__(self, dataset: ImageFolder) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, k: int) -> np.ndarray:
        return self.dataset.sample(k)


def _by_processes(place: Path, size: int, processes: int) -> Stream:
    files = find_images(place)

    def stream(first: int) -> Generator[Any, None, None]:
        samples = _Samples(ImageFolder(files, (size, size), "random"))
        order = range(first * BATCH, len(samples))
        loader = torch.utils.data.DataLoader(samples, BATCH, sampler=order, num_workers=processes)
        for images in loader:
            yield images.permute(0, 3, 1, 2).float().div_(255).contiguous()

    return stream


def _by_webdataset(shards: Path, size: int, processes: int) -> Stream:
    import webdataset
    from PIL import Image

    random = np.random.default_rng(0)
    files = [str(path) for path in sorted(shards.glob("*.tar"))]

    def decoded(sample: dict[str, Any]) -> np.ndarray:
        content = next(sample[key] for key in sample if not key.startswith("__"))
        image = Image.open(io.BytesIO(content)).convert("RGB")
        return np.array(cut(image, (size, size), "random", random))

    def stream(first: int) -> Generator[Any, None, None]:
        # It cannot begin in the middle of an epoch: each turn has an epoch of its own.
        data = webdataset.WebDataset(files, shardshuffle=len(files), seed=first, empty_check=False)
        data = data.shuffle(500).map(decoded)
        for images in torch.utils.data.DataLoader(data, BATCH, num_workers=processes):
            yield images.permute(0, 3, 1, 2).float().div_(255).contiguous()

    return stream


def _step_speeds(size: int, steps: int) -> list[float]:
    """Images per second of StegaStamp's training steps, each on its own."""
    recipe_class = load_recipe("stegastamp")
    with tempfile.TemporaryDirectory() as runs:
        changes: dict[str, Any] = {
            "runs_path": runs, "accelerator": "cpu", "image_size": size, "batch_size": 4,
            "train_path": "builtin:photographs/train", "val_path": "builtin:photographs/val",
            "budget_interval": 0, "lpips_loss_scale": 0.0, "no_im_loss_steps": 0, "val_images": 2,
        }  # fmt: skip
        config = dataclasses.replace(recipe_class.presets["paper"], **changes)
        keep_freed_memory()
        recipe = recipe_class(config, Runtime(config))
        first = recipe.num_steps // 2  # where ramps are complete and every term is active
        generator = torch.Generator()
        speeds = []
        with contextlib.closing(recipe.batches(first)) as stream:
            for index in range(1 + steps):
                batch = next(stream)
                generator.manual_seed(step_seed(0, first + index, 0))
                began = time.perf_counter()
                recipe.train_step(batch, first + index, generator)
                speeds.append(config.batch_size / (time.perf_counter() - began))
    return speeds[1:]


def _repeat(photographs: list[Path], folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        source = photographs[number % len(photographs)]
        shutil.copyfile(source, folder / f"{number:06d}{source.suffix.lower()}")


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """A folder at a URL on loopback, by a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def _cache(folder: Path) -> Iterator[None]:
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(FOLDER)
        if before is not None:
            os.environ[FOLDER] = before


def _summary(speeds: list[float]) -> dict[str, float]:
    quantiles = statistics.quantiles(speeds, n=5) if len(speeds) > 1 else [speeds[0]] * 4
    return {
        "images_per_second": statistics.median(speeds), "p20": quantiles[0], "p80": quantiles[3]
    }  # fmt: skip


def header(row: dict[str, Any]) -> list[str]:
    """The lines above the rows."""
    return [
        f"{row['device']}, torch {row['torch']}, fastgan {row['fastgan']} ({row['commit']}); "
        f"{row['files']} files, {row['bytes'] / 1e6:.0f} MB, {row['workers']} threads or processes",
        f"{'provider':<32} {'images/s':>9} {'20%':>8} {'80%':>8} {'of folder':>10}",
    ]


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as text."""
    folder = rows[0]["images_per_second"]
    return [
        f"{row['provider']:<32} {row['images_per_second']:>9.1f} {row['p20']:>8.1f} {row['p80']:>8.1f} "
        f"{row['images_per_second'] / folder:>10.2f}"
        for row in rows
    ]
