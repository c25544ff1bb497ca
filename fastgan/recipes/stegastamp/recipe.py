"""StegaStamp: an encoder hides bits in a photograph, a decoder reads them after print, camera and codec.

Tancik, Mildenhall and Ng, "StegaStamp: Invisible Hyperlinks in Physical Photographs", CVPR 2020. In each
step the encoder stamps a warped photograph, the result is unwarped and distorted, and the decoder reads the
bits; image losses and a critic keep the stamp invisible.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from fastgan.augment import Distortions, place_encoded, random_perspective, warp_for_encoder
from fastgan.losses import (
    AdversarialLoss,
    LPIPSLoss,
    bce_secret_loss,
    gradient_penalty,
    r1_penalty,
    yuv_color_l2,
)
from fastgan.metrics import installed_lpips
from fastgan.monitor.probes import ProbeInputs
from fastgan.optim import Adam, RMSprop
from fastgan.recipes.stegastamp.config import PRESETS, StegaStampConfig
from fastgan.recipes.stegastamp.evaluation import evaluate_stamps
from fastgan.recipes.stegastamp.model import StegaStampModel
from fastgan.recipes.stegastamp.networks import StegaStampDecoder, StegaStampDiscriminator, StegaStampEncoder
from fastgan.training.data import ImageFolder, first_batch
from fastgan.training.networks import frozen, weights_wanted_by
from fastgan.training.processes.runtime import Runtime
from fastgan.training.ramps import cosine_decay, ramp
from fastgan.training.recipe import Recipe
from fastgan.training.statistics import report, report_all


class StegaStamp(Recipe):
    name = "stegastamp"
    config_class = StegaStampConfig
    presets = PRESETS
    for_use = StegaStampModel.names
    console = ("secret_loss", "bit_acc", "str_acc", "image_loss", "D_real", "D_fake", "images_per_second")
    config: StegaStampConfig

    def __init__(self, config: StegaStampConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        size, device = config.image_size, runtime.device
        train_files, val_files = self.split_held_out(config.train_path, config.val_path)
        reading = config.reading
        self.train_images = ImageFolder(train_files, (size, size), config.crop, config.seed, reading)
        self.val_images = ImageFolder(val_files, (size, size), config.crop, 0, reading)
        self.images_per_epoch = len(self.train_images)
        config.check_lr_decay_steps(self.num_steps)
        self.encoder = StegaStampEncoder(config.secret_size, size).to(device)
        self.decoder = StegaStampDecoder(config.secret_size, size).to(device)
        self.discriminator = StegaStampDiscriminator(
            config.d_channels, config.d_activation, config.d_spectral_norm
        ).to(device)
        self.networks = {
            "encoder": self.encoder, "decoder": self.decoder, "discriminator": self.discriminator
        }  # fmt: skip
        stamping = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.discriminator_optimizer = make_discriminator_optimizer(config, self.discriminator)
        self.optimizers = {
            "generator": Adam(stamping, lr=config.lr, ema=self.moving_average("encoder", "decoder")),
            "discriminator": self.discriminator_optimizer,
        }
        self.adversarial = AdversarialLoss(config.adversarial, config.critic_sign)
        self.keep_balance(self.adversarial)
        names = {field.name for field in dataclasses.fields(Distortions)} & set(vars(config))
        self.distortions = Distortions(
            **{name: getattr(config, name) for name in names},
            blur_probabilities=(config.blur_gaussian, config.blur_line),
        )
        self.lpips = self._lpips()

    def _lpips(self) -> nn.Module | None:
        """LPIPS as a loss, or only for the evaluation, which does without if it is not installed."""
        download = self.config.download_weights
        if self.config.lpips_loss_scale == 0:
            return installed_lpips(self.runtime.device, download) if self.runtime.is_main else None
        scale = f"{self.config.lpips_loss_scale:g}"
        with weights_wanted_by("lpips_loss_scale", scale, "train without it: --lpips_loss_scale 0"):
            return LPIPSLoss("alex", download=download).to(self.runtime.device)

    def batches(self, start_step: int) -> Generator[Tensor, None, None]:
        return self.stream(self.train_images, start_step)

    # --- one step -----------------------------------------------------------------------------------------

    def train_step(self, image: Tensor, step: int, generator: torch.Generator) -> None:
        self._set_learning_rate(step)
        # The original's phase no_im_loss: the decoder learns to read before the stamp must be invisible.
        secret_only = step < self._image_losses_from
        # Without the critic in that phase, there is nothing to balance.
        adversarial = not (secret_only or self.config.no_gan)
        trains_d = adversarial and self.balance.trains_discriminator(step)
        trains_g = not adversarial or self.balance.trains_generator(step)
        separate_updates = self.config.n_critic
        if trains_g:
            with record_function("generator_step"):
                real, fake = self.generator_step(image, step, secret_only, generator)
            separate_updates -= 1  # D's last update reuses G's images
            self.look(step, real, fake)
        if trains_d:
            with record_function("discriminator_step"):
                for _ in range(separate_updates):
                    secret = self.random_secret(image.shape[0], generator)
                    with torch.no_grad():
                        stamped = self.stamp(self.encoder, image, secret, step, generator)
                    self.discriminator_step(*self.seen_by_discriminator(image, *stamped), generator)
                if trains_g:
                    self.discriminator_step(real, fake, generator)

    def stamp(
        self,
        encoder: nn.Module,
        image: Tensor,
        secret: Tensor,
        step: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Warps, hides the secret, unwarps: returns (input_warped, encoded_warped, encoded)."""
        config = self.config
        height, width = image.shape[2:]
        shift = torch.rand((), generator=generator, device=image.device, dtype=torch.float64)
        largest = ramp(step, config.rnd_trans_ramp) * config.rnd_trans * width
        warp, unwarp = random_perspective(image.shape[0], height, width, (shift * largest).floor(), generator)
        input_warped = warp_for_encoder(image, warp)
        with self.runtime.autocast():
            residual_warped = self.cut(step, encoder(secret, input_warped).float())
        encoded = place_encoded(image, input_warped, residual_warped, unwarp, config.borders, generator)
        return input_warped, input_warped + residual_warped, encoded

    def seen_by_discriminator(
        self, image: Tensor, input_warped: Tensor, encoded_warped: Tensor, encoded: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(real, fake) in the same geometry: otherwise D would detect the warp, not the stamp."""
        if self.config.borders == "no_edge":
            return image, encoded
        return input_warped, encoded_warped

    def generator_step(
        self, image: Tensor, step: int, secret_only: bool, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Updates encoder and decoder; returns (real, fake) for D."""
        config = self.config
        secret = self.random_secret(image.shape[0], generator)
        input_warped, encoded_warped, encoded = self.stamp(self.encoder, image, secret, step, generator)
        real, fake = self.seen_by_discriminator(image, input_warped, encoded_warped, encoded)
        transformed = self.distortions(encoded, step, generator)
        with self.runtime.autocast():
            logits = self.decoder(transformed).float()
        secret_loss = bce_secret_loss(logits, secret)

        edge_gain = config.l2_edge_gain * ramp(step, config.l2_edge_ramp, config.l2_edge_delay)
        yuv_scales = (config.y_scale, config.u_scale, config.v_scale)
        terms: dict[str, Tensor] = {"secret_loss": secret_loss}
        # Terms without weight in this step are still reported, without gradients.
        with torch.set_grad_enabled(not secret_only):
            terms["image_loss"], channels = yuv_color_l2(
                encoded, image, yuv_scales, edge_gain, return_channels=True
            )
            if config.lpips_loss_scale > 0:
                assert self.lpips is not None
                terms["lpips_loss"] = self.lpips(encoded, image)
            if not config.no_gan:
                with frozen(self.discriminator):
                    paired = config.adversarial == "relativistic"
                    real_logits = self.discriminator(real)[0] if paired else None
                    terms["G_loss"] = self.adversarial.generator(self.discriminator(fake)[0], real_logits)
        self.update_generator(terms, self.weights(step, secret_only))

        correct = (logits.detach() > 0) == (secret > 0.5)
        report_all({"Y_loss": channels[0], "U_loss": channels[1], "V_loss": channels[2]})
        report("bit_acc", correct.float().mean())
        report("str_acc", correct.all(dim=1).float().mean())
        report("l2_edge_gain", edge_gain)
        return real, fake.detach()

    def weights(self, step: int, secret_only: bool) -> dict[str, float]:
        """The weight of each loss term at this step."""
        config = self.config
        if secret_only:
            return {"secret_loss": 1.0, "image_loss": 0.0, "lpips_loss": 0.0, "G_loss": 0.0}
        begin = self._image_losses_from if config.ramps_after_no_im_loss else 0
        return {
            "secret_loss": config.secret_loss_scale * ramp(step, config.secret_loss_ramp),
            "image_loss": config.l2_loss_scale * ramp(step, config.l2_loss_ramp, begin),
            "lpips_loss": config.lpips_loss_scale * ramp(step, config.lpips_loss_ramp, begin),
            "G_loss": config.G_loss_scale * ramp(step, config.G_loss_ramp, begin),
        }

    @property
    def _image_losses_from(self) -> float:
        """The step at which the first phase ends: as configured, or once the decoder can read."""
        return self.state.get("image_losses_from", self.config.no_im_loss_steps)

    def discriminator_step(self, real: Tensor, fake: Tensor, generator: torch.Generator) -> None:
        """Updates D, without gradients to the encoder."""
        config, optimizer = self.config, self.discriminator_optimizer
        real = real.detach().requires_grad_(config.r1_weight > 0)
        fake = fake.detach()
        real_scores, fake_scores = self.discriminator(real)[0], self.discriminator(fake)[0]
        decision = self.balance.discriminator_loss(self.adversarial, real_scores, fake_scores)
        total = decision.loss
        if config.adversarial == "wgan-gp":
            penalty = gradient_penalty(
                self.discriminator, real, fake, generator=generator, output=lambda scored: scored[0]
            )
            total = total + config.gp_weight * penalty
        if config.r1_weight > 0:
            penalty = r1_penalty(real_scores, real)
            report("r1_penalty", penalty)
            total = total + config.r1_weight * penalty
        self.update("discriminator", total, decision.applies)
        update = optimizer.statistics
        assert update is not None
        scores = decision.statistics
        report("D_loss", decision.loss)
        report_all({"D_real": scores.D_real, "D_fake": scores.D_fake})
        report("D_difference", scores.D_real - scores.D_fake)
        report("D_auc", decision.auc)
        report("D_gradient_norm", update.gradient_norm)
        report("D_weight_norm", update.weight_norm)
        report("D_clipped", update.clipped_fraction)
        report("lr_d", optimizer.param_groups[0]["lr"])

    def random_secret(self, count: int, generator: torch.Generator) -> Tensor:
        """Bits as 0. and 1., (count, secret_size); if paired, the second half complements the first."""
        shape = (count, self.config.secret_size)
        secret = torch.randint(0, 2, shape, generator=generator, device=generator.device).float()
        pairs = count // 2 if self.config.paired_secrets else 0
        secret[pairs : 2 * pairs] = 1 - secret[:pairs]
        return secret

    def _set_learning_rate(self, step: int) -> None:
        config = self.config
        factor = cosine_decay(step, self.num_steps, config.lr_decay_steps)
        warmup = ramp(step + 1, config.lr_warmup_steps)
        self.optimizers["generator"].param_groups[0]["lr"] = lr = config.lr * warmup * factor
        report("lr", lr)

    # --- what the loop asks for beside the step -----------------------------------------------------------

    def samples(self, step: int) -> dict[str, Tensor]:
        count = min(8, self.config.val_images)
        image = self.held_out(count)
        generator = torch.Generator(image.device).manual_seed(0)
        secret = self.random_secret(count, generator)
        encoder = self.trained("encoder")
        input_warped, encoded_warped, encoded = self.stamp(encoder, image, secret, step, generator)
        transformed = self.distortions(encoded, step, generator)
        heat_map = self.discriminator(encoded_warped)[1]
        low, high = heat_map.aminmax()
        return {
            "input": image, "warped": input_warped, "encoded": encoded_warped,
            "residual": encoded_warped - input_warped + 0.5, "transformed": transformed,
            "D_heat_map": (heat_map - low) / (high - low + 1e-12),
        }  # fmt: skip

    def evaluate(self) -> dict[str, float]:
        return evaluate_stamps(
            self.trained("encoder"), self.trained("decoder"),
            self.held_out(self.config.val_images), self.config.secret_size, self.lpips,
        )  # fmt: skip

    def probe_inputs(self) -> ProbeInputs:
        config, count = self.config, self.config.val_images
        generator = torch.Generator(self.runtime.device).manual_seed(0)

        def seen(image: Tensor, encoder: nn.Module) -> tuple[Tensor, Tensor]:
            # In parts, as a draw of the warp is as wide for all images of a batch, and may be none at all.
            pairs = []
            for part in image.split(max(1, len(image) // 8)):
                secret = self.random_secret(len(part), generator)
                stamped = self.stamp(encoder, part, secret, self.num_steps, generator)
                pairs.append(self.seen_by_discriminator(part, *stamped))
            reals, fakes = zip(*pairs, strict=True)
            return torch.cat(reals), torch.cat(fakes)

        held_out = self.held_out(count)
        real, fake = seen(held_out, self.encoder)
        return ProbeInputs(
            None if config.no_gan else lambda image: self.discriminator(image)[0],
            seen(first_batch(self.train_images, count, self.runtime.device), _NoStamp())[0],
            real,
            fake,
            seen(held_out, _NoStamp()),
            config.critic_sign,
        )

    def held_out(self, count: int) -> Tensor:
        """The first held-out images, with fixed crops."""
        return first_batch(self.val_images, count, self.runtime.device)

    def watch(self, step: int, metrics: dict[str, float]) -> str | None:
        if "bit_acc" not in metrics:  # G did not train
            return None
        config, bit_acc = self.config, metrics["bit_acc"]
        if step < self._image_losses_from and bit_acc >= config.no_im_loss_bit_acc:
            self.state["image_losses_from"] = step
            return f"bit accuracy reached {bit_acc:.3f}: image losses start now, at step {step}"
        return None


class _NoStamp(nn.Module):
    """An encoder that leaves the image as it is."""

    def forward(self, secret: Tensor, image: Tensor) -> Tensor:
        return torch.zeros_like(image)


def make_discriminator_optimizer(config: StegaStampConfig, network: nn.Module) -> Adam | RMSprop:
    """RMSprop with WGAN's clipping, or Adam."""
    if config.d_optimizer == "adam":
        if config.adversarial == "wgan":
            raise ValueError("adversarial=wgan clips weights in rmsprop: d_optimizer=adam needs another")
        return Adam(network.parameters(), config.lr_d, (config.beta1_d, config.beta2_d), statistics=True)
    rmsprop = RMSprop.tensorflow_style if config.tf_epsilon else RMSprop
    return rmsprop(
        network.parameters(),
        lr=config.lr_d,
        grad_clip_value=config.d_grad_clip or None,
        weight_clip=config.d_weight_clip if config.adversarial == "wgan" else None,
        statistics=True,
    )
