"""`fastgan bench recipes`: the training step of each recipe, fused against the reference, and its parts.

All run the same steps on the same batches with the same random numbers, alternately, as in the trainers:
freed memory is kept, and steps with a lazy penalty are included at their frequency.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from fastgan._arguments import Parser, at_least_one
from fastgan.bench.harness import synchronize
from fastgan.bench.rows import conclude, merge_rows
from fastgan.ops import use
from fastgan.recipes import RECIPES, all_recipes, load_recipe
from fastgan.training.config import TrainingConfig
from fastgan.training.loop import step_seed
from fastgan.training.measurement import describe_machine
from fastgan.training.memory import keep_freed_memory
from fastgan.training.processes.runtime import Runtime
from fastgan.training.recipe import Recipe
from fastgan.training.statistics import Statistics, gathering

# Without monitor: the step that measures nothing beside its own figures (budget_interval=0).
PROVIDERS = ("fastgan", "fastgan, without monitor", "reference")
WARM_UP = 3
PROFILED = 4


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan bench recipes",
        description="Times each recipe's training step, fused and as PyTorch reference, in one run.",
    )
    parser.add_argument("recipe", nargs="?", choices=[*all_recipes()], help="default: all of fastgan's")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--preset", default="demo", help="settings to time (default: demo)")
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--train_path", help="photographs for presets that name none")
    parser.add_argument("--steps", type=at_least_one, default=32, help="steps of each (default: 32)")
    parser.add_argument("--output", type=Path, help="folder for recipes-<device name>.json")
    options = parser.parse_args(arguments)
    if options.device == "cpu":
        keep_freed_memory()
    machine = describe_machine(options.device)
    path, measured, failed = None, 0, []
    for name in [options.recipe] if options.recipe else RECIPES:
        try:
            rows = [row | machine for row in measure(name, options)]
        except Exception:  # continue with the other recipes
            traceback.print_exc()
            failed.append(name)
            continue
        print("\n".join([*(() if measured else header(rows[0])), *lines(rows)]), flush=True)
        measured += len(rows)
        if options.output:
            keys = ("recipe", "preset", "precision")
            path = merge_rows(rows, options.output, "recipes", machine["device"], keys)
    return conclude(path, failed)


def measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per provider."""
    recipe_class = load_recipe(name)
    changes: dict[str, Any] = {"accelerator": options.device, "precision": options.precision}
    if options.train_path:
        changes["train_path"] = options.train_path
    config = dataclasses.replace(recipe_class.presets[options.preset], **changes)
    keys = {"recipe": name, "preset": options.preset, "precision": options.precision}
    return [keys | row for row in measure_steps(recipe_class, config, options.device, options.steps)]


def measure_steps(
    recipe_class: type[Recipe], config: TrainingConfig, device: str, steps: int
) -> list[dict[str, Any]]:
    """One row per provider, for steps from the middle of a run on."""
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(config, runs_path=folder)
        unmeasured = dataclasses.replace(config, budget_interval=0)
        configs = {provider: unmeasured if "without" in provider else config for provider in PROVIDERS}
        recipes = {provider: _make(recipe_class, configs[provider]) for provider in PROVIDERS}
        times, parts = _steps(recipes, config, device, steps)
    rows = []
    for provider, seconds in times.items():
        quantiles = statistics.quantiles(seconds, n=5)
        rows.append(
            {
                "batch_size": config.batch_size, "provider": provider, "steps": len(seconds),
                "mean_s": statistics.fmean(seconds), "median_s": statistics.median(seconds),
                "p20_s": quantiles[0], "p80_s": quantiles[3], **parts[provider],
            }
        )  # fmt: skip
    return rows


def _make(recipe_class: type[Recipe], config: TrainingConfig) -> Recipe:
    torch.manual_seed(config.seed)
    return recipe_class(config, Runtime(config))


def _steps(
    recipes: dict[str, Recipe], config: TrainingConfig, device: str, steps: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
    """Seconds of each step, and the shares of its parts, by provider."""
    # From the middle of the run on, where ramps are complete and every term is active.
    first = config.num_steps // 2
    times: dict[str, list[float]] = {provider: [] for provider in recipes}
    fused = recipes["fastgan"]
    generator = torch.Generator(fused.runtime.device)
    watched = {provider: recipe.watched() for provider, recipe in recipes.items()}
    with contextlib.closing(fused.batches(first)) as batches:

        def run_step(provider: str, batch: Any, step: int) -> None:
            seed = step_seed(config.seed, step, 0)
            torch.manual_seed(seed)
            generator.manual_seed(seed)
            watched[provider].measures = recipes[provider].config.measures(step)
            reference = use("reference") if provider == "reference" else contextlib.nullcontext()
            with reference, gathering(Statistics()):
                recipes[provider].train_step(batch, step, generator)
            synchronize(device)

        for index in range(WARM_UP + steps):
            batch = next(batches)
            # In turn, since the first provider loads the batch into the cache.
            first_provider = index % len(PROVIDERS)
            for provider in (*PROVIDERS[first_provider:], *PROVIDERS[:first_provider]):
                synchronize(device)
                begin = time.perf_counter()
                run_step(provider, batch, first + index)
                if index >= WARM_UP:
                    times[provider].append(time.perf_counter() - begin)
        parts = {}
        for provider in PROVIDERS:
            batch = next(batches)
            with profile(activities=_activities(device)) as profiler:
                for index in range(PROFILED):
                    with torch.profiler.record_function("step"):
                        run_step(provider, batch, first + index)
            parts[provider] = _shares(profiler, device)
    return times, parts


def _activities(device: str) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")


def _shares(profiler: profile, device: str) -> dict[str, dict[str, float]]:
    """The share of the step's time that each labelled range takes; ranges may be nested, as the optimizers'.

    On a GPU, where the profiler reports each range a second time, from its first kernel to its last, shares
    are of that time; in addition each of fastgan's operators has the share of its kernels.
    """
    events = profiler.key_averages()
    if device == "cpu":
        times = {event.key: event.cpu_time_total for event in events if event.is_user_annotation}
        return {"parts": _parts_of(times.pop("step"), times)}
    labels = {event.key for event in events if event.is_user_annotation}
    on_device = [event for event in events if event.device_type == DeviceType.CUDA]
    times = {event.key: event.device_time_total for event in on_device if event.key in labels}
    whole = times.pop("step", None)
    if whole is None:  # the profiler has no access to this GPU
        return {"parts": {}, "ops": {}}
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    ops = {
        event.key.removeprefix("fastgan::"): event.device_time_total
        for event in on_host
        if event.key.startswith("fastgan::")
    }
    return {"parts": _parts_of(whole, times), "ops": _parts_of(whole, ops)}


def _parts_of(whole: float, times: dict[str, float]) -> dict[str, float]:
    return {name: time / whole for name, time in sorted(times.items(), key=lambda item: -item[1])}


def header(row: dict[str, Any]) -> list[str]:
    """The lines above the rows of one run: machine, versions and columns."""
    return [
        f"{row['device']}, torch {row['torch']}, fastgan {row['fastgan']} ({row['commit']})",
        f"{'recipe':<12} {'preset':<7} {'precision':<10} {'provider':<24} {'mean ms':>9} {'20%':>8} "
        f"{'80%':>8} {'fastgan is':>11}  parts",
    ]


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """A recipe's rows as text: milliseconds per step, fastgan's speedup, the parts' shares."""
    text = []
    fused = next(row for row in rows if row["provider"] == "fastgan")
    for row in rows:
        faster = "" if row is fused else f"{row['mean_s'] / fused['mean_s']:.2f}x"
        parts = ", ".join(f"{name} {share:.0%}" for name, share in row["parts"].items() if share >= 0.005)
        text.append(
            f"{row['recipe']:<12} {row['preset']:<7} {row['precision']:<10} {row['provider']:<24} "
            f"{row['mean_s'] * 1e3:>9.1f} {row['p20_s'] * 1e3:>8.1f} {row['p80_s'] * 1e3:>8.1f} "
            f"{faster:>11}  {parts}"
        )
    return text
