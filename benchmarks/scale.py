"""`fastgan bench scale`: predicts the time of training steps on 8 to 1024 H100. None was measured.

Counted, on the CPU, in one step of each recipe's preset `paper` with a batch of two: multiplications and
additions of convolutions and matrix products, for each image; the buckets of gradients that the step's
updates exchange; and the sums of batch normalization over the processes. From these and the constants below

* a GPU computes for FLOPS * batch / (peak * UTILIZATION), two thirds of it in backward passes;
* each bucket is exchanged as a ring or as a tree, as in NCCL's own model, see :func:`all_reduce_seconds`;
* of the exchange, the share that `fastgan bench exchange` has measured as hidden is hidden, at most the
  time of the backward pass; the pessimistic prediction hides nothing;
* sums of batch normalization are waited for.

Left out, so that steps are shorter than they will be: launches of kernels, which rule small networks, memory
traffic of element-wise operations, reading data, and other jobs on the network.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from fastgan._arguments import Parser
from fastgan.bench.rows import conclude, merge_rows
from fastgan.recipes import load_recipe
from fastgan.training.batch_norm import BatchNorm2d
from fastgan.training.measurement import describe_machine
from fastgan.training.processes.exchange import Exchange
from fastgan.training.processes.runtime import Runtime
from fastgan.training.recipe import Recipe

# H100 SXM5, dense, of matrix products: NVIDIA H100 datasheet (which gives twice these, with sparsity).
PEAK = {"bf16-mixed": 989.4e12, "32-true": 494.7e12}  # 32-true: convolutions in TF32, torch's default
# An assumption: large convolutions reach more, and small or narrow ones less.
UTILIZATION = 0.3
BACKWARD = 2 / 3  # of the operations: gradients of inputs and of weights cost as much as the output each
# An NVLink 4 GPU has 900 GB/s in both directions together (same datasheet), nodes of eight are DGX H100's.
NODE = 8
NVLINK = 450e9
NETWORK = 50e9  # per GPU: one 400 Gb/s InfiniBand adapter each, as in DGX H100
# An assumption: the share of these that a large all-reduce reaches.
REACHED = 0.75
# NCCL's own model of its latencies and of the share of a link that each algorithm reaches, by protocol:
# baseLat, hwLat and the factors of busBw in its src/graph/tuning.cc. LL is that of small messages.
ALGORITHMS = {
    ("ring", "simple"): {"start": 8.4e-6, "nvlink": 3.4e-6, "network": 14e-6, "share": 1.0},
    ("ring", "ll"): {"start": 6.6e-6, "nvlink": 0.6e-6, "network": 2.7e-6, "share": 0.5},
    ("tree", "simple"): {"start": 8.4e-6, "nvlink": 4e-6, "network": 14e-6, "share": 0.92},
    ("tree", "ll"): {"start": 6.8e-6, "nvlink": 0.6e-6, "network": 5e-6, "share": 1 / 3.8},
}
GPUS = (1, 8, 64, 256, 1024)
BATCH = 2
KEYS = ("recipe", "precision")

# Data that come with fastgan, in place of the paper's.
CHANGES: dict[str, dict[str, Any]] = {
    "dcgan": {"train_path": "builtin:photographs/train", "val_path": "builtin:photographs/val"},
    "enhancenet": {"train_path": "builtin:photographs/train", "val_path": "builtin:photographs/val"},
    "starganv2": {"train_path": "builtin:domains/train", "val_path": "builtin:domains/val"},
    "stegastamp": {"train_path": "builtin:photographs/train", "val_path": "builtin:photographs/val"},
    "zi2zi": {"train_path": "builtin:glyphs"},
}


@dataclasses.dataclass(frozen=True)
class Work:
    """What a step of a recipe takes."""

    batch_size: int
    """Images per GPU, the preset's."""
    flops_per_image: float
    buckets: list[int]
    """Bytes of each bucket that is exchanged, in all updates of the step."""
    sums: int
    """Sums over the processes within the passes, of batch normalization."""


def all_reduce_seconds(size: int, gpus: int) -> float:
    """The time of a sum of `size` bytes over the GPUs, by the algorithm and protocol that take the least.

    A ring sends 2 (N-1)/N of the bytes through each link in 2 (N-1) hops, two for each node between nodes.
    NCCL lays one ring through each of a node's adapters, which therefore add up. A tree sends the bytes
    twice, in twice log2 of the nodes hops between them.
    """
    if gpus == 1:
        return 0.0
    nodes = max(1, gpus // NODE)
    link = REACHED * (NVLINK if nodes == 1 else min(NVLINK, NODE * NETWORK))
    between = 2 * nodes if nodes > 1 else 0
    hops = {
        "ring": (2 * (gpus - 1) - between, between),
        "tree": (2 * (min(gpus, NODE) - 1), 2 * math.log2(nodes)),
    }
    sent = {"ring": 2 * (gpus - 1) / gpus * size, "tree": 2 * size}
    return min(
        cost["start"]
        + hops[algorithm][0] * cost["nvlink"]
        + hops[algorithm][1] * cost["network"]
        + sent[algorithm] / (link * cost["share"])
        for (algorithm, _), cost in ALGORITHMS.items()
    )


def predict(work: Work, gpus: int, precision: str, hidden: float) -> dict[str, float]:
    """The parts of a step's time, in seconds.

    Args:
        hidden: share of the exchange that runs beside the backward pass.
    """
    compute = work.flops_per_image * work.batch_size / (PEAK[precision] * UTILIZATION)
    exchange = sum(all_reduce_seconds(size, gpus) for size in work.buckets)
    sums = work.sums * all_reduce_seconds(1024, gpus)  # of a few hundred channels: latency alone
    beside = hidden * min(exchange, BACKWARD * compute)
    return {
        "gpus": gpus, "compute_s": compute, "exchange_s": exchange, "sums_s": sums,
        "step_s": compute + sums + exchange - beside, "nothing_hidden_s": compute + sums + exchange,
    }  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan bench scale",
        description="Predicts steps on 8 to 1024 H100 from what steps compute and exchange; measures none.",
    )
    parser.add_argument("recipe", nargs="?", choices=[*CHANGES], help="default: all")
    parser.add_argument("--preset", default="paper", help="settings to count (default: paper)")
    parser.add_argument(
        "--exchange", type=Path, default=Path(__file__).parent / "results",
        help="folder with exchange-*.json, whose share of the exchange is hidden (default: those of fastgan)",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="folder for scale.json")
    options = parser.parse_args(arguments)
    measured = measured_shares(options.exchange)
    if not measured:
        parser.error(f"--exchange {options.exchange} has no exchange-*.json: run `fastgan bench exchange`")
    machine, path = describe_machine("cpu"), None
    for name in [options.recipe] if options.recipe else CHANGES:
        work = count(name, options)
        # Where a recipe was not measured, the least of the others.
        hidden = measured.get(name, min(measured.values()))
        rows = [
            {
                "recipe": name, "preset": options.preset, "precision": precision,
                **dataclasses.asdict(work), "bytes": sum(work.buckets), "hidden": hidden,
                "hidden_is_measured": name in measured, "utilization": UTILIZATION,
                "steps": [predict(work, gpus, precision, hidden) for gpus in GPUS], **machine,
            }
            for precision in PEAK
        ]  # fmt: skip
        print("\n".join(line for row in rows for line in lines(row)), flush=True)
        if options.output:
            path = merge_rows(rows, options.output, "scale", "", KEYS)
    return conclude(path, [])


def measured_shares(folder: Path) -> dict[str, float]:
    """By recipe the least share of the exchange that `fastgan bench exchange` has measured as hidden."""
    shares: dict[str, float] = {}
    for path in sorted(folder.glob("exchange-*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            if row["variant"] == "buckets":
                shares[row["recipe"]] = min(row["hidden"], shares.get(row["recipe"], 1.0))
    return shares


def count(name: str, options: argparse.Namespace) -> Work:
    """What a step computes and exchanges, from one step on the CPU, with random weights in every loss."""
    recipe_class = load_recipe(name)
    preset = recipe_class.presets[options.preset]
    random_weights = mock.patch("fastgan.losses._backbones._load_weights", lambda *arguments: None)
    with tempfile.TemporaryDirectory() as folder, random_weights:
        config = dataclasses.replace(
            preset, runs_path=folder, accelerator="cpu", batch_size=BATCH, budget_interval=0, **CHANGES[name]
        )
        runtime = Runtime(config)
        torch.manual_seed(config.seed)
        recipe = recipe_class(config, runtime)
        step = recipe.num_steps // 2  # where ramps are complete and every term is active
        buckets: list[int] = []
        with _sums_counted(recipe) as sums, _updates_counted(recipe, buckets):
            with contextlib.closing(recipe.batches(step)) as batches:
                batch = next(batches)
            counter = FlopCounterMode(display=False)
            counter.mod_tracker = _NoModules()  # type: ignore[assignment]
            with counter:
                recipe.train_step(batch, step, torch.Generator())
    return Work(preset.batch_size, counter.get_total_flops() / BATCH, buckets, sums[0])


class _NoModules(contextlib.AbstractContextManager):
    """In place of the counter's hooks on modules, under which a penalty's `autograd.grad` fails."""

    parents = frozenset({"Global"})

    def __exit__(self, *exception: object) -> None:
        pass


@contextlib.contextmanager
def _updates_counted(recipe: Recipe, buckets: list[int]) -> Iterator[None]:
    """Appends the bytes of each bucket that an update would exchange."""
    update = recipe.update

    def counted(name: str, *arguments: Any, **options: Any) -> None:
        exchange = Exchange([group["params"] for group in recipe.optimizers[name].param_groups], NODE)
        exchange._lay_out()
        buckets.extend(bucket.values.nbytes for bucket in exchange._buckets)
        exchange.end()
        update(name, *arguments, **options)

    with mock.patch.object(recipe, "update", counted):
        yield


@contextlib.contextmanager
def _sums_counted(recipe: Recipe) -> Iterator[list[int]]:
    """Counts batch normalization's sums: two in each pass forward, and two in that backward."""
    sums = [0]

    def called(layer: Any, inputs: Any) -> None:
        sums[0] += 4 if layer.training and torch.is_grad_enabled() else 2 * layer.training

    layers = (layer for network in recipe.networks.values() for layer in network.modules())
    hooks = [layer.register_forward_pre_hook(called) for layer in layers if isinstance(layer, BatchNorm2d)]
    yield sums
    for hook in hooks:
        hook.remove()


def lines(row: dict[str, Any]) -> list[str]:
    """A row as text."""
    head = (
        f"{row['recipe']}, {row['precision']}: {row['flops_per_image'] / 1e9:.0f} GFLOP per image, "
        f"batch {row['batch_size']}; {row['bytes'] / 1e6:.0f} MB in {len(row['buckets'])} buckets, "
        f"{row['sums']} sums of batch normalization"
    )
    steps = (
        f"  {step['gpus']:>5} GPUs: step {step['step_s'] * 1e3:.2f} ms, "
        f"{step['nothing_hidden_s'] * 1e3:.2f} ms with nothing hidden"
        for step in row["steps"]
    )
    return [head, *steps]
