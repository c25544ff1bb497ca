"""`fastgan bench exchange`: how much of the exchange of G's gradients is hidden behind its backward pass.

Two or more processes on this machine, with networks at paper size, but small batches, and a link that is as
slow as asked: each bucket takes its number of bytes times a constant, which is set so that the whole exchange
takes a given part of the backward pass. On a machine of few cores the processes also compete for these; the
link's delay does not.

Two variants run in turn, on the same batches: gradients exchanged in buckets while backward runs, as in
training, and all of them in one exchange after it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan._arguments import Parser, at_least_one
from fastgan.bench.rows import conclude, merge_rows
from fastgan.recipes import load_recipe
from fastgan.training.loop import step_seed
from fastgan.training.measurement import describe_machine
from fastgan.training.memory import keep_freed_memory
from fastgan.training.processes.exchange import Exchange, OrderOfUse
from fastgan.training.processes.runtime import Runtime
from fastgan.training.recipe import Recipe

# Paper size but for data and the weights of LPIPS, which nothing here needs.
CHANGES: dict[str, dict[str, Any]] = {
    "stegastamp": {
        "train_path": "builtin:photographs/train", "val_path": "builtin:photographs/val",
        "lpips_loss_scale": 0.0, "no_im_loss_steps": 0, "val_images": 2,
    },
    "zi2zi": {"train_path": "builtin:glyphs"},
}  # fmt: skip
VARIANTS = ("buckets", "flat")
WARM_UP = 1
# What tells rows of one machine apart.
KEYS = ("recipe", "preset", "processes", "part", "variant")


class Link:
    """Sums buckets over the processes, one after the other, as slowly as it is told.

    Attributes:
        seconds_per_byte: added to the time of each exchange.
        busy: seconds that exchanges have taken.
    """

    def __init__(self, group: Any) -> None:
        self.group = group
        self.seconds_per_byte = 0.0
        self.busy = 0.0
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, bucket: Tensor) -> Any:
        return _Sent(self._thread.submit(self._send, bucket))

    def _send(self, bucket: Tensor) -> None:
        began = time.perf_counter()
        time.sleep(bucket.numel() * bucket.element_size() * self.seconds_per_byte)
        torch.distributed.all_reduce(bucket, group=self.group)
        self.busy += time.perf_counter() - began

    def close(self) -> None:
        self._thread.shutdown()


class _Sent:
    def __init__(self, future: Future) -> None:
        self.wait = future.result


class Timed(Exchange):
    """An exchange that measures the update's backward pass, and what remains to be waited for after it."""

    def __init__(
        self, groups: list[list[Tensor]], link: Link, overlaps: bool, order: list[list[int]]
    ) -> None:
        size = torch.distributed.get_world_size()
        super().__init__(groups, size, link, bucket_bytes=None if overlaps else 2**60, order=order)
        self.overlaps = overlaps
        self.backward, self.exposed = 0.0, 0.0

    @contextlib.contextmanager
    def last_backward(self) -> Iterator[None]:
        began = ended = time.perf_counter()
        with super().last_backward():
            yield
            ended = time.perf_counter()
            self.backward += ended - began
        self.exposed += time.perf_counter() - ended

    def _arrived(self, parameter: Tensor) -> None:
        if self.overlaps:
            super()._arrived(parameter)


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan bench exchange",
        description="Measures the share of the gradients' exchange that is hidden.",
    )
    parser.add_argument("recipe", nargs="?", choices=[*CHANGES], help="default: all")
    parser.add_argument("--preset", default="paper", help="settings to measure (default: paper)")
    parser.add_argument("--steps", type=at_least_one, default=3, help="of each variant (default: 3)")
    parser.add_argument("--processes", type=int, default=2, help="2 or more (default: 2)")
    parser.add_argument("--batch_size", type=at_least_one, default=1, help="per process (default: 1)")
    parser.add_argument(
        "--part", type=float, default=0.5,
        help="of the backward pass that the whole exchange takes at least, by its delay (default: 0.5)",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="folder for exchange-<device name>.json")
    options = parser.parse_args(arguments)
    if options.processes < 2:
        parser.error(f"--processes must be at least 2, got {options.processes}")
    if options.recipe is None:
        # A process each: the processes that a measurement starts run the same command, from its beginning.
        command = [sys.executable, "-m", "fastgan", "bench", "exchange"]
        return max(subprocess.run([*command, name, *arguments]).returncode for name in CHANGES)
    keep_freed_memory()
    rows = measure(options.recipe, options)
    if rows is None:
        return 0  # another process prints
    machine = describe_machine("cpu")
    rows = [row | machine for row in rows]
    print("\n".join([*header(rows[0]), *lines(rows)]), flush=True)
    path = None
    if options.output:
        path = merge_rows(rows, options.output, "exchange", machine["device"], KEYS)
    return conclude(path, [])


def measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]] | None:
    """One row per variant; None in the process that does not report."""
    recipe_class = load_recipe(name)
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(
            recipe_class.presets[options.preset], runs_path=folder, devices=options.processes,
            accelerator="cpu", batch_size=options.batch_size, budget_interval=0, **CHANGES[name],
        )  # fmt: skip
        runtime = Runtime(config)
        with runtime.together():
            torch.manual_seed(config.seed)
            recipe = recipe_class(config, runtime)
            runtime.broadcast(*recipe.networks.values())
            rows = _measure(recipe, options.steps, options.part)
    keys = {
        "recipe": name, "preset": options.preset, "processes": options.processes,
        "batch_size": options.batch_size,
    }  # fmt: skip
    return [keys | row for row in rows] if runtime.is_main else None


def _measure(recipe: Recipe, steps: int, part: float) -> list[dict[str, Any]]:
    runtime, optimizer = recipe.runtime, recipe.optimizers["generator"]
    link = Link(torch.distributed.new_group())
    groups = [group["params"] for group in optimizer.param_groups]
    generator = torch.Generator()
    first = recipe.num_steps // 2  # where ramps are complete and every term is active
    order = OrderOfUse(recipe.networks.values())
    with contextlib.closing(recipe.batches(first)) as batches:
        recipe.train_step(next(batches), first, generator)
    order.end()
    exchanges = {variant: Timed(groups, link, variant == "buckets", order.of(groups)) for variant in VARIANTS}
    size = sum(parameter.numel() * 4 for group in groups for parameter in group)
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    busy = dict.fromkeys(VARIANTS, 0.0)

    def run_step(variant: str, batch: Any, step: int) -> float:
        runtime.exchanges[optimizer] = exchanges[variant]
        seed = step_seed(0, step, runtime.rank)
        torch.manual_seed(seed)
        generator.manual_seed(seed)
        runtime.barrier()
        began, before = time.perf_counter(), link.busy
        recipe.train_step(batch, step, generator)
        busy[variant] += link.busy - before
        return time.perf_counter() - began

    with contextlib.closing(recipe.batches(first)) as batches:
        for index in range(WARM_UP):
            for variant in VARIANTS:
                run_step(variant, next(batches), first + index)
        updates = max(1, getattr(recipe.config, "g_updates", 1))
        backward = exchanges["buckets"].backward / WARM_UP / updates
        link.seconds_per_byte = runtime.broadcast_object(part * backward / size)
        for exchange in exchanges.values():
            exchange.backward = exchange.exposed = 0.0
        busy.update(dict.fromkeys(VARIANTS, 0.0))
        batch = next(batches)
        for index in range(steps):
            for variant in VARIANTS if index % 2 == 0 else reversed(VARIANTS):
                seconds[variant].append(run_step(variant, batch, first + index))
        same = _repeats(recipe, lambda: run_step("buckets", batch, first))
    link.close()
    runtime.exchanges.clear()
    rows = []
    for variant, exchange in exchanges.items():
        rows.append(
            {
                "variant": variant, "steps": steps, "bytes": size, "part": part,
                "buckets": len(exchange._buckets), "mean_s": statistics.fmean(seconds[variant]),
                "median_s": statistics.median(seconds[variant]),
                "backward_s": exchange.backward / steps, "exchange_s": busy[variant] / steps,
                "exposed_s": exchange.exposed / steps,
                "hidden": 1 - min(1.0, exchange.exposed / busy[variant]),
                "same_bits": same,
            }
        )  # fmt: skip
        exchange.end()
    return rows


def _repeats(recipe: Recipe, step: Any) -> bool:
    """Whether a step from the same state has the same bits the second time."""
    keepers: list[Any] = [*recipe.networks.values(), *recipe.optimizers.values()]
    states = [copy.deepcopy(keeper.state_dict()) for keeper in keepers]
    digests = []
    for _ in range(2):
        for keeper, state in zip(keepers, states, strict=True):
            keeper.load_state_dict(copy.deepcopy(state))
        step()
        digest = hashlib.sha256()
        for network in recipe.networks.values():
            for tensor in network.state_dict().values():
                digest.update(tensor.numpy().tobytes())
        digests.append(digest.hexdigest())
    return recipe.runtime.broadcast_object(digests[0] == digests[1])


def header(row: dict[str, Any]) -> list[str]:
    """The lines above the rows."""
    return [
        f"{row['device']}, torch {row['torch']}, fastgan {row['fastgan']} ({row['commit']}), "
        f"{row['processes']} processes",
        f"{'recipe':<11} {'variant':<8} {'MB':>6} {'buckets':>7} {'step ms':>8} {'backward':>9} "
        f"{'exchange':>9} {'exposed':>8} {'hidden':>7}  same bits",
    ]


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """A recipe's rows as text; times of a step, in milliseconds."""
    return [
        f"{row['recipe']:<11} {row['variant']:<8} {row['bytes'] / 1e6:>6.1f} {row['buckets']:>7} "
        f"{row['median_s'] * 1e3:>8.0f} {row['backward_s'] * 1e3:>9.0f} {row['exchange_s'] * 1e3:>9.0f} "
        f"{row['exposed_s'] * 1e3:>8.0f} {row['hidden']:>7.0%}  {'yes' if row['same_bits'] else 'NO'}"
        for row in rows
    ]
