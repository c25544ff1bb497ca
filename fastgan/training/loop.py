"""The training loop of all recipes. Read `train` from top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import record_function

from fastgan._names import printable
from fastgan._tables import rounded
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.facts import write_facts
from fastgan.monitor.probes import probe
from fastgan.training import checkpoint as checkpoints
from fastgan.training.checkpoint_writer import CheckpointWriter
from fastgan.training.config import INTERVALS, TrainingConfig
from fastgan.training.console import lasting_console
from fastgan.training.data import describe_passed_over
from fastgan.training.diagnose import replayed
from fastgan.training.images import save_grid
from fastgan.training.logging import Logger, check_finite, one_error_from_tensorboard
from fastgan.training.memory import keep_freed_memory
from fastgan.training.processes.runtime import Runtime
from fastgan.training.recipe import Recipe
from fastgan.training.report.running import RunningReport
from fastgan.training.resume import resume_from
from fastgan.training.run_folder import prepare_run_folder, take_over
from fastgan.training.run_lock import RunLock, run_lock
from fastgan.training.signals import Interrupted as Interrupted
from fastgan.training.signals import stop_after_the_step
from fastgan.training.statistics import Statistics, gathering


def train(recipe_class: type[Recipe], config: TrainingConfig) -> Path:
    """Trains a recipe and returns the run's folder.

    Raises:
        Interrupted: stopped by Ctrl-C, SIGTERM or SIGHUP; the run can be resumed.
        FloatingPointError: the state that a checkpoint would hold became NaN or infinite, or only a logged
            term did; earlier checkpoints are finite and stay.
        OSError, ValueError: the folder, the data or a checkpoint cannot be used; the message names it.
        ProcessFailed: one of several processes had such an error; the message names process and error.
    """
    with lasting_console(), one_error_from_tensorboard():
        runtime = Runtime(config)
        with runtime.together():
            if runtime.device.type == "cpu":
                keep_freed_memory()
            config = runtime.broadcast_object(config)  # others do not have the run's folder, and its options
            config = config.shared_by(runtime.world_size)
            with run_lock(config.folder) if runtime.is_main else contextlib.nullcontext() as lock:
                return _train(recipe_class, config, runtime, lock)


def _train(
    recipe_class: type[Recipe], config: TrainingConfig, runtime: Runtime, lock: RunLock | None
) -> Path:
    folder, checkpoint = config.folder, None
    # A restart by torchrun resumes from the newest checkpoint, not from the one chosen for the first start.
    chosen = None if lock and lock.restarts_own_run else config.checkpoint
    config = dataclasses.replace(config, checkpoint=None)
    if lock:
        resume = config.resume or ("auto" if lock.restarts_own_run else False)
        prepare_run_folder(config, resume)
        checkpoint = _checkpoint_to_resume(folder, recipe_class.name, chosen) if resume else None
        lock.begin()
    # All processes resume from the checkpoint that the first one found, without reading its file.
    checkpoint = runtime.broadcast_object(checkpoint)

    torch.manual_seed(config.seed)  # the same initial weights in every process
    recipe = recipe_class(config, runtime)
    _check_same_data(recipe)
    start, changed = 0, []
    if checkpoint:
        start, changed = checkpoint.step, resume_from(recipe, checkpoint)
    runtime.barrier()  # change the folder only once every process has accepted the checkpoint
    notice = None
    if lock:
        if checkpoint:
            checkpoints.set_aside_newer(checkpoint, chosen is not None)
        notice = take_over(config, folder, start if checkpoint else None)
        if checkpoint:
            # The run may have been killed between its checkpoint and this.
            recipe.save_for_use(folder, checkpoints.state_tensors(recipe))
    del checkpoint
    runtime.broadcast(*recipe.networks.values(), *recipe.averages.values())

    runtime.observe(recipe.networks.values())

    num_steps = recipe.num_steps
    intervals = {name: getattr(config, name) or recipe.steps_per_epoch for name in INTERVALS}

    watched = recipe.watched()
    logger = None
    if runtime.is_main:
        diagnosis = _diagnosis(recipe, folder)
        logger = Logger(folder, start, num_steps, recipe.console, config.max_minutes)
        running_report = RunningReport(folder, recipe.name, logger.say)
        for line in introduction(recipe):
            logger.say(line)
        if notice:
            logger.say(notice)
        if changed:
            logger.say(f"resumed with: {', '.join(changed)}")
        if start >= num_steps:
            logger.say(f"nothing left to do: {start} steps are done, of {num_steps}")
    in_turns = runtime.micro_batches
    generators = [torch.Generator(runtime.device) for _ in range(in_turns.count)]
    statistics, steps = Statistics(), 0  # since the last log line
    stop = False
    clock = time.perf_counter()
    deadline = clock + 60 * config.max_minutes if config.max_minutes else math.inf
    with (
        contextlib.closing(recipe.batches(start)) as batches,
        contextlib.closing(in_turns),
        stop_after_the_step() as stopped,
        CheckpointWriter(
            folder,
            config.keep_checkpoints,
            logger.say if logger else print,
            check_folder=lock.check if lock else lambda: None,
        ) as writer,
    ):
        for step in range(start, num_steps):
            with record_function("data"):
                taken = [next(batches) for _ in generators]
            with record_function("train_step"), gathering(statistics):
                watched.measures = config.measures(step)
                parts = [
                    partial(_train_on, recipe, batch, step, generator)
                    for batch, generator in zip(taken, generators, strict=True)
                ]
                in_turns.run(parts, recipe.networks.values(), runtime.device)
            steps += 1

            done = step + 1
            if lock:
                lock.check()
            writer.check()
            if logger:
                logger.advance()
            last = done == num_steps
            if runtime.world_size == 1:
                last = last or time.perf_counter() >= deadline
            if done % intervals["log_interval"] == 0 or last:
                with record_function("log"):
                    with gathering(statistics):
                        watched.finish()
                    # The only place where the host waits for the device.
                    metrics = statistics.take(runtime.device, runtime.gather_objects)
                finite = all(map(math.isfinite, metrics.values()))
                images = steps * config.batch_size * runtime.shares
                seconds = time.perf_counter() - clock
                metrics["images_per_second"] = images / seconds
                metrics["seconds_per_step"] = seconds / steps
                if logger:
                    logger.write(done, metrics)
                    _diagnose(diagnosis, done, metrics, logger)
                if not finite:
                    # Name a non-finite weight first: it is the cause, the term only a symptom.
                    checkpoints.check_finite_state(recipe, done, writer.newest)
                check_finite(metrics, done)
                warning = recipe.watch(done, metrics)
                if logger and warning:
                    logger.warn(done, warning)
                # All processes must stop at the same step, so they agree on it here.
                stop = runtime.any(stopped[0] > 0)
                last = last or runtime.any(time.perf_counter() >= deadline)
                steps, clock = 0, time.perf_counter()
            if runtime.world_size == 1:
                stop = stopped[0] > 0
            pause_start = time.perf_counter()
            if last or stop or any(done % intervals[name] == 0 for name in INTERVALS[1:]):
                # Checked before the weights are used: with NaN, an evaluation may fail in other ways.
                checkpoints.check_finite_state(recipe, done, writer.newest)
            if logger and (done % intervals["sample_interval"] == 0 or last):
                with _evaluating(recipe):
                    images_by_name = recipe.samples(done)
                save_grid(images_by_name, folder / "samples" / f"step-{done:08d}.png")
                logger.write_images(done, images_by_name)
            if logger and (done % intervals["eval_interval"] == 0 or last):
                with _evaluating(recipe):
                    figures = recipe.evaluate()
                    if config.budget_interval and (inputs := recipe.probe_inputs()):
                        figures |= probe(inputs, recipe.networks.get("discriminator"))
                logger.write_evaluation(done, figures)
                _diagnose(diagnosis, done, figures, logger)
                running_report.write(diagnosis, is_last=last)
            if logger and (done % intervals["checkpoint_interval"] == 0 or last or stop):
                path = writer.save(recipe, done)
                if last or stop:
                    writer.wait()
            clock += time.perf_counter() - pause_start  # so that both speeds measure training alone
            if stop and not last:
                if logger:
                    logger.say(
                        f"stopped after step {done}; saved {printable(path)}; continue with --resume auto"
                    )
                    logger.close()
                raise Interrupted(f"stopped after step {done}", stopped[0] or signal.SIGTERM)
            if last:
                if logger and done < num_steps:
                    logger.say(f"ended after step {done}: {config.max_minutes:g} minutes are over")
                break
    watched.remove()
    if logger:
        logger.close()
    return folder


def _train_on(recipe: Recipe, batch: Any, step: int, generator: torch.Generator) -> None:
    """One step on a batch, or on one of its micro-batches."""
    runtime = recipe.runtime
    seed = step_seed(recipe.config.seed, step, runtime.share)
    torch.manual_seed(seed)
    generator.manual_seed(step_seed(recipe.config.seed, step, 0) if recipe.joint_draws else seed)
    recipe.train_step(batch, step, generator)


def _diagnosis(recipe: Recipe, folder: Path) -> Diagnosis:
    """The verdicts so far, of a resumed run from its tables, and the facts of the run for its folder."""
    facts = dataclasses.replace(recipe.config.facts(), num_steps=recipe.num_steps)
    write_facts(folder, facts)
    return replayed(folder, facts)


def _check_same_data(recipe: Recipe) -> None:
    """Raises a ValueError if the processes have not found the same data, as on different disks."""
    found = (recipe.data, recipe.images_per_epoch, recipe.compared)
    expected = recipe.runtime.broadcast_object(found)
    if found == expected:
        return
    here, main = (data or f"{count} training images" for data, count, _ in (found, expected))
    if here == main:
        here, main = f"{here}, but of other names or in other shards", main
    raise ValueError(f"the data on this machine is not rank 0's: {here}; there: {main}")


def _diagnose(diagnosis: Diagnosis, step: int, figures: dict[str, float], logger: Logger) -> None:
    """Adds figures to the diagnosis, and prints which verdicts are new and which were taken back."""
    before = len(diagnosis.past)
    new = diagnosis.add(step, rounded(figures))
    logger.write_verdicts(step, new, diagnosis.past[before:])


def introduction(recipe: Recipe) -> list[str]:
    """The lines that a run begins with: its data, device and networks."""
    runtime = recipe.runtime
    passed_over = describe_passed_over(recipe.passed_over)
    data = printable(recipe.data) + (f"; passed over: {passed_over}" if passed_over else "")
    device = "CPU" if runtime.device.type == "cpu" else torch.cuda.get_device_name(runtime.device)
    processes = f"{runtime.world_size} processes, " if runtime.world_size > 1 else ""
    if runtime.shares > runtime.world_size:
        processes += f"{runtime.micro_batches.count} micro-batches of {recipe.config.batch_size}, "
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in recipe.networks.items()}
    networks = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
    return [
        *([f"data: {data}"] if data else []),
        f"device: {processes}{device}, {recipe.config.precision}",
        f"parameters: {networks}",
        *(
            f"note: {printable(note)}"
            for note in (*recipe.notes, recipe.note_on_batch_size(), recipe.note_on_accumulation())
            if note
        ),
    ]


def step_seed(seed: int, step: int, share: int) -> int:
    """The seed of everything random in one step of one process, or of one of its micro-batches."""
    return int(np.random.SeedSequence((seed, step, share)).generate_state(1, np.uint64)[0] >> 1)


def _checkpoint_to_resume(folder: Path, recipe: str, step: int | None) -> checkpoints.Checkpoint | None:
    """The checkpoint to resume from; None if there is none, which `--resume true` has refused before."""
    if step is not None:
        chosen = checkpoints.checkpoint_of_step(folder / "checkpoints", step)
        return checkpoints.load_checkpoint(chosen, recipe)
    try:
        return checkpoints.load_checkpoint(folder / "checkpoints", recipe)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _evaluating(recipe: Recipe) -> Iterator[None]:
    """Puts networks in eval mode, without gradients, for samples and evaluation."""
    networks: list[nn.Module] = [*recipe.networks.values()]
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
