"""StarGAN v2: images of several domains translated into each other, in as many styles as one likes.

Choi, Uh, Yoo and Ha, "StarGAN v2: Diverse Image Synthesis for Multiple Domains", CVPR 2020; on images, or on
the latents of a VAE. Each step: sources are translated into target domains, once in the style of a reference,
once in one made of noise. D judges both. The generator, with mapping network and style encoder, is to pass
for real, to show the style that it was given, to find back to the source, and to differ where styles do.
D and G learn from both kinds at once, or from one and then from the other, as in the authors' code.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from fastgan.losses import (
    R1,
    AdversarialLoss,
    cycle_consistency_loss,
    diversity_sensitive_loss,
    identity_loss,
    style_reconstruction_loss,
)
from fastgan.metrics import installed_lpips
from fastgan.optim import Adam
from fastgan.recipes.starganv2.config import PRESETS, TURNS, StarGANv2Config
from fastgan.recipes.starganv2.data import (
    Batch,
    Domain,
    Guides,
    LatentFolder,
    Pairings,
    check_latents,
    find_domains,
    find_latents,
    note_on_scale,
    split_domains,
)
from fastgan.recipes.starganv2.evaluation import (
    DomainClassifier,
    evaluate_translations,
    train_classifier,
)
from fastgan.recipes.starganv2.latents import Pictures
from fastgan.recipes.starganv2.networks import StarGANv2Discriminator
from fastgan.recipes.starganv2.translator import Translator, make_networks
from fastgan.training.data import ImageFolder, find_images, first_batch
from fastgan.training.networks import frozen
from fastgan.training.ramps import ramp
from fastgan.training.recipe import Mean, Recipe, Terms, mean_of
from fastgan.training.runtime import Runtime

COLUMNS, LATENT_ROWS = 8, 3  # of the sample grid


class StarGANv2(Recipe):
    name = "starganv2"
    config_class = StarGANv2Config
    presets = PRESETS
    console = ("D_loss", "adv_ref_loss", "adv_lat_loss", "cyc_ref_loss", "ds_lat_loss", "images_per_second")
    joint_draws = True
    config: StarGANv2Config

    def __init__(self, config: StarGANv2Config, runtime: Runtime) -> None:
        folders = find_domains(config.train_path, config.domains)
        # With the names, a checkpoint alone tells which domain is which.
        config = dataclasses.replace(config, domains=tuple(folders))
        super().__init__(config, runtime)
        device = runtime.device
        find = find_images if config.data == "images" else find_latents
        train_files, val_files = split_domains(folders, config.val_path, find, self.passed_over)
        self.train_domains = [self._stream(files, config.crop, config.seed) for files in train_files]
        self.val_domains = [self._stream(files, "fit", seed=0) for files in val_files]
        self.images_per_epoch = sum(len(files) for files in train_files)
        background = ThreadPoolExecutor(1)
        if config.data == "latents":
            # Whatever file is refused, it is now, not in the middle of the run.
            latents = [path for files in (*train_files, *val_files) for path in files]
            own = latents[runtime.rank :: runtime.world_size]
            checked = background.submit(check_latents, own, config.shape, config.workers)
        else:
            for domain in (*self.train_domains, *self.val_domains):
                domain.sample(0)
        counts = zip(config.domains, train_files, val_files, strict=True)
        said = (f"{name} ({len(train)} to train on, {len(val)} held out)" for name, train, val in counts)
        self.data = f"{len(folders)} domains of {config.data}: {', '.join(said)}"

        self.generator, self.mapping_network, self.style_encoder = make_networks(config)
        channels, size, _ = config.shape
        self.discriminator = StarGANv2Discriminator(
            len(folders), size, channels, config.base_width, config.max_width
        )
        self.networks = {
            "generator": self.generator, "mapping_network": self.mapping_network,
            "style_encoder": self.style_encoder, "discriminator": self.discriminator,
        }  # fmt: skip
        for network in self.networks.values():
            network.to(device)
        betas, decay = (config.beta1, config.beta2), config.weight_decay
        groups: list[dict[str, Any]] = [
            {"params": [*self.generator.parameters()]},
            {"params": [*self.style_encoder.parameters()]},
            {"params": [*self.mapping_network.parameters()], "lr": config.lr_mapping},
        ]
        self.ema = self.moving_average("generator", "mapping_network", "style_encoder")
        in_launch = self.ema if config.updates == "joint" else None
        self.optimizers = {
            "generator": Adam(groups, config.lr, betas, weight_decay=decay, ema=in_launch),
            "discriminator": Adam(self.discriminator.parameters(), config.lr, betas, weight_decay=decay),
        }
        self.adversarial = AdversarialLoss(config.adversarial)
        self.keep_balance(self.adversarial)
        self.r1 = R1(self.discriminator, config.r1_weight, config.r1_interval)
        self.pictures = Pictures(config.data, config.latent_scale, config.vae, device)
        # LPIPS compares pictures, which a preview of latents is not.
        shows = runtime.is_main and (config.data == "images" or config.vae)
        self.lpips = installed_lpips(device) if shows else None
        if config.data == "latents":
            count, total, squares = checked.result()
            deviation = math.sqrt(max(0.0, squares / count - (total / count) ** 2))
            self.notes.append(note_on_scale(deviation, config.latent_scale))
        background.shutdown()

    def _stream(self, files: list, crop: str, seed: int) -> Domain:
        config = self.config
        if config.data == "latents":
            return LatentFolder(files, config.shape, config.latent_scale, seed)
        size = (config.image_size, config.image_size)
        return ImageFolder(files, size, crop, seed, config.reading)

    def as_trained(self, x: Tensor) -> Tensor:
        """Images in [0, 1] to [-1, 1]; latents, which are scaled already, as they are."""
        return x * 2 - 1 if self.config.data == "images" else x

    def batches(self, start_step: int) -> Generator[Batch, None, None]:
        pairings = Pairings(self.train_domains, self.config.seed)
        for x_src, y_src, x_ref, x_ref2, y_trg in self.stream(pairings, start_step):
            x_src, x_ref, x_ref2 = map(self.as_trained, (x_src, x_ref, x_ref2))
            yield Batch(x_src, y_src, x_ref, x_ref2, y_trg)

    # --- one step -----------------------------------------------------------------------------------------

    def train_step(self, batch: Batch, step: int, generator: torch.Generator) -> Terms:
        z, z2 = self.noise(generator), self.noise(generator)
        guides = {"ref": (batch.x_ref, batch.x_ref2), "lat": (z, z2)}
        first, *later = ({kind: guides[kind] for kind in turn} for turn in TURNS[self.config.updates])
        trains = self.balance.trains_generator(step)
        # G does not move while D does: its first update goes on with what D has judged.
        with record_function("translate"), torch.set_grad_enabled(trains):
            styles, fakes = self.translate(batch, first)
        with record_function("discriminator_step"):
            of_d = [self.discriminator_step(batch, first, fakes.detach(), step)]
            for turn in later:
                with torch.no_grad():
                    against = self.translate(batch, turn)[1]
                of_d.append(self.discriminator_step(batch, turn, against, step))
        with record_function("generator_step"), torch.set_grad_enabled(trains):
            of_g = self.generator_step(batch, first, styles, fakes, step)
            for turn in later:
                with frozen(self.mapping_network, self.style_encoder):  # G learns alone
                    of_g |= self.generator_step(batch, turn, *self.translate(batch, turn), step)
            if later and trains and self.ema is not None:
                self.ema.update()  # once, though G has made several updates
        return {**mean_of(of_d), **of_g}

    def noise(self, generator: torch.Generator) -> Tensor:
        """This process's part of standard normal noise, (N, z_dim)."""
        count = self.config.batch_size * self.runtime.world_size
        z = torch.randn(count, self.config.z_dim, generator=generator, device=generator.device)
        return self.runtime.part(z)

    def translate(self, batch: Batch, guides: Guides, which: int = 0) -> tuple[Tensor, Tensor]:
        """Styles (KN, style_dim) by one guide of each of K pairs, and the sources in them, KN C H W."""
        style_of = {"ref": self.style_encoder, "lat": self.mapping_network}
        with self.runtime.autocast():
            styles = torch.cat([style_of[kind](pair[which], batch.y_trg) for kind, pair in guides.items()])
            return styles, self.generator(batch.x_src.repeat(len(guides), 1, 1, 1), styles).float()

    def discriminator_step(self, batch: Batch, kinds: Collection[str], fakes: Tensor, step: int) -> Terms:
        """Updates D down (D_ref + D_lat) / 2 + R1, or one of these + R1; or, on G's turn, only listens to it.

        Args:
            kinds: of styles, "ref" or "lat".
            fakes: translations in them, of :meth:`translate`.
        """
        trains = self.balance.trains_discriminator(step)
        with torch.set_grad_enabled(trains):
            with self.runtime.autocast():
                images = torch.cat([batch.x_src, fakes])
                logits = self.discriminator(images, torch.cat([batch.y_src, batch.y_trg.repeat(len(kinds))]))
            real, *of_fakes = logits.float().chunk(1 + len(kinds))
            judged = [self.balance.discriminator_loss(self.adversarial, real, fake) for fake in of_fakes]
        penalty, computed = torch.zeros((), device=real.device), 0
        updated: Tensor | float = 0.0
        if trains:
            total = torch.stack([each.loss for each in judged]).mean()
            if self.config.r1_weight > 0:
                term, penalty = self.r1(batch.x_src, step, batch.y_src)
                total, computed = total + term, int(step % self.config.r1_interval == 0)
            # Kinds share an update: it counts where one of them does.
            votes = [each.applies for each in judged if each.applies is not None]
            applies = torch.stack(votes).any() if votes else None
            self.update("discriminator", total, applies)
            updated = 1.0 if applies is None else applies.float()
        return {
            **mean_of([each.terms() for each in judged]), "D_updated": updated,
            **{f"D_{kind}_loss": each.loss.detach() for kind, each in zip(kinds, judged, strict=True)},
            "r1_penalty_mean_all_steps": penalty,
            "r1_penalty_mean_computed_steps": Mean(penalty, computed),
        }  # fmt: skip

    def generator_step(self, batch: Batch, guides: Guides, styles: Tensor, fakes: Tensor, step: int) -> Terms:
        """Updates generator, mapping network and style encoder, as far as not frozen, if gradients are on.

        Args:
            guides, styles, fakes: those of :meth:`translate`.
        """
        config, kinds = self.config, len(guides)
        targets = batch.y_trg.repeat(kinds)
        with torch.no_grad():  # only the first translations learn to differ, as in the authors' code
            others = self.translate(batch, guides, which=1)[1]
        with self.runtime.autocast(), frozen(self.discriminator):
            logits = self.discriminator(fakes, targets).float()
            shown = self.style_encoder(fakes, targets)
            own = self.style_encoder(batch.x_src, batch.y_src)
            with_same = config.w_id > 0 and "lat" in guides  # once per step, where the style encoder learns
            starts = torch.cat([fakes, batch.x_src]) if with_same else fakes
            back = self.generator(starts, own.repeat(len(starts) // len(own), 1)).float()

        terms: dict[str, Tensor] = {}
        of_kinds = (logits, styles.float(), shown.float(), fakes, others, back[: len(fakes)])
        for kind, logit, style, found, fake, other, again in zip(
            guides, *(values.chunk(kinds) for values in of_kinds), strict=True
        ):
            terms[f"adv_{kind}_loss"] = self.adversarial.generator(logit)
            terms[f"sty_{kind}_loss"] = style_reconstruction_loss(style, found)
            terms[f"cyc_{kind}_loss"] = cycle_consistency_loss(batch.x_src, again)
            terms[f"ds_{kind}_loss"] = diversity_sensitive_loss(fake, other, config.ds_margin or None)
        if with_same:
            terms["id_loss"] = identity_loss(batch.x_src, back[len(fakes) :])
        lambda_ds = self.lambda_ds(step)
        of_kind = {"adv": config.w_adv, "sty": config.w_sty, "cyc": config.w_cyc, "ds": -lambda_ds}
        weights = {name: (of_kind | {"id": config.w_id})[name.split("_")[0]] for name in terms}
        if torch.is_grad_enabled():
            self.update("generator", torch.stack([weights[name] * terms[name] for name in terms]).sum())
        return {
            **{name: term.detach() for name, term in terms.items()},
            **{f"{name}_weight": weight for name, weight in weights.items()},
            "lambda_ds": lambda_ds,
        }

    def lambda_ds(self, step: int) -> float:
        """w_ds (1 - clamp((epoch - 1) / ds_decay_epochs, 0, 1)), with epochs counted from 1."""
        epochs = self.config.ds_decay_epochs or self.num_steps / self.steps_per_epoch
        return self.config.w_ds * (1 - ramp(step // self.steps_per_epoch, epochs))

    # --- what the loop asks for beside the step -----------------------------------------------------------

    @property
    def translator(self) -> Translator:
        """The averaged networks."""
        names = ("generator", "mapping_network", "style_encoder")
        return Translator(*(self.trained(name) for name in names))

    def held_out(self, domain: int, count: int) -> Tensor:
        """The first held-out images of a domain, always cut alike: as many as there are, up to `count`."""
        data = self.val_domains[domain]
        return self.as_trained(first_batch(data, min(count, len(data)), self.runtime.device))

    def samples(self, step: int) -> dict[str, Tensor]:
        """Sources of all domains in turn, each translated into the next domain."""
        translator, count = self.translator, len(self.val_domains)
        held_out = [self.held_out(domain, COLUMNS) for domain in range(count)]
        random = torch.Generator(self.runtime.device).manual_seed(0)
        columns = []
        for column in range(COLUMNS):
            source, target = column % count, (column + 1) % count
            row = column // count
            of_source = held_out[source][row % len(held_out[source])][None]
            of_target = held_out[target][(row + COLUMNS // 2) % len(held_out[target])][None]
            by_reference = translator.in_style(of_source, translator.style_of(of_target, target))
            z = torch.randn(LATENT_ROWS, self.config.z_dim, generator=random, device=random.device)
            styles = translator.random_styles(z, target)
            by_latent = translator.in_style(of_source.expand(LATENT_ROWS, -1, -1, -1), styles)
            back = translator.in_style(by_reference, translator.style_of(of_source, source))
            columns.append(torch.cat([of_source, of_target, by_reference, back, by_latent]))
        latent_rows = (f"by_latent_{index + 1}" for index in range(LATENT_ROWS))
        names = ("source", "reference", "by_reference", "by_reference_and_back", *latent_rows)
        rows = torch.stack(columns, dim=1)
        return {name: self.pictures(row) for name, row in zip(names, rows, strict=True)}

    @cached_property
    def classifier(self) -> DomainClassifier:
        """Trained at the first evaluation."""
        config = self.config
        return train_classifier(
            self.train_domains, self.as_trained, config.shape[0], config.classifier_steps, self.runtime.device
        )

    def evaluate(self) -> dict[str, float]:
        images = [self.held_out(domain, self.config.eval_images) for domain in range(len(self.val_domains))]
        return evaluate_translations(
            self.translator, images, self.classifier, self.config.z_dim, self.config.eval_draws,
            self._lpips_of if self.lpips is not None else None,
        )  # fmt: skip

    def _lpips_of(self, a: Tensor, b: Tensor) -> Tensor:
        assert self.lpips is not None
        return self.lpips(self.pictures(a), self.pictures(b))
