"""StarGAN v2: translates images between several domains, in any number of styles.

Choi, Uh, Yoo and Ha, "StarGAN v2: Diverse Image Synthesis for Multiple Domains", CVPR 2020; on images, or on
the latents of a VAE. In each step sources are translated into target domains, once in the style of a
reference, once in a style made from noise. D discriminates both. The generator, with mapping network and
style encoder, learns to fool D, to apply the given style, to reconstruct the source, and to differ where
styles differ. Both kinds of style are trained in one update, or one after the other, as in the authors' code.
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
from fastgan.monitor.probes import ProbeInputs
from fastgan.optim import Adam
from fastgan.recipes.starganv2.config import PRESETS, STYLE_KINDS, StarGANv2Config
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
from fastgan.recipes.starganv2.model import StarGANv2Model
from fastgan.recipes.starganv2.networks import StarGANv2Discriminator
from fastgan.recipes.starganv2.translator import Translator, make_networks
from fastgan.training.data import ImageFolder, find_images, first_batch
from fastgan.training.networks import frozen
from fastgan.training.processes.runtime import Runtime
from fastgan.training.ramps import ramp
from fastgan.training.recipe import Recipe
from fastgan.training.statistics import report, report_all

COLUMNS, LATENT_ROWS = 8, 3  # of the sample grid
PROBED = 64


class StarGANv2(Recipe):
    name = "starganv2"
    config_class = StarGANv2Config
    presets = PRESETS
    for_use = StarGANv2Model.names
    console = ("D_loss", "adv_ref_loss", "adv_lat_loss", "cyc_ref_loss", "ds_lat_loss", "images_per_second")
    joint_draws = True
    config: StarGANv2Config

    def __init__(self, config: StarGANv2Config, runtime: Runtime) -> None:
        folders = find_domains(config.train_path, config.domains)
        # Store the names, so that a checkpoint identifies its domains.
        config = dataclasses.replace(config, domains=tuple(folders))
        super().__init__(config, runtime)
        device = runtime.device
        find = find_images if config.data == "images" else find_latents
        train_files, val_files = split_domains(folders, config.val_path, find, self.passed_over)
        self.train_domains = [self._stream(files, config.crop, config.seed) for files in train_files]
        self.val_domains = [self._stream(files, "fit", seed=0) for files in val_files]
        for name, train, val in zip(folders, train_files, val_files, strict=True):
            self.compare(f"{config.train_path}/{name}", train)
            self.compare(f"{config.val_path or config.train_path}/{name}", val)
        self.images_per_epoch = sum(len(files) for files in train_files)
        background = ThreadPoolExecutor(1)
        if config.data == "latents":
            # Check all files now, rather than fail in the middle of the run.
            latents = [path for files in (*train_files, *val_files) for path in files]
            assigned = latents[runtime.rank :: runtime.world_size]
            checked = background.submit(check_latents, assigned, config.shape, config.workers)
        else:
            for domain in (*self.train_domains, *self.val_domains):
                domain.sample(0)
        counts = zip(config.domains, train_files, val_files, strict=True)
        domain_counts = (
            f"{name} ({len(train)} to train on, {len(val)} held out)" for name, train, val in counts
        )
        self.data = f"{len(folders)} domains of {config.data}: {', '.join(domain_counts)}"

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
        fused_ema = self.ema if config.updates == "joint" else None
        self.optimizers = {
            "generator": Adam(groups, config.lr, betas, weight_decay=decay, ema=fused_ema),
            "discriminator": Adam(self.discriminator.parameters(), config.lr, betas, weight_decay=decay),
        }
        self.adversarial = AdversarialLoss(config.adversarial)
        self.keep_balance(self.adversarial)
        self.r1 = R1(self.discriminator, config.r1_weight, config.r1_interval)
        self.pictures = Pictures(config.data, config.latent_scale, config.vae, device)
        # LPIPS needs pictures, which a preview of latents is not.
        has_pictures = runtime.is_main and (config.data == "images" or config.vae)
        self.lpips = installed_lpips(device, config.download_weights) if has_pictures else None
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
        """Images in [0, 1] to [-1, 1]; latents, already scaled, are unchanged."""
        return x * 2 - 1 if self.config.data == "images" else x

    def batches(self, start_step: int) -> Generator[Batch, None, None]:
        pairings = Pairings(self.train_domains, self.config.seed)
        for x_src, y_src, x_ref, x_ref2, y_trg in self.stream(pairings, start_step):
            x_src, x_ref, x_ref2 = map(self.as_trained, (x_src, x_ref, x_ref2))
            yield Batch(x_src, y_src, x_ref, x_ref2, y_trg)

    # --- one step -----------------------------------------------------------------------------------------

    def train_step(self, batch: Batch, step: int, generator: torch.Generator) -> None:
        z_trg, z_trg2 = self.noise(generator), self.noise(generator)
        guides = {"ref": (batch.x_ref, batch.x_ref2), "lat": (z_trg, z_trg2)}
        first, *later = (
            {kind: guides[kind] for kind in selected} for selected in STYLE_KINDS[self.config.updates]
        )
        trains_d, trains_g = self.balance.trains_discriminator(step), self.balance.trains_generator(step)
        # G does not change while D trains, so G's first update reuses the fakes of D's first.
        with record_function("translate"), torch.set_grad_enabled(trains_g):
            s_trg, x_fake = self.translate(batch, first)
        self.look(step, batch.x_src, x_fake)
        if trains_d:
            with record_function("discriminator_step"):
                self.discriminator_step(batch, first, x_fake.detach(), step)
                for selected in later:
                    with torch.no_grad():
                        new_fake = self.translate(batch, selected)[1]
                    self.discriminator_step(batch, selected, new_fake, step)
        if trains_g:
            with record_function("generator_step"):
                self.generator_step(batch, first, s_trg, x_fake, step)
                for selected in later:
                    with frozen(self.mapping_network, self.style_encoder):  # only G learns
                        self.generator_step(batch, selected, *self.translate(batch, selected), step)
                if later and self.ema is not None and self.runtime.micro_batches.is_last:
                    self.ema.update()  # once per step, although G was updated several times

    def noise(self, generator: torch.Generator) -> Tensor:
        """This process's part of a batch of standard normal noise, (N, z_dim)."""
        count = self.config.batch_size * self.runtime.shares
        z = torch.randn(count, self.config.z_dim, generator=generator, device=generator.device)
        return self.runtime.part(z)

    def translate(self, batch: Batch, guides: Guides, which: int = 0) -> tuple[Tensor, Tensor]:
        """Translates the sources into K styles: returns s_trg (KN, style_dim) and x_fake, KN C H W.

        Both kinds of style pass through G in one batch, and later through D and the style encoder.

        Args:
            guides: K pairs, see :data:`fastgan.recipes.starganv2.data.Guides`.
            which: the member of each pair that gives the style.
        """
        style_of = {"ref": self.style_encoder, "lat": self.mapping_network}
        with self.runtime.autocast():
            s_trg = torch.cat([style_of[kind](pair[which], batch.y_trg) for kind, pair in guides.items()])
            return s_trg, self.recomputed(
                self.generator, batch.x_src.repeat(len(guides), 1, 1, 1), s_trg
            ).float()

    def discriminator_step(self, batch: Batch, kinds: Collection[str], x_fake: Tensor, step: int) -> None:
        """Updates D on (D_ref + D_lat) / 2 + R1, or, for a single kind of style, its loss + R1.

        Args:
            kinds: of style, "ref" or "lat".
            x_fake: the translations, from :meth:`translate`.
        """
        x_real, y_org = batch.x_src, batch.y_src
        with self.runtime.autocast():
            domains = torch.cat([y_org, batch.y_trg.repeat(len(kinds))])
            logits = self.discriminator(torch.cat([x_real, x_fake]), domains)
        real, *fakes = logits.float().chunk(1 + len(kinds))

        losses, applies = [], []
        for kind, fake in zip(kinds, fakes, strict=True):
            decision = self.balance.discriminator_loss(self.adversarial, real, fake)
            report_all(decision.terms())
            report(f"D_{kind}_loss", decision.loss)
            losses.append(decision.loss)
            applies += [decision.applies] if decision.applies is not None else []
        loss = torch.stack(losses).mean()

        if self.config.r1_weight > 0 and self.r1.due(step):
            term, penalty = self.r1(x_real, step, y_org)
            report("r1_penalty", penalty)
            loss = loss + term
        # All kinds share an update: it applies if it does for one of them.
        self.update("discriminator", loss, torch.stack(applies).any() if applies else None)

    def generator_step(self, batch: Batch, guides: Guides, s_trg: Tensor, x_fake: Tensor, step: int) -> None:
        """Updates generator, mapping network and style encoder, unless they are frozen.

        Args:
            guides, s_trg, x_fake: as for :meth:`translate`.
        """
        config, x_real = self.config, batch.x_src
        y_trg = batch.y_trg.repeat(len(guides))
        # The styles are compared, too, but G's gradient is measured at its images.
        x_fake, s_trg = self.cut(step, x_fake), self.cut(step, s_trg, measured=False)
        with torch.no_grad():  # no gradient to the second translations, as in the authors' code
            x_fake2 = self.translate(batch, guides, which=1)[1]
        with self.runtime.autocast(), frozen(self.discriminator):
            logits = self.discriminator(x_fake, y_trg).float()
            s_pred = self.style_encoder(x_fake, y_trg)
            s_org = self.style_encoder(x_real, batch.y_src)
            # The identity term is used once per step, in the update that trains the style encoder.
            with_identity = config.w_id > 0 and "lat" in guides
            inputs = torch.cat([x_fake, x_real]) if with_identity else x_fake
            x_rec = self.generator(inputs, s_org.repeat(len(inputs) // len(s_org), 1)).float()

        lambda_ds = self.lambda_ds(step)
        weights = {"adv": config.w_adv, "sty": config.w_sty, "cyc": config.w_cyc, "ds": -lambda_ds}
        terms = dict.fromkeys(weights, torch.zeros((), device=x_real.device))
        per_kind = (logits, s_trg.float(), s_pred.float(), x_fake, x_fake2, x_rec[: len(x_fake)])
        for kind, logit, s, s_fake, fake, fake2, rec in zip(
            guides, *(values.chunk(len(guides)) for values in per_kind), strict=True
        ):
            losses = {
                "adv": self.adversarial.generator(logit),
                "sty": style_reconstruction_loss(s, s_fake),
                "cyc": cycle_consistency_loss(x_real, rec),
                "ds": diversity_sensitive_loss(fake, fake2, config.ds_margin or None),
            }
            for name, loss in losses.items():
                report(f"{name}_{kind}_loss", loss)
                report(f"{name}_{kind}_loss_weight", weights[name])
                terms[name] = terms[name] + loss
        if with_identity:
            loss = identity_loss(x_real, x_rec[len(x_fake) :])
            report_all({"id_loss": loss, "id_loss_weight": config.w_id})
            # It does not go through x_fake; G reconstructed both in one batch, so they form one term.
            terms["cyc"] = weights["cyc"] * terms["cyc"] + config.w_id * loss
            weights["cyc"] = 1.0
        # Diversity is maximized, also with a wanted share of the gradient, which has no sign.
        terms["ds"], weights["ds"] = -terms["ds"], lambda_ds
        report("lambda_ds", lambda_ds)
        self.update_generator(terms, weights, reported=False)

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
        """The first held-out images of a domain, at most `count`, with fixed crops."""
        data = self.val_domains[domain]
        return self.as_trained(first_batch(data, min(count, len(data)), self.runtime.device))

    def samples(self, step: int) -> dict[str, Tensor]:
        """Sources of all domains, cyclically, each translated into the next domain."""
        translator, count = self.translator, len(self.val_domains)
        held_out = [self.held_out(domain, COLUMNS) for domain in range(count)]
        random = torch.Generator(self.runtime.device).manual_seed(0)
        columns = []
        for column in range(COLUMNS):
            source, target = column % count, (column + 1) % count
            row = column // count
            source_image = held_out[source][row % len(held_out[source])][None]
            reference = held_out[target][(row + COLUMNS // 2) % len(held_out[target])][None]
            by_reference = translator.in_style(source_image, translator.style_of(reference, target))
            z = torch.randn(LATENT_ROWS, self.config.z_dim, generator=random, device=random.device)
            styles = translator.random_styles(z, target)
            by_latent = translator.in_style(source_image.expand(LATENT_ROWS, -1, -1, -1), styles)
            x_rec = translator.in_style(by_reference, translator.style_of(source_image, source))
            columns.append(torch.cat([source_image, reference, by_reference, x_rec, by_latent]))
        latent_rows = (f"by_latent_{index + 1}" for index in range(LATENT_ROWS))
        names = ("source", "reference", "by_reference", "by_reference_and_back", *latent_rows)
        rows = torch.stack(columns, dim=1)
        return {name: self.pictures(row) for name, row in zip(names, rows, strict=True)}

    @cached_property
    def classifier(self) -> DomainClassifier:
        """The evaluation's domain classifier, trained at first use."""
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

    def probe_inputs(self) -> ProbeInputs:
        """Of the first domain, and of translations from the second one into it."""
        held_out, sources = self.held_out(0, PROBED), self.held_out(1, PROBED)
        device = self.runtime.device
        z = torch.randn(
            len(sources), self.config.z_dim, generator=torch.Generator(device).manual_seed(0), device=device
        )
        first_domain = torch.zeros(PROBED, dtype=torch.int64, device=device)
        return ProbeInputs(
            lambda image: self.discriminator(image, first_domain[: len(image)]).float(),
            self.as_trained(first_batch(self.train_domains[0], len(held_out), device)),
            held_out,
            self.translator.in_style(sources, self.translator.random_styles(z, 0)),
        )

    def _lpips_of(self, a: Tensor, b: Tensor) -> Tensor:
        assert self.lpips is not None
        return self.lpips(self.pictures(a), self.pictures(b))
