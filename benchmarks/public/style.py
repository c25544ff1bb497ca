"""StyleGAN's trainers and those after them: R3GAN, StyleGAN2-ADA, StyleGAN3, rosinality's, StudioGAN."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan.bench.public.base import Training, batches, of_networks

SIZE = 32


def r3gan(_: Path) -> Training:
    networks = importlib.import_module("training.networks")
    options = {
        "WidthPerStage": [16] * 4, "BlocksPerStage": [1] * 4, "CardinalityPerStage": [2] * 4,
        "ExpansionFactor": 2, "FP16Stages": [], "c_dim": 0, "img_resolution": SIZE,
    }  # fmt: skip
    generator = networks.Generator(NoiseDimension=8, **options)
    discriminator = networks.Discriminator(**options)
    loss = importlib.import_module("training.loss").R3GANLoss(generator, discriminator)
    both = {"G": generator, "D": discriminator}
    optimizers = {name: torch.optim.Adam(each.parameters(), 1e-3, (0.0, 0.9)) for name, each in both.items()}
    images = batches(4, 3, SIZE, SIZE)

    def step() -> list[Any]:
        for name, network in both.items():
            optimizers[name].zero_grad()
            for each in both.values():
                each.requires_grad_(each is network)
            loss.accumulate_gradients(name, next(images), None, torch.randn(4, 8), gamma=1.0, gain=1)
            optimizers[name].step()
        # In place of the losses, which the step keeps to itself.
        return [torch.stack([p.grad.norm() for p in network.parameters()]) for network in both.values()]

    return Training(step, of_networks(generator, discriminator))


def stylegan2_ada(_: Path) -> Training:
    return _stylegan2("training.networks", sync=True, num_fp16_res=0)


def stylegan3(_: Path) -> Training:
    return _stylegan2("training.networks_stylegan2", sync=False, num_fp16_res=0)


def _stylegan2(module: str, sync: bool, **synthesis: Any) -> Training:
    networks, losses = importlib.import_module(module), importlib.import_module("training.loss")
    common = {"c_dim": 0, "img_resolution": SIZE, "img_channels": 3}
    narrow = {"channel_base": 512, "channel_max": 32}
    if sync:
        options: dict[str, Any] = {
            "synthesis_kwargs": {**narrow, **synthesis},
            "mapping_kwargs": {"num_layers": 2},
        }
    else:
        options = {**narrow, **synthesis, "mapping_kwargs": {"num_layers": 2}}
    generator = networks.Generator(z_dim=16, w_dim=16, **common, **options)
    discriminator = networks.Discriminator(
        **common, **narrow, num_fp16_res=0, epilogue_kwargs={"mbstd_group_size": 2}
    )
    keys = {"G_mapping": generator.mapping, "G_synthesis": generator.synthesis} if sync else {"G": generator}
    loss = losses.StyleGAN2Loss(
        device=torch.device("cpu"), **keys, D=discriminator, style_mixing_prob=0.9, r1_gamma=1.0, pl_weight=2
    )
    both = {"G": generator, "D": discriminator}
    optimizers = {name: torch.optim.Adam(each.parameters(), 2e-3, (0.0, 0.99)) for name, each in both.items()}
    phases = ("Gmain", "Greg", "Dmain", "Dreg")
    images = batches(4, 3, SIZE, SIZE)
    own = {"sync": True} if sync else {"cur_nimg": 0}
    labels = torch.zeros(4, 0)

    def step() -> list[Any]:
        norms = []  # of all gradients of a phase, in place of its losses, which the step keeps to itself
        for phase in phases:
            name = phase[0]
            optimizers[name].zero_grad()
            for key, network in both.items():
                network.requires_grad_(key == name)
            loss.accumulate_gradients(
                phase=phase, real_img=next(images), real_c=labels, gen_z=torch.randn(4, 16), gen_c=labels,
                gain=1, **own,
            )  # fmt: skip
            gradients = (p.grad.norm() for p in both[name].parameters() if p.grad is not None)
            norms.append(torch.stack(list(gradients)))
            optimizers[name].step()
        return norms

    return Training(step, of_networks(generator, discriminator))


def rosinality(_: Path) -> Training:
    from torch.utils import cpp_extension

    cpp_extension.load = lambda *_, **__: None  # its kernels, which the CPU does not use
    train, model = importlib.import_module("train"), importlib.import_module("model")
    generator, average = (model.Generator(SIZE, 16, 2, channel_multiplier=1) for _ in range(2))
    discriminator = model.Discriminator(SIZE, channel_multiplier=1)
    train.accumulate(average, generator, 0)
    g_optim = torch.optim.Adam(generator.parameters(), 2e-3, (0.0, 0.99))
    d_optim = torch.optim.Adam(discriminator.parameters(), 2e-3, (0.0, 0.99))
    images = batches(4, 3, SIZE, SIZE)

    def update(loss: Any, optimizer: Any, network: nn.Module) -> Any:
        network.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    def step() -> list[Any]:
        real = next(images)
        train.requires_grad(generator, False)
        train.requires_grad(discriminator, True)
        fake, _ = generator(train.mixing_noise(4, 16, 0.9, "cpu"))
        d_loss = train.d_logistic_loss(discriminator(real), discriminator(fake))
        losses = [update(d_loss, d_optim, discriminator)]
        real = real.requires_grad_()
        real_pred = discriminator(real)
        r1_loss = train.d_r1_loss(real_pred, real)
        losses.append(update(5 * r1_loss * 16 + 0 * real_pred[0, 0], d_optim, discriminator))
        real.requires_grad_(False)
        train.requires_grad(generator, True)
        train.requires_grad(discriminator, False)
        fake, _ = generator(train.mixing_noise(4, 16, 0.9, "cpu"))
        losses.append(update(train.g_nonsaturating_loss(discriminator(fake)), g_optim, generator))
        train.accumulate(average, generator, 0.998)
        return losses

    return Training(step, of_networks(generator, discriminator, average))


def studiogan(clone: Path) -> Training:
    """The losses and penalties of its worker's steps, on its networks of DCGAN."""
    losses = importlib.import_module("utils.losses")
    config = importlib.import_module("config")
    cfgs = config.Configurations(str(clone / "src/configs/CIFAR10/WGAN-GP.yaml"))
    cfgs.RUN.mixed_precision = False
    cfgs.define_modules()
    cfgs.define_losses()
    network = importlib.import_module(f"models.{cfgs.MODEL.backbone}")
    m, d = cfgs.MODEL, cfgs.MODULES
    generator = network.Generator(
        z_dim=m.z_dim, g_shared_dim=m.g_shared_dim, img_size=SIZE, g_conv_dim=8, apply_attn=False,
        attn_g_loc=m.attn_g_loc, g_cond_mtd=m.g_cond_mtd, num_classes=10, g_init=m.g_init, g_depth=m.g_depth,
        mixed_precision=False, MODULES=d, MODEL=m,
    )  # fmt: skip
    discriminator = network.Discriminator(
        img_size=SIZE, d_conv_dim=8, apply_d_sn=m.apply_d_sn, apply_attn=False, attn_d_loc=m.attn_d_loc,
        d_cond_mtd=m.d_cond_mtd, aux_cls_type=m.aux_cls_type, d_embed_dim=m.d_embed_dim,
        normalize_d_embed=False, num_classes=10, d_init=m.d_init, d_depth=m.d_depth, mixed_precision=False,
        MODULES=d, MODEL=m,
    )  # fmt: skip
    d_optim = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999), eps=1e-6)
    g_optim = torch.optim.Adam(generator.parameters(), 2e-4, (0.5, 0.999), eps=1e-6)
    images = batches(8, 3, SIZE, SIZE)
    labels = torch.arange(8)
    numbers = itertools.count()

    def step() -> list[Any]:
        real = next(images)
        fake = generator(torch.randn(8, m.z_dim), labels).detach()
        d_loss = cfgs.LOSS.d_loss(
            discriminator(real, labels)["adv_output"], discriminator(fake, labels)["adv_output"], DDP=False
        )
        penalty = losses.cal_grad_penalty(
            real_images=real, real_labels=labels, fake_images=fake, discriminator=discriminator, device="cpu"
        )
        d_optim.zero_grad()
        (d_loss + cfgs.LOSS.gp_lambda * penalty).backward()
        d_optim.step()
        if next(numbers) % 2:
            return [d_loss, penalty]
        fake = generator(torch.randn(8, m.z_dim), labels)
        g_loss = cfgs.LOSS.g_loss(discriminator(fake, labels)["adv_output"], DDP=False)
        g_optim.zero_grad()
        g_loss.backward()
        g_optim.step()
        return [d_loss, penalty, g_loss]

    return Training(step, of_networks(generator, discriminator))
