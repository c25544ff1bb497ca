"""DCGAN: images from noise.

Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016. In each step D learns to tell real images from generated ones, and G learns
to make D take its images for real.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from fastgan.augment import DiffAugment
from fastgan.losses import R1, AdversarialLoss, gradient_penalty
from fastgan.metrics import FrechetDistance, nearness, precision_recall
from fastgan.monitor.probes import ProbeInputs
from fastgan.optim import EMA, Adam, RMSprop
from fastgan.recipes.dcgan.config import PRESETS, DCGANConfig
from fastgan.recipes.dcgan.model import DCGANModel, draw_latents, make_generator
from fastgan.recipes.dcgan.networks import DCGANDiscriminator
from fastgan.training.data import ImageFolder, first_batch
from fastgan.training.networks import frozen, normalizing_by_batch, weights_wanted_by
from fastgan.training.processes.runtime import Runtime
from fastgan.training.recipe import Recipe
from fastgan.training.statistics import report, report_all

GRID = 8  # columns and rows of the sample grid
NEIGHBORS = 5  # of precision and recall, as in the source of density and coverage


class DCGAN(Recipe):
    name = "dcgan"
    config_class = DCGANConfig
    presets = PRESETS
    console = ("D_loss", "G_loss", "D_probability_real", "D_probability_fake", "images_per_second")
    for_use = DCGANModel.names
    joint_draws = True
    config: DCGANConfig

    def __init__(self, config: DCGANConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        size, device = config.image_size, runtime.device
        train_files, val_files = self.split_held_out(config.train_path, config.val_path)
        if len(val_files) < 2:
            raise ValueError(
                f"distances need at least two held-out images, got {len(val_files)}: set val_path"
            )
        reading = config.reading
        self.train_images = ImageFolder(train_files, (size, size), config.crop, config.seed, reading)
        self.val_images = ImageFolder(val_files, (size, size), config.crop, 0, reading)
        self.images_per_epoch = max(1, len(train_files) // config.n_critic)
        self.generator = make_generator(config).to(device)
        self.discriminator = DCGANDiscriminator(
            size,
            config.channels,
            config.d_width,
            config.d_norm,
            config.d_spectral_norm,
            config.d_minibatch_std,
        ).to(device)
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        self.optimizers = {
            "generator": self._optimizer(self.generator, config.lr_g, ema=self.moving_average("generator")),
            "discriminator": self._optimizer(
                self.discriminator, config.lr_d, config.d_weight_clip if config.loss == "wgan" else None
            ),
        }
        self.adversarial = AdversarialLoss(
            config.loss,
            real_label=config.real_label,
            fake_label=config.fake_label,
        )
        self.keep_balance(self.adversarial)
        self.augment = DiffAugment(config.diff_augment)
        self.r1 = R1(self.discriminator, config.r1_weight, config.r1_interval)
        self.frechet = self._frechet()

    def _optimizer(
        self, network: nn.Module, lr: float, weight_clip: float | None = None, ema: EMA | None = None
    ) -> Adam | RMSprop:
        config = self.config
        params, decay = network.parameters(), config.weight_decay
        if config.optimizer == "rmsprop":
            return RMSprop(params, lr, weight_decay=decay, weight_clip=weight_clip, ema=ema)
        betas = (config.beta1, config.beta2)
        return Adam(params, lr, betas, weight_decay=decay, weight_clip=weight_clip, ema=ema)

    def _frechet(self) -> FrechetDistance | None:
        if self.config.frechet == "off" or not self.runtime.is_main:
            return None
        weights = "default" if self.config.frechet == "inception" else None
        otherwise = "take --frechet random, whose distance is not FID, or --frechet off"
        with weights_wanted_by("frechet", self.config.frechet, otherwise):
            return FrechetDistance(
                weights,  # type: ignore[arg-type]
                device=self.runtime.device,
                all_processes=False,
                keep_features=True,
                download=self.config.download_weights,
            )

    def batches(self, start_step: int) -> Generator[Tensor, None, None]:
        """Real images in [-1, 1] for all updates of D in a step."""
        for image in self.stream(self.train_images, start_step, self.config.n_critic):
            yield self.as_trained(image)

    def as_trained(self, image: Tensor) -> Tensor:
        """N 3 H W in [0, 1] to N C H W in [-1, 1], with the configured channels."""
        image = image if self.config.channels == 3 else image.mean(1, keepdim=True)
        return image * 2 - 1

    # --- one step -----------------------------------------------------------------------------------------

    def train_step(self, real: Tensor, step: int, generator: torch.Generator) -> None:
        config = self.config
        trains_d, trains_g = self.balance.trains_discriminator(step), self.balance.trains_generator(step)
        reals = real.chunk(config.n_critic)
        # G's first update reuses the fakes of D's first.
        with record_function("generate"), torch.set_grad_enabled(trains_g):
            fake = self.generate(generator)
        self.look(step, reals[0], fake)
        if trains_d:
            with record_function("discriminator_step"):
                self.discriminator_step(reals[0], fake.detach(), step, generator)
                for real in reals[1:]:
                    with torch.no_grad():
                        new_fake = self.generate(generator)
                    self.discriminator_step(real, new_fake, step, generator)
        if trains_g:
            with record_function("generator_step"):
                self.generator_step(reals[0], self.cut(step, fake), generator)
                for _ in range(config.n_g_steps - 1):
                    self.generator_step(reals[0], self.cut(step, self.generate(generator)), generator)
        report_all({"lr_d": config.lr_d, "lr_g": config.lr_g})

    def generate(self, generator: torch.Generator) -> Tensor:
        """This process's part of a batch of generated images, in [-1, 1]."""
        z = draw_latents(self.config, self.config.batch_size * self.runtime.shares, generator)
        with self.runtime.autocast():
            return self.recomputed(self.generator, self.runtime.part(z)).float()

    def discriminator_step(self, real: Tensor, fake: Tensor, step: int, generator: torch.Generator) -> None:
        """Updates D."""
        config = self.config
        real, fake = self.augmented(real, generator), self.augmented(fake, generator)
        decision = self.balance.discriminator_loss(self.adversarial, self.logits(real), self.logits(fake))
        report_all(decision.terms())
        total = decision.loss
        if config.loss == "wgan-gp":
            penalty = gradient_penalty(self.discriminator, real, fake, generator=generator)
            report("D_penalty", penalty)
            total = total + config.gp_weight * penalty
        if config.r1_weight > 0 and self.r1.due(step):
            term, penalty = self.r1(real, step)
            report("r1_penalty", penalty)
            total = total + term
        self.update("discriminator", total, decision.applies)

    def generator_step(self, real: Tensor, fake: Tensor, generator: torch.Generator) -> None:
        """Updates G through D."""
        with frozen(self.discriminator):
            paired = self.config.loss == "relativistic"
            real_logits = self.logits(self.augmented(real, generator)) if paired else None
            loss = self.adversarial.generator(self.logits(self.augmented(fake, generator)), real_logits)
            self.update_generator({"G_loss": loss}, {"G_loss": 1.0})

    def logits(self, image: Tensor) -> Tensor:
        with self.runtime.autocast():
            return self.discriminator(image).float()

    def augmented(self, image: Tensor, generator: torch.Generator) -> Tensor:
        if not self.augment.policy:
            return image
        drawn = self.augment.draw(image.shape[0] * self.runtime.shares, generator)
        return self.augment(image, self.runtime.part(drawn))

    # --- what the loop asks for beside the step -----------------------------------------------------------

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Images (count, C, H, W) in [0, 1] of the averaged generator, determined by the seed."""
        z = draw_latents(self.config, count, torch.Generator(self.runtime.device).manual_seed(seed))
        return torch.cat([self.trained("generator")(part) for part in z.split(64)]) / 2 + 0.5

    def samples(self, step: int) -> dict[str, Tensor]:
        rows = self.sample(GRID * GRID).split(GRID)
        real = self.as_trained(first_batch(self.val_images, GRID, self.runtime.device)) / 2 + 0.5
        return {"real": real, **{f"generated_{index + 1}": row for index, row in enumerate(rows)}}

    def evaluate(self) -> dict[str, float]:
        """Distances among generated and among held-out images, and the Frechet distance between them."""
        config = self.config
        # An image can be drawn repeatedly only if its crops are random; fixed ones would be duplicates.
        available = len(self.val_images) if config.crop == "fit" else config.frechet_images
        compared = min(config.collapse_images, available)
        count = max(compared, min(config.frechet_images, available))
        real = self.as_trained(first_batch(self.val_images, count, self.runtime.device)) / 2 + 0.5
        mean_distance, nearest_distance = nearness(self.sample(compared))
        real_mean_distance, real_nearest_distance = (
            distance.clamp(min=1e-6) for distance in nearness(real[:compared])
        )
        figures = {
            "collapse_ratio": (mean_distance / real_mean_distance).item(),
            "collapse_ratio_nearest": (nearest_distance / real_nearest_distance).item(),
        }
        if self.frechet is not None:
            self.frechet.reset()
            self.frechet.update(real.expand(-1, 3, -1, -1), real=True)
            self.frechet.update(self.sample(config.frechet_images, seed=1).expand(-1, 3, -1, -1), real=False)
            figures[self.frechet.name] = self.frechet.compute().item()
            suffix = "" if self.frechet.name == "fid" else "_of_random_features"
            features = self.frechet.features
            if min(map(len, features)) > NEIGHBORS:
                for name, value in precision_recall(*features, NEIGHBORS).items():
                    figures[name + suffix] = value.item()
        return figures

    def probe_inputs(self) -> ProbeInputs:
        count = min(self.config.collapse_images, len(self.val_images))
        device = self.runtime.device
        return ProbeInputs(
            normalizing_by_batch(self.discriminator),
            self.as_trained(first_batch(self.train_images, count, device)),
            self.as_trained(first_batch(self.val_images, count, device)),
            self.sample(count) * 2 - 1,
        )
