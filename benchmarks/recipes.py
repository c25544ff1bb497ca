"""`fastgan bench recipes`: the training step of each recipe, fused against the reference, and its parts.

Both do the same steps on the same batches with the same random numbers, in turn, as the trainers do: freed
memory is kept, and steps with a lazy penalty count as often as they come.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from fastgan.bench.harness import synchronize
from fastgan.bench.machine import describe_machine, merge_rows
from torch.profiler import ProfilerActivity, profile

from fastgan.ops import use
from fastgan.recipes import RECIPES, load_recipe
from fastgan.training.config import TrainingConfig
from fastgan.training.loop import step_seed
from fastgan.training.memory import keep_freed_memory
from fastgan.training.recipe import Recipe
from fastgan.training.runtime import Runtime

PROVIDERS = ("fastgan", "reference")
WARM_UP = 3
PROFILED = 4


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fastgan bench recipes",
        description="Times each recipe's training step, fused and as PyTorch reference, in one run.",
    )
    parser.add_argument("recipe", nargs="?", choices=list(RECIPES), help="default: all")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--preset", default="demo", help="settings to time (default: demo)")
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--train_path", help="photographs for presets that name none")
    parser.add_argument("--steps", type=int, default=32, help="steps of each (default: 32)")
    parser.add_argument("--output", type=Path, help="folder for recipes-<device name>.json")
    options = parser.parse_args(arguments)
    if options.device == "cpu":
        keep_freed_memory()
    machine = describe_machine(options.device)
    rows: list[dict[str, Any]] = []
    for name in [options.recipe] if options.recipe else RECIPES:
        rows += [row | machine for row in measure(name, options)]
    print(table(rows))
    if options.output:
        keys = ("recipe", "preset", "precision")
        path = merge_rows(rows, options.output, "recipes", machine["device"], keys)
        print(f"\nwritten to {path}")
    return 0


def measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per provider."""
    recipe_class = load_recipe(name)
    with tempfile.TemporaryDirectory() as folder:
        changes: dict[str, Any] = {
            "runs_path": folder, "accelerator": options.device, "precision": options.precision
        }  # fmt: skip
        if options.train_path:
            changes["train_path"] = options.train_path
        config = dataclasses.replace(recipe_class.presets[options.preset], **changes)
        recipes = {provider: _make(recipe_class, config) for provider in PROVIDERS}
        times, parts = _steps(recipes, config, options)
    rows = []
    for provider, seconds in times.items():
        quantiles = statistics.quantiles(seconds, n=5)
        rows.append(
            {
                "recipe": name, "preset": options.preset, "precision": options.precision,
                "batch_size": config.batch_size, "provider": provider, "steps": len(seconds),
                "mean_s": statistics.fmean(seconds), "median_s": statistics.median(seconds),
                "p20_s": quantiles[0], "p80_s": quantiles[3], "parts": parts[provider],
            }
        )  # fmt: skip
    return rows


def _make(recipe_class: type[Recipe], config: TrainingConfig) -> Recipe:
    torch.manual_seed(config.seed)
    return recipe_class(config, Runtime(config))


def _steps(
    recipes: dict[str, Recipe], config: TrainingConfig, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Seconds of each step, and the share of each labelled part, by provider."""
    # From the middle of the run on, where ramps have risen and every term takes part.
    first = config.num_steps // 2
    times: dict[str, list[float]] = {provider: [] for provider in recipes}
    one = recipes["fastgan"]
    generator = torch.Generator(one.runtime.device)
    with contextlib.closing(one.batches(first)) as batches:

        def step_of(provider: str, batch: Any, step: int) -> None:
            seed = step_seed(config.seed, step, 0)
            torch.manual_seed(seed)
            generator.manual_seed(seed)
            with use("reference") if provider == "reference" else contextlib.nullcontext():
                recipes[provider].train_step(batch, step, generator)
            synchronize(options.device)

        for index in range(WARM_UP + options.steps):
            batch = next(batches)
            # Each goes first as often as second: the second finds the batch in the cache.
            for provider in PROVIDERS if index % 2 else PROVIDERS[::-1]:
                synchronize(options.device)
                begin = time.perf_counter()
                step_of(provider, batch, first + index)
                if index >= WARM_UP:
                    times[provider].append(time.perf_counter() - begin)
        parts = {}
        for provider in PROVIDERS:
            batch = next(batches)
            with profile(activities=_activities(options.device)) as profiler:
                for index in range(PROFILED):
                    with torch.profiler.record_function("step"):
                        step_of(provider, batch, first + index)
            parts[provider] = _shares(profiler)
    return times, parts


def _activities(device: str) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")


def _shares(profiler: profile) -> dict[str, float]:
    """What part of the step each labelled range takes; some lie within others, as the optimizers' do."""
    annotated = {
        event.key: event.cpu_time_total for event in profiler.key_averages() if event.is_user_annotation
    }
    whole = annotated.pop("step")
    return {name: time / whole for name, time in sorted(annotated.items(), key=lambda item: -item[1])}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of one run as text: milliseconds per step, how much faster fastgan is, the parts' shares."""
    lines = [
        f"{rows[0]['device']}, torch {rows[0]['torch']}, fastgan {rows[0]['fastgan']} ({rows[0]['commit']})",
        f"{'recipe':<12} {'preset':<7} {'precision':<10} {'provider':<10} {'mean ms':>9} {'20%':>8} "
        f"{'80%':>8} {'fastgan is':>11}  parts",
    ]
    for row in rows:
        same = ("recipe", "preset", "precision")
        ours = next(r for r in rows if r["provider"] == "fastgan" and all(r[key] == row[key] for key in same))
        faster = "" if row is ours else f"{row['mean_s'] / ours['mean_s']:.2f}x"
        parts = ", ".join(f"{name} {share:.0%}" for name, share in row["parts"].items() if share >= 0.005)
        lines.append(
            f"{row['recipe']:<12} {row['preset']:<7} {row['precision']:<10} {row['provider']:<10} "
            f"{row['mean_s'] * 1e3:>9.1f} {row['p20_s'] * 1e3:>8.1f} {row['p80_s'] * 1e3:>8.1f} "
            f"{faster:>11}  {parts}"
        )
    return "\n".join(lines)
