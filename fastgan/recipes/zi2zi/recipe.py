"""zi2zi: characters of one font, drawn in the style of others.

Yuchen Tian, "zi2zi: Master Chinese Calligraphy with Conditional Adversarial Networks", 2017. In each step G
draws glyphs of the source font in the styles of their categories; D learns to tell pairs of source and result
from pairs of source and target, and to recognize their category; G learns from D, from the target's pixels,
and to encode a character alike in every font.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import record_function

from fastgan._files import replacing
from fastgan._names import printable
from fastgan.losses import AdversarialLoss, CategoryLoss, PerceptualLoss
from fastgan.metrics import ssim
from fastgan.monitor.probes import ProbeInputs
from fastgan.optim import Adam
from fastgan.recipes.zi2zi.config import PRESETS, Zi2ZiConfig
from fastgan.recipes.zi2zi.data import PairImages, find_pairs, read_about, split_characters
from fastgan.recipes.zi2zi.glyphs import JSON
from fastgan.recipes.zi2zi.model import Zi2ZiModel, make_generator
from fastgan.recipes.zi2zi.networks import Zi2ZiDiscriminator
from fastgan.training.data import first_batch
from fastgan.training.networks import (
    frozen,
    normalizing_by_batch,
    statistics_kept,
    weights_wanted_by,
)
from fastgan.training.processes.runtime import Runtime
from fastgan.training.ramps import ramp
from fastgan.training.recipe import Recipe
from fastgan.training.statistics import report, report_all

PERCEPTUAL_LAYERS = ("relu1_2", "relu2_2")
SAMPLES = 16
PROBED = 64


class Batch(NamedTuple):
    """A training batch."""

    source: Tensor
    """Glyphs of the source font: N C H W in [-1, 1]."""
    target: Tensor
    """The same characters in the categories' fonts."""
    category: Tensor
    """(N,), int64."""


class Zi2Zi(Recipe):
    name = "zi2zi"
    config_class = Zi2ZiConfig
    presets = PRESETS
    for_use = Zi2ZiModel.names
    console = ("l1_loss", "const_loss", "category_loss", "G_loss", "D_loss", "images_per_second")
    joint_draws = True
    config: Zi2ZiConfig

    def __init__(self, config: Zi2ZiConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        device = runtime.device
        pairs, self.categories = find_pairs(config.train_path, self.passed_over)
        self.compare(config.train_path, [pair.path for pair in pairs])
        labels = repr([(pair.category, pair.character) for pair in pairs])
        self.compared.append(hashlib.sha256(labels.encode(errors="surrogateescape")).hexdigest())
        # Read now, not at each checkpoint, whose thread would then wait for shards of a URL.
        self.about = read_about(config.train_path) or {
            "categories": [{"name": name} for name in self.categories]
        }
        self.category_num = config.category_num or len(self.categories)
        if self.category_num < len(self.categories):
            raise ValueError(
                f"category_num must be at least {len(self.categories)}, the number of categories in "
                f"{printable(config.train_path)}, got {self.category_num}"
            )
        train, held_out = split_characters(pairs, config.held_out, config.held_out_seed)
        self.data = (
            f"{len(train)} pairs of {len(self.categories)} categories to train on, {len(held_out)} held out"
        )
        size, side = config.image_size, config.source_side
        reading = config.reading
        self.train_pairs = PairImages(train, size, side, config.augment, config.seed, reading)
        self.held_out_pairs = PairImages(held_out, size, side, reading=reading)
        self.images_per_epoch = len(train)

        self.generator = make_generator(config, self.category_num).to(device)
        self.discriminator = Zi2ZiDiscriminator(
            config.channels, self.category_num, config.d_width, config.norm, config.d_spectral_norm
        ).to(device)
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        betas = (config.beta1, 0.999)
        self.optimizers = {
            "generator": Adam(
                self.generator.parameters(), config.lr, betas, ema=self.moving_average("generator")
            ),
            "discriminator": Adam(self.discriminator.parameters(), config.lr, betas),
        }
        self.adversarial = AdversarialLoss("bce")
        self.category_loss = CategoryLoss(self.category_num)
        self.keep_balance(self.adversarial)
        self.perceptual = self._perceptual_loss() if config.perceptual_weight > 0 else None

    def _perceptual_loss(self) -> PerceptualLoss:
        weight = f"{self.config.perceptual_weight:g}"
        with weights_wanted_by("perceptual_weight", weight, "train without it: --perceptual_weight 0"):
            return PerceptualLoss(
                PERCEPTUAL_LAYERS, device=self.runtime.device, download=self.config.download_weights
            )

    def batches(self, start_step: int) -> Generator[Batch, None, None]:
        for image, category in self.stream(self.train_pairs, start_step):
            yield self.as_trained(image, category)

    def as_trained(self, image: Tensor, category: Tensor) -> Batch:
        """Converts pairs N 3 H 2W in [0, 1] and their categories to a batch."""
        image = image if self.config.channels == 3 else image.mean(1, keepdim=True)
        source, target = (image * 2 - 1).chunk(2, dim=3)
        return Batch(source.contiguous(), target.contiguous(), category)

    # --- one step -----------------------------------------------------------------------------------------

    def train_step(self, batch: Batch, step: int, generator: torch.Generator) -> None:
        self._set_learning_rate(step)
        trains_d, trains_g = self.balance.trains_discriminator(step), self.balance.trains_generator(step)
        with record_function("translate"), torch.set_grad_enabled(trains_g):
            fake, feature = self.translate(batch)
        self.look(step, batch.target, fake)
        if trains_d:
            with record_function("discriminator_step"):
                self.discriminator_step(batch, fake.detach())
        if trains_g:
            weights = self.weights(step)
            with record_function("generator_step"):
                self.generator_step(batch, fake, feature, weights, step)
                for _ in range(self.config.g_updates - 1):
                    self.generator_step(batch, *self.translate(batch), weights, step)

    def translate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """G's output, and its encoder's features of the source, averaged over space."""
        with self.runtime.autocast():
            fake, feature = self.recomputed(self.generator, batch.source, batch.category, True)
        return fake.float(), feature.float()

    def discriminate(self, source: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """D's logits of patches and of categories."""
        with self.runtime.autocast():
            logits, category_logits = self.discriminator(source, image)
        return logits.float(), category_logits.float()

    def discriminator_step(self, batch: Batch, fake: Tensor) -> None:
        """Updates D, if the balance policy applies the update."""
        weight = self.config.category_weight
        real_logits, real_category = self.discriminate(batch.source, batch.target)
        fake_logits, fake_category = self.discriminate(batch.source, fake)
        decision = self.balance.discriminator_loss(self.adversarial, real_logits, fake_logits)
        category_loss = (
            self.category_loss(real_category, batch.category)
            + self.category_loss(fake_category, batch.category)
        ) / 2
        self.update("discriminator", decision.loss + weight * category_loss, decision.applies)
        report_all(decision.terms())
        report("D_category_loss", category_loss)
        report("D_category_loss_weight", weight)
        report("D_accuracy_category", (real_category.detach().argmax(1) == batch.category).float().mean())

    def generator_step(
        self, batch: Batch, fake: Tensor, feature: Tensor, weights: dict[str, float], step: int
    ) -> None:
        """Updates G."""
        fake = self.cut(step, fake)
        # With const_of=real, the constancy loss reaches G here only, and not through its glyphs.
        feature = self.cut(step, feature, measured=self.config.const_of == "real")
        with frozen(self.discriminator):
            logits, category_logits = self.discriminate(batch.source, fake)
        losses = {
            "G_loss": self.adversarial.generator(logits),
            "category_loss": self.category_loss(category_logits, batch.category),
            "l1_loss": F.l1_loss(fake, batch.target),
            "const_loss": F.mse_loss(feature, self.target_features(batch, fake)),
        }
        if self.perceptual is not None:
            losses["perceptual_loss"] = self.perceptual(fake, batch.target)
        self.update_generator(losses, weights)

    def target_features(self, batch: Batch, fake: Tensor) -> Tensor:
        """The encoder's features of the target, or of G's output, for the constancy loss."""
        # Running statistics are kept, because in use the encoder sees sources only.
        with self.runtime.autocast(), statistics_kept(self.generator):
            return self.generator.encode(batch.target if self.config.const_of == "real" else fake).float()

    def weights(self, step: int) -> dict[str, float]:
        """The weight of each of G's terms at this step."""
        config, epoch = self.config, self.epoch(step)
        weights = {
            "G_loss": 1.0,
            "category_loss": config.category_weight,
            "l1_loss": config.l1_weight * ramp(epoch, config.l1_ramp_epochs),
            "const_loss": config.const_weight * ramp(epoch, config.const_ramp_epochs),
        }
        if config.perceptual_weight > 0:
            weights["perceptual_loss"] = config.perceptual_weight
        return weights

    def _set_learning_rate(self, step: int) -> None:
        config = self.config
        halved = int(self.epoch(step)) // config.schedule if config.schedule else 0
        lr = max(config.lr * 0.5**halved, config.lr_floor)
        for optimizer in self.optimizers.values():
            optimizer.param_groups[0]["lr"] = lr
        report("lr", lr)

    # --- what the loop asks for beside the step -----------------------------------------------------------

    def held_out(self, count: int) -> Batch:
        """A fixed batch of pairs of held-out characters."""
        count = min(count, len(self.held_out_pairs))
        return self.as_trained(*first_batch(self.held_out_pairs, count, self.runtime.device))

    def draw(self, batch: Batch) -> Tensor:
        """The averaged generator's glyphs, in [-1, 1]."""
        generator = self.trained("generator")
        parts = zip(batch.source.split(64), batch.category.split(64), strict=True)
        return torch.cat([generator(source, category) for source, category in parts])

    def samples(self, step: int) -> dict[str, Tensor]:
        batch = self.held_out(SAMPLES)
        rows = {"source": batch.source, "generated": self.draw(batch), "target": batch.target}
        return {name: row / 2 + 0.5 for name, row in rows.items()}

    def evaluate(self) -> dict[str, float]:
        """Distances of held-out characters' glyphs from their targets, compared with the source glyphs'.

        Values are in [0, 1]; the ratio is given over all glyphs, and for the category where it is largest.
        """
        batch = self.held_out(self.config.val_images)
        source, drawn, target = (x / 2 + 0.5 for x in (batch.source, self.draw(batch), batch.target))
        errors = torch.stack([(x - target).abs().mean((1, 2, 3)) for x in (drawn, source)])
        l1, l1_of_source = errors.mean(1).tolist()
        sums_by_category = (errors[:, batch.category == k].sum(1) for k in batch.category.unique())
        return {
            "l1": l1,
            "l1_of_source": l1_of_source,
            "l1_ratio": l1 / max(l1_of_source, 1e-12),
            "l1_ratio_worst": max((a / b.clamp(min=1e-12)).item() for a, b in sums_by_category),
            "ssim": ssim(drawn, target).item(),
            "ssim_of_source": ssim(source, target).item(),
        }

    def probe_inputs(self) -> ProbeInputs:
        held_out = self.held_out(PROBED)
        count = len(held_out.source)
        train = self.as_trained(*first_batch(self.train_pairs, count, self.runtime.device))
        discriminator = normalizing_by_batch(self.discriminator)

        def paired(batch: Batch, image: Tensor) -> Tensor:
            return torch.cat([batch.source, image], dim=1)

        return ProbeInputs(
            lambda pair: discriminator(*pair.chunk(2, dim=1))[0],
            paired(train, train.target),
            paired(held_out, held_out.target),
            paired(held_out, self.draw(held_out)),
        )

    def save_for_use(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Also writes glyphs.json, see :meth:`about_for_use`."""
        super().save_for_use(folder, tensors)
        with replacing(folder / JSON) as file:
            file.write(json.dumps(self.about_for_use(), ensure_ascii=False, indent=1) + "\n")

    def about_for_use(self) -> dict[str, Any]:
        """How the data was drawn, and the categories' names."""
        return self.about
