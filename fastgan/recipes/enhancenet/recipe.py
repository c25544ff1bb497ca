"""EnhanceNet: photographs upscaled by 2 or 4, with plausible textures.

Sajjadi, Schoelkopf and Hirsch, "EnhanceNet: Single Image Super-Resolution Through Automated Texture
Synthesis", ICCV 2017. In each step crops of photographs are downscaled, G upscales them, D learns to tell the
results from the crops, and G learns from the losses of its variant: the squared error (E), or distances in
VGG's features (P), also with the adversarial loss (PA), also with Gram matrices of feature patches (PAT).
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import record_function

from fastgan.losses import AdversarialLoss, PerceptualLoss, layer_index
from fastgan.metrics import installed_lpips
from fastgan.monitor.probes import ProbeInputs
from fastgan.optim import Adam
from fastgan.recipes.enhancenet.config import NETWORK, PRESETS, EnhanceNetConfig
from fastgan.recipes.enhancenet.evaluation import (
    evaluate_upscaling,
    fixed_cuts,
    read_held_out,
    to_8_bits,
)
from fastgan.recipes.enhancenet.model import EnhanceNetModel
from fastgan.recipes.enhancenet.networks import (
    EnhanceNetDiscriminator,
    EnhanceNetGenerator,
    bicubic_upscale,
    low_resolution,
)
from fastgan.training.data import ImageFolder, first_batch
from fastgan.training.networks import frozen, weights_wanted_by
from fastgan.training.processes.runtime import Runtime
from fastgan.training.ramps import cosine_decay
from fastgan.training.recipe import Recipe
from fastgan.training.statistics import report, report_all

# Training samples for measuring the features' means.
MEASURED = 16
SAMPLES, SAMPLE_SIZE = 6, 192
PROBED = 64


class EnhanceNet(Recipe):
    name = "enhancenet"
    config_class = EnhanceNetConfig
    presets = PRESETS
    for_use = EnhanceNetModel.names
    console = (
        "mse_loss", "perceptual_loss", "texture_loss", "G_loss", "D_loss", "D_probability_real",
        "D_probability_fake", "D_probability_fake_after", "psnr", "seconds_per_step",
    )  # fmt: skip
    joint_draws = True
    config: EnhanceNetConfig

    def __init__(self, config: EnhanceNetConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        device = runtime.device
        train_files, val_files = self.split_held_out(config.train_path, config.val_path)
        size, reading = (config.crop, config.crop), config.reading
        self.train_images = ImageFolder(train_files, size, "native", config.seed, reading)
        self.images_per_epoch = len(self.train_images)
        held_out = read_held_out(val_files, config.val_images, config.scale, config.val_size, reading)
        self.held_out = [image.to(device) for image in held_out]
        self.perceptual = self._perceptual_loss() if config.is_perceptual else None
        self.lpips = installed_lpips(device, config.download_weights) if runtime.is_main else None

        self.generator = EnhanceNetGenerator(config.scale, config.width, config.blocks).to(device)
        self.networks = {"generator": self.generator}
        betas = (config.beta1, 0.999)
        optimizer = Adam(self.generator.parameters(), config.lr, betas, ema=self.moving_average("generator"))
        self.optimizers = {"generator": optimizer}
        self.discriminator: EnhanceNetDiscriminator | None = None
        if config.is_adversarial:
            self.adversarial = AdversarialLoss(config.adversarial)
            self.discriminator = EnhanceNetDiscriminator(config.crop, config.d_channels, config.d_dense)
            self.discriminator.to(device)
            self.networks["discriminator"] = self.discriminator
            self.optimizers["discriminator"] = Adam(self.discriminator.parameters(), config.lr_d, betas)
            self.keep_balance(self.adversarial)

    def _perceptual_loss(self) -> PerceptualLoss:
        """The perceptual and texture losses, weighted as for features with a mean of one."""
        config = self.config
        weights = dict(zip(config.perceptual_layers, config.perceptual_weights, strict=True))
        texture_weights = {}
        if config.has_texture:
            texture_weights = dict(zip(config.texture_layers, config.texture_weights, strict=True))
        layers = sorted({*weights, *texture_weights}, key=lambda layer: layer_index(layer, NETWORK))
        with weights_wanted_by("variant", config.variant, "train on the squared error: --variant E"):
            loss = PerceptualLoss(
                layers,
                [weights.get(layer, 0.0) for layer in layers],
                self.runtime.device,
                style_weights=[texture_weights.get(layer, 0.0) for layer in layers],
                patch_size=config.texture_patch,
                criterion="l2",
                network=NETWORK,  # type: ignore[arg-type]
                value_range=(0, 1),
                download=config.download_weights,
            )
        if config.normalize_features:
            with torch.no_grad():
                images = first_batch(self.train_images, MEASURED, self.runtime.device)
                means = [features.abs().mean().item() for features in loss.feature_maps(images)]
            # Distances scale with the square of the features, those of Gram matrices with the fourth power.
            loss.weights = [w / m**2 for w, m in zip(loss.weights, means, strict=True)]
            loss.style_weights = [w / m**4 for w, m in zip(loss.style_weights, means, strict=True)]
        return loss

    def batches(self, start_step: int) -> Generator[Tensor, None, None]:
        return self.stream(self.train_images, start_step)

    # --- one step -----------------------------------------------------------------------------------------

    def train_step(self, original: Tensor, step: int, generator: torch.Generator) -> None:
        self._set_learning_rates(step)
        if self.config.turn:
            original = self.turned(original, generator)
        adversarial = self.discriminator is not None
        trains_d = adversarial and self.balance.trains_discriminator(step)
        trains_g = not adversarial or self.balance.trains_generator(step)
        with record_function("upscale"), torch.set_grad_enabled(trains_g):
            upscaled = self.upscale(original)
        self.look(step, original, upscaled)
        if trains_d:
            with record_function("discriminator_step"):
                self.discriminator_step(original, upscaled.detach())
        if trains_g:
            with record_function("generator_step"):
                self.generator_step(original, self.cut(step, upscaled))

    def turned(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Flips and transposes images at random; with the data's mirroring: all eight orientations."""
        count = len(image) * self.runtime.shares
        draws = torch.rand((count, 2, 1, 1, 1), generator=generator, device=generator.device) < 0.5
        flip, transpose = self.runtime.part(draws).unbind(1)
        image = torch.where(flip, image.flip(2), image)
        return torch.where(transpose, image.mT, image)

    def upscale(self, original: Tensor) -> Tensor:
        """The photographs, N 3 H W in [0, 1], downscaled and upscaled by G."""
        low = low_resolution(original, self.config.scale)
        with self.runtime.autocast():
            return self.recomputed(self.generator, low).float()

    def discriminate(self, image: Tensor) -> Tensor:
        """D's logits."""
        assert self.discriminator is not None
        with self.runtime.autocast():
            return self.discriminator(image).float()

    def discriminator_step(self, original: Tensor, upscaled: Tensor) -> None:
        """Updates D, if the balance policy applies the update."""
        real_logits, fake_logits = self.discriminate(original), self.discriminate(upscaled)
        decision = self.balance.discriminator_loss(self.adversarial, real_logits, fake_logits)
        self.update("discriminator", self.config.d_loss_weight * decision.loss, decision.applies)
        report_all(decision.terms())
        report("D_loss_weight", self.config.d_loss_weight)

    def generator_step(self, original: Tensor, upscaled: Tensor) -> None:
        """Updates G."""
        config = self.config
        losses: dict[str, Tensor] = {}
        if self.perceptual is None:
            losses["mse_loss"] = F.mse_loss(upscaled, original)
        else:
            with self.runtime.autocast():
                losses["perceptual_loss"], texture = self.perceptual.parts(upscaled, original)
            if config.has_texture:
                losses["texture_loss"] = texture
        if self.discriminator is not None:
            with frozen(self.discriminator):
                logits = self.discriminate(upscaled)
            losses["G_loss"] = self.adversarial.generator(logits)
            if config.log_d_after:
                self._report_after(original, logits.detach())
        weights = {name: config.G_loss_weight if name == "G_loss" else 1.0 for name in losses}
        self.update_generator(losses, weights)
        report("psnr", -10 * F.mse_loss(upscaled.detach(), original).clamp(min=1e-10).log10())

    @torch.no_grad()
    def _report_after(self, original: Tensor, fake_logits: Tensor) -> None:
        """Reports D's statistics on the step's images after D's update and before G's."""
        statistics = self.adversarial.discriminator(
            self.discriminate(original), fake_logits, return_statistics=True
        )[1]
        report("D_real_after", statistics.D_real)
        report("D_fake_after", statistics.D_fake)
        report("D_probability_real_after", statistics.probability_real)
        report("D_probability_fake_after", statistics.probability_fake)

    def _set_learning_rates(self, step: int) -> None:
        config = self.config
        factor = cosine_decay(step, self.num_steps, config.lr_decay_steps, last=0.01)
        for name, optimizer in self.optimizers.items():
            lr = factor * (config.lr_d if name == "discriminator" else config.lr)
            optimizer.param_groups[0]["lr"] = lr
            report("lr_d" if name == "discriminator" else "lr", lr)

    # --- what the loop asks for beside the step -----------------------------------------------------------

    def samples(self, step: int) -> dict[str, Tensor]:
        scale = self.config.scale
        original = fixed_cuts(self.held_out, SAMPLES, SAMPLE_SIZE, scale)
        low = low_resolution(original, scale)
        upscaled = self.trained("generator")(low)
        return {
            "bicubic": to_8_bits(bicubic_upscale(low, scale)),
            "upscaled": to_8_bits(upscaled),
            "original": original,
        }

    def probe_inputs(self) -> ProbeInputs | None:
        config = self.config
        if self.discriminator is None:
            return None
        held_out = fixed_cuts(self.held_out, PROBED, config.crop, config.scale)
        return ProbeInputs(
            self.discriminate,
            first_batch(self.train_images, len(held_out), self.runtime.device),
            held_out,
            self.trained("generator")(low_resolution(held_out, config.scale)),
        )

    def evaluate(self) -> dict[str, float]:
        generator = self.trained("generator")
        assert isinstance(generator, EnhanceNetGenerator)
        return evaluate_upscaling(generator, self.held_out, self.lpips)
