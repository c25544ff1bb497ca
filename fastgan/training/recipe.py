"""The base class of recipes, which contribute networks, a step, samples and an evaluation to the loop."""

from __future__ import annotations

import abc
import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastgan._torch_internals import BatchNorm
from fastgan.losses import AdversarialLoss
from fastgan.monitor import LossBudget, Shares
from fastgan.monitor.look import measures_of_images
from fastgan.monitor.probes import ProbeInputs
from fastgan.monitor.watched import Watched
from fastgan.optim import EMA
from fastgan.training.balance import EveryStep, make_balance, step_where
from fastgan.training.config import TrainingConfig
from fastgan.training.data import Dataset, batches, files_digest, split_held_out
from fastgan.training.model_files import FILE_NAME, write_model
from fastgan.training.networks import statistics_kept
from fastgan.training.processes.runtime import Runtime
from fastgan.training.shards.paths import File
from fastgan.training.statistics import report, report_all

Result = TypeVar("Result")


class Recipe(abc.ABC):
    """Base of all recipes. Their `__init__` fills `networks` and `optimizers`; the loop does the rest."""

    name: ClassVar[str]
    config_class: ClassVar[type[TrainingConfig]]
    presets: ClassVar[Mapping[str, TrainingConfig]]
    console: ClassVar[tuple[str, ...]] = ()
    """Names of the metrics on the console's log lines."""
    for_use: ClassVar[tuple[str, ...]] = ()
    """Names of the networks that are used after the training, which model.safetensors gets."""
    joint_draws: ClassVar[bool] = False
    """Whether all processes and micro-batches get the same `generator` in a step. Such a recipe draws for all
    and takes its part (:meth:`Runtime.part`), so that they compute what one does with the joined batch."""

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, nn.Module]
    """Moving averages of the networks given to :meth:`moving_average`."""
    emas: list[EMA]
    """Made by :meth:`moving_average`."""
    balance: EveryStep
    """Decides who trains; a policy with a state belongs into `networks`, so that checkpoints hold it."""
    budget: LossBudget
    """Measures the shares of G's loss terms; with wanted shares it belongs into `networks`, too."""
    state: dict[str, float]
    """Further numbers that a resumed run needs, such as the step at which a phase ended."""
    data: str = ""
    """A line on the amount of training and held-out data, printed at the start."""
    notes: list[str]
    """Remarks on odd data, printed at the start; empty ones are skipped."""
    passed_over: Counter[str]
    """Counts of the files that the search for data skipped, by file extension."""
    compared: list[str]
    """Checksums of the data, which must be the same in all processes, as `data` and `images_per_epoch`."""
    images_per_epoch: int = 0
    """Number of training images; 0: endless, so that the run has no epochs."""

    def __init__(self, config: TrainingConfig, runtime: Runtime) -> None:
        self.config = config
        self.runtime = runtime
        self.averages = {}
        self.emas = []
        self.notes, self.passed_over, self.compared = [], Counter(), []
        self.state = {}
        self.balance = make_balance(
            config.balance, ratio=config.balance_ratio, threshold=config.balance_threshold,
            target=config.balance_target,
        ).to(runtime.device)  # fmt: skip
        self.balance.average = runtime.average
        self.budget = LossBudget().to(runtime.device)

    @abc.abstractmethod
    def batches(self, start_step: int) -> Generator[Any, None, None]:
        """Training batches on the device from this step on, for a step as many as `config.accumulate`.

        A step's batches are always the same.
        """

    @abc.abstractmethod
    def train_step(self, batch: Any, step: int, generator: torch.Generator) -> None:
        """One training step, which reports what is to be logged, see :mod:`fastgan.training.statistics`.

        Must not wait for the device. All randomness comes from `generator`.
        """

    @abc.abstractmethod
    def samples(self, step: int) -> dict[str, Tensor]:
        """Images (N, C, H, W) in [0, 1] by name, made from fixed inputs: one row of the grid each."""

    @abc.abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Figures on held-out data."""

    def split_held_out(self, train_path: str, val_path: str) -> tuple[list[File], list[File]]:
        """As :func:`fastgan.training.data.split_held_out`; fills `data`, `passed_over` and `compared`."""
        train_files, val_files = split_held_out(train_path, val_path, passed_over=self.passed_over)
        self.data = f"{len(train_files)} images to train on, {len(val_files)} held out"
        self.compare(train_path, train_files)
        self.compare(val_path or train_path, val_files)
        return train_files, val_files

    def compare(self, folder: str, files: Sequence[File]) -> None:
        """Has these files of a dataset compared with those that the other processes found."""
        if self.runtime.world_size > 1:
            self.compared.append(files_digest(folder, files))

    def keep_balance(self, adversarial: AdversarialLoss) -> None:
        """Checks that the policy supports the adversarial loss.

        Adds a policy with a state to `networks`, and the averages behind wanted shares of the gradient.
        """
        self.balance.check(adversarial)
        if self.balance.state_dict():
            self.networks["balance"] = self.balance
        if self.config.shares:
            self.networks["budget"] = self.budget

    def stream(self, dataset: Dataset, start_step: int, updates: int = 1) -> Generator[Any, None, None]:
        """This process's batches of a dataset from a step on, see :func:`fastgan.training.data.batches`.

        Args:
            updates: number of batches, joined, that a step takes.
        """
        return batches(
            dataset,
            self.config.batch_size * updates,
            start_step=start_step,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
            accumulate=self.runtime.micro_batches.count,
            workers=self.config.workers,
            device=self.runtime.device,
        )

    def moving_average(self, *names: str) -> EMA | None:
        """A moving average of these `networks`, which their optimizer updates; None if ema_decay is 0."""
        if self.config.ema_decay == 0:
            return None
        networks = nn.ModuleDict({name: self.networks[name] for name in names})
        ema = EMA(networks, self.config.ema_decay, self.config.ema_warmup)
        self.averages |= {name: ema.average.get_submodule(name) for name in names}
        self.emas.append(ema)
        return ema

    def update(self, name: str, loss: Tensor, applies: Tensor | None = None) -> None:
        """Minimizes the loss by one step of the named optimizer, with gradients averaged over the processes.

        With several micro-batches, the step is made by the last of them, and all return after it.
        For D, `D_updated` is reported: 1, or 0 where `applies` is false.

        Args:
            applies: whether the update applies, 0-d bool on the device; None: always.
        """
        optimizer, batches = self.optimizers[name], self.runtime.micro_batches
        with batches.update(name) as turn:
            if turn.is_first:
                optimizer.zero_grad(set_to_none=True)
            if batches.count > 1:
                loss = loss / batches.count
            with self.runtime.last_backward(optimizer) if turn.is_last else contextlib.nullcontext():
                loss.backward()
            if turn.is_last:
                step_where(optimizer, applies)
        if name == "discriminator":
            report("D_updated", 1.0 if applies is None else applies.float())

    def recomputed(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Calls G; with several micro-batches, backward computes its activations anew.

        Between D's update and G's, the fakes of all micro-batches wait with their graphs, whose activations
        would take the memory of the whole batch.
        """
        if self.runtime.micro_batches.count == 1:
            return function(*arguments)
        return checkpoint(
            function,
            *arguments,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), statistics_kept(*self.networks.values())),
        )

    def cut(self, step: int, output: Tensor, measured: bool = True) -> Tensor:
        """An output of G for the loss terms, cut where this step measures their shares of its gradient.

        See :meth:`LossBudget.cut`; returns the output itself in other steps, without a graph, and for a
        single term.
        """
        config = self.config
        if (
            not (config.shares or config.measures(step))
            or not output.requires_grad
            or len(config.generator_terms) == 1
        ):
            return output
        return self.budget.cut(output, measured=measured)

    def update_generator(
        self, terms: Mapping[str, Tensor], weights: Mapping[str, float], *, reported: bool = True
    ) -> None:
        """Minimizes the weighted sum of the terms by one step of the optimizer "generator".

        Reports the terms and their weights, and, where :meth:`cut` has cut G's output, `share_NAME` of each
        term and `cosine_A_B` of those with weight. The option `shares` sets the weights in place of these.

        Args:
            terms: by name, 0-d; those without a graph are only reported.
            weights: of the terms, and of others, which are only reported.
            reported: False to report only shares and cosines.
        """
        trained = {name: term for name, term in terms.items() if term.requires_grad}
        used: dict[str, Tensor | float] = dict(weights)
        if self.budget.is_cut:
            wanted = self.config.wanted_shares
            given = None if wanted else {name: weights[name] for name in trained}
            loss, shares = self.budget.loss(trained, given, shares=wanted or None)
            if wanted:
                used |= shares.weight
            _report_shares(shares, [name for name in trained if wanted or weights[name] != 0])
        else:
            loss = torch.stack([weights[name] * term for name, term in trained.items()]).sum()
            if self.config.budget_interval and len(terms) == 1:
                report_all(dict.fromkeys(trained, 1.0), prefix="share_")
        self.update("generator", loss)
        if reported:
            report_all(terms)
            report_all(used, suffix="_weight")

    def watched(self) -> Watched:
        """Hooks on the optimizers that report the networks' updates: G's, D's, and others' by their names."""
        watched = Watched(report)
        if self.config.budget_interval:
            short = {"generator": "G", "discriminator": "D"}
            networks = {short.get(name, name): network for name, network in self.networks.items()}
            watched.add(networks, self.optimizers.values())
        return watched

    def look(self, step: int, real: Tensor, fake: Tensor) -> None:
        """Reports ranges and spread of real and fake images, as D sees them, if this step measures them."""
        if self.config.measures(step):
            report_all(measures_of_images(real, fake))
            for name, loss in vars(self).items():
                assumed = getattr(loss, "value_range", None) if isinstance(loss, nn.Module) else None
                if assumed is not None:
                    report_all({f"{name}_range_low": assumed[0], f"{name}_range_high": assumed[1]})

    def probe_inputs(self) -> ProbeInputs | None:
        """Called in the main process at an evaluation: what the monitor's probes compare; None: no probes."""
        return None

    def watch(self, step: int, metrics: dict[str, float]) -> str | None:
        """Called in every process at each log line, with the means of what was reported since the last one.

        A returned text is shown as a warning.
        """
        return None

    def save_for_use(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Called after each checkpoint, to save in the run's folder what is used without the trainer.

        Writes model.safetensors: the networks of `for_use`, their averages where there are any. It runs while
        the training goes on, and so takes weights from `tensors`, never from the networks.

        Args:
            folder: the run's.
            tensors: those of the checkpoint, by their names there, such as "networks/generator/0.weight".
        """
        if self.for_use:
            weights: dict[str, Tensor] = {}
            for name in self.for_use:
                prefix = f"{'averages' if name in self.averages else 'networks'}/{name}/"
                own = (key for key in tensors if key.startswith(prefix))
                weights |= {f"{name}.{key.removeprefix(prefix)}": tensors[key] for key in own}
            write_model(folder / FILE_NAME, self.name, self.config, weights, self.about_for_use())

    def about_for_use(self) -> dict[str, Any]:
        """What else the model needs, as JSON, such as the names of categories."""
        return {}

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches, of all processes together, in an epoch; at least 1.

        Raises:
            ValueError: the recipe has no epochs.
        """
        if not self.images_per_epoch:
            raise ValueError(f"{self.name} has no epochs here: give intervals and num_steps in steps")
        return max(1, self.images_per_epoch // (self.config.batch_size * self.runtime.shares))

    def note_on_accumulation(self) -> str:
        """A note if micro-batches are not the whole batch to the networks; "" otherwise."""
        layers = (module for network in self.networks.values() for module in network.modules())
        if self.config.accumulate == 1 or not any(isinstance(layer, BatchNorm) for layer in layers):
            return ""
        size = self.config.batch_size * self.runtime.world_size
        return f"accumulate {self.config.accumulate}: batch normalization sees {size} images at a time"

    def note_on_batch_size(self) -> str:
        """A note if a step takes more images than an epoch has; "" otherwise."""
        size, world, count = self.config.batch_size, self.runtime.world_size, self.config.accumulate
        if not 0 < self.images_per_epoch < size * world * count:
            return ""
        processes = f" times {world} processes" if world > 1 else ""
        processes += f" times {count} micro-batches" if count > 1 else ""
        return (
            f"batch_size {size}{processes} is more than the {self.images_per_epoch} training images of an "
            "epoch: a batch has some of them several times, and each step counts as an epoch"
        )

    @property
    def num_steps(self) -> int:
        """Total number of steps to train."""
        config = self.config
        return config.num_epochs * self.steps_per_epoch if config.num_epochs else config.num_steps

    def epoch(self, step: int) -> float:
        """Epochs completed before this step."""
        return step / self.steps_per_epoch

    def trained(self, name: str) -> nn.Module:
        """The network for use: its moving average if one is kept."""
        return self.averages.get(name, self.networks[name])


def _report_shares(shares: Shares, weighted: list[str]) -> None:
    report_all(shares.share, prefix="share_")
    for (first, second), cosine in shares.cosines().items():
        if first in weighted and second in weighted:
            report(f"cosine_{first}_{second}", cosine)
