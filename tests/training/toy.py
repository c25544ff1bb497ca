"""A recipe of two tiny networks for tests of the loop."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fastgan.losses import AdversarialLoss
from fastgan.optim import Adam
from fastgan.training.config import TrainingConfig
from fastgan.training.recipe import Recipe
from fastgan.training.statistics import report_all


@dataclass(frozen=True)
class ToyConfig(TrainingConfig):
    """A toy."""

    lr: float = 0.001
    """Learning rate of both networks."""
    fail_at: int = -1
    """Step whose loss becomes NaN."""


def toy_config(folder: Path, num_steps: int, log_interval: int) -> ToyConfig:
    """Of a run in the folder, with samples and evaluation half way and at the end, or at the end alone."""
    return ToyConfig(
        runs_path=str(folder), exp_name="run", num_steps=num_steps, log_interval=log_interval,
        sample_interval=max(4, num_steps // 2), eval_interval=max(4, num_steps // 2),
        checkpoint_interval=num_steps // 2, accelerator="cpu", ema_decay=0.9,
    )  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    """Of a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Toy(Recipe):
    name = "toy"
    config_class = ToyConfig
    presets = {"fast": ToyConfig(lr=0.1, log_interval=7)}  # noqa: RUF012
    console = ("loss_d",)
    config: ToyConfig

    def __init__(self, config, runtime):
        super().__init__(config, runtime)
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 16)).to(runtime.device)
        self.discriminator = nn.Linear(16, 1).to(runtime.device)
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        self.optimizers = {
            "generator": Adam(self.generator.parameters(), config.lr, ema=self.moving_average("generator")),
            "discriminator": Adam(self.discriminator.parameters(), config.lr, (0.5, 0.9)),
        }
        self.loss = AdversarialLoss("nonsaturating")

    def batches(self, start_step: int) -> Iterator[Tensor]:
        runtime, own = self.runtime, self.config.accumulate
        step = start_step
        while True:
            count = self.config.batch_size * runtime.shares
            joined = torch.randn(count, 16, generator=torch.Generator().manual_seed(step))
            parts = joined.chunk(runtime.shares)[runtime.rank * own : (runtime.rank + 1) * own]
            yield from (part.to(runtime.device) for part in parts)
            step += 1

    def train_step(self, batch: Tensor, step: int, generator: torch.Generator) -> None:
        z = torch.randn(len(batch), 4, generator=generator, device=batch.device)
        fake = self.generator(z)
        loss_g = self.loss.generator(self.discriminator(fake))
        self.update("generator", loss_g)
        loss_d = self.loss.discriminator(self.discriminator(batch), self.discriminator(fake.detach()))
        if step == self.config.fail_at:
            loss_d = loss_d * float("nan")
        self.update("discriminator", loss_d)
        self.state["steps_seen"] = self.state.get("steps_seen", 0) + 1
        report_all({"loss_g": loss_g, "loss_d": loss_d, "lr": self.config.lr})

    def samples(self, step: int) -> dict[str, Tensor]:
        return {"fakes": self.trained("generator")(torch.ones(3, 4)).view(3, 1, 4, 4).sigmoid()}

    def evaluate(self) -> dict[str, float]:
        return {"mean": self.trained("generator")(torch.ones(1, 4)).mean().item()}
