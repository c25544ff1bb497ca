"""What a recipe contributes to the shared loop: networks, a step, samples, an evaluation."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastgan.losses import AdversarialLoss
from fastgan.optim import EMA
from fastgan.training.balance import EveryStep, make_balance, step_where
from fastgan.training.config import TrainingConfig
from fastgan.training.data import Dataset, batches, split_held_out
from fastgan.training.runtime import Runtime
from fastgan.training.statistics import report


class Recipe(abc.ABC):
    """Base of all recipes. `__init__` fills `networks` and `optimizers`; the loop does the rest."""

    name: ClassVar[str]
    config_class: ClassVar[type[TrainingConfig]]
    presets: ClassVar[Mapping[str, TrainingConfig]]
    console: ClassVar[tuple[str, ...]] = ()
    """Names of the metrics on the console's line."""
    joint_draws: ClassVar[bool] = False
    """Whether all processes get the same `generator` in a step. Such a recipe draws for all processes and
    keeps its part (:meth:`Runtime.part`), so that several processes do what one does with their batches."""

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, nn.Module]
    """Of the networks given to :meth:`moving_average`."""
    emas: list[EMA]
    """Those that :meth:`moving_average` made."""
    balance: EveryStep
    """Who trains; a policy that keeps something belongs into `networks`, for checkpoints to have it."""
    state: dict[str, float]
    """Numbers beside the networks that a resumed run needs, such as when a phase ended."""
    data: str = ""
    """How much there is to train on and to evaluate with, in a line that is said at the start."""
    notes: list[str]
    """What is odd about the data, to be said at the start; empty ones are not."""
    passed_over: Counter[str]
    """What searching for data left out, by ending."""
    images_per_epoch: int = 0
    """How many training images there are; 0: endless, and the run has no epochs."""

    def __init__(self, config: TrainingConfig, runtime: Runtime) -> None:
        self.config = config
        self.runtime = runtime
        self.averages = {}
        self.emas = []
        self.notes, self.passed_over = [], Counter()
        self.state = {}
        self.balance = make_balance(
            config.balance, ratio=config.balance_ratio, threshold=config.balance_threshold,
            target=config.balance_target,
        ).to(runtime.device)  # fmt: skip
        self.balance.average = runtime.average

    @abc.abstractmethod
    def batches(self, start_step: int) -> Generator[Any, None, None]:
        """Training batches on the device from this step on; the same for the same step."""

    @abc.abstractmethod
    def train_step(self, batch: Any, step: int, generator: torch.Generator) -> None:
        """One update of everything. Reports what is to be logged, see :mod:`fastgan.training.statistics`.

        Must not wait for the device. All randomness comes from `generator`.
        """

    @abc.abstractmethod
    def samples(self, step: int) -> dict[str, Tensor]:
        """Images (N, C, H, W) in [0, 1] by name, made from fixed inputs: one row each in the grid."""

    @abc.abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Figures on held-out data."""

    def split_held_out(self, train_path: str, val_path: str) -> tuple[list[Path], list[Path]]:
        """As :func:`fastgan.training.data.split_held_out`; fills `data` and `passed_over`."""
        train_files, val_files = split_held_out(train_path, val_path, passed_over=self.passed_over)
        self.data = f"{len(train_files)} images to train on, {len(val_files)} held out"
        return train_files, val_files

    def keep_balance(self, adversarial: AdversarialLoss) -> None:
        """Checks that the policy can judge the game; what it keeps joins the `networks` made before."""
        self.balance.check(adversarial)
        if self.balance.state_dict():
            self.networks["balance"] = self.balance

    def stream(self, dataset: Dataset, start_step: int, updates: int = 1) -> Generator[Any, None, None]:
        """This process's batches of a dataset from a step on, see :func:`fastgan.training.data.batches`.

        Args:
            updates: batches that one step takes, joined.
        """
        return batches(
            dataset,
            self.config.batch_size * updates,
            start_step=start_step,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
            workers=self.config.workers,
            device=self.runtime.device,
        )

    def moving_average(self, *names: str) -> EMA | None:
        """For the optimizer of these of `networks`, which updates it; None where ema_decay is 0."""
        if self.config.ema_decay == 0:
            return None
        networks = nn.ModuleDict({name: self.networks[name] for name in names})
        ema = EMA(networks, self.config.ema_decay, self.config.ema_warmup)
        self.averages |= {name: ema.average.get_submodule(name) for name in names}
        self.emas.append(ema)
        return ema

    def update(self, name: str, loss: Tensor, applies: Tensor | None = None) -> None:
        """One step of this of `optimizers` down the loss, its gradients averaged over the processes.

        Of D's updates, `D_updated` is reported: 1 where the step counts, 0 where `applies` is false.

        Args:
            applies: whether it counts, 0-d bool on the device; None: it does.
        """
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.runtime.average_gradients(p for group in optimizer.param_groups for p in group["params"])
        step_where(optimizer, applies)
        if name == "discriminator":
            report("D_updated", 1.0 if applies is None else applies.float())

    def watch(self, step: int, metrics: dict[str, float]) -> str | None:
        """Called in every process at each log line, with the means of what was reported since the last one.

        A returned text is shown as a warning.
        """
        return None

    def judge(self, step: int, figures: dict[str, float]) -> str | None:
        """Called in the main process after an evaluation; a returned text is shown as a warning."""
        return None

    def save_for_use(self, folder: Path) -> None:
        """Called after each checkpoint: what others may take from the run's folder goes there."""
        return

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches, of all processes together, that the training images make; at least 1.

        Raises:
            ValueError: the recipe has no epochs.
        """
        if not self.images_per_epoch:
            raise ValueError(f"{self.name} has no epochs here: give intervals and num_steps in steps")
        return max(1, self.images_per_epoch // (self.config.batch_size * self.runtime.world_size))

    def note_on_batch_size(self) -> str:
        """Of a step that takes more images than there are; "" where it does not."""
        size, world = self.config.batch_size, self.runtime.world_size
        if not 0 < self.images_per_epoch < size * world:
            return ""
        processes = f" times {world} processes" if world > 1 else ""
        return (
            f"batch_size {size}{processes} is more than the {self.images_per_epoch} training images of an "
            "epoch: a batch has some of them several times, and each step counts as an epoch"
        )

    @property
    def num_steps(self) -> int:
        """Steps to train in all."""
        config = self.config
        return config.num_epochs * self.steps_per_epoch if config.num_epochs else config.num_steps

    def epoch(self, step: int) -> float:
        """Epochs done before this step."""
        return step / self.steps_per_epoch

    def trained(self, name: str) -> nn.Module:
        """The network to use: its moving average where one is kept."""
        return self.averages.get(name, self.networks[name])
