"""Trainers that translate images: StarGAN v2, CUT and CycleGAN, zi2zi."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan.bench.public.base import Training, batches, of_networks


def starganv2(_: Path) -> Training:
    from munch import Munch

    solver = importlib.import_module("core.solver")
    args = Munch(
        img_size=32, style_dim=8, w_hpf=0, latent_dim=4, num_domains=2, lambda_reg=1.0, lambda_sty=1.0,
        lambda_ds=1.0, lambda_cyc=1.0, mode="train", f_lr=1e-6, lr=1e-4, beta1=0.0, beta2=0.99,
        weight_decay=1e-4, checkpoint_dir=".", resume_iter=0,
    )  # fmt: skip
    model = importlib.import_module("core.model")
    for network in (model.Generator, model.StyleEncoder, model.Discriminator):
        defaults = network.__init__.__defaults__  # of which the solver leaves the channels alone
        network.__init__.__defaults__ = tuple(32 if value == 512 else value for value in defaults)
    trainer = solver.Solver(args)
    nets, nets_ema, optims = trainer.nets, trainer.nets_ema, trainer.optims
    real, reference, other = (batches(1, 3, 32, 32) for _ in range(3))
    y_org, y_trg = torch.tensor([0]), torch.tensor([1])

    def update(loss: Tensor, *names: str) -> None:
        trainer._reset_grad()
        loss.backward()
        for name in names:
            optims[name].step()

    def step() -> list[Any]:
        x, x_ref, x_ref2 = next(real), next(reference), next(other)
        z, z2 = torch.randn(1, 4), torch.randn(1, 4)
        losses = []
        for options in ({"z_trg": z}, {"x_ref": x_ref}):
            loss, parts = solver.compute_d_loss(nets, args, x, y_org, y_trg, **options)
            update(loss, "discriminator")
            losses += [loss, *parts.values()]
        loss, parts = solver.compute_g_loss(nets, args, x, y_org, y_trg, z_trgs=[z, z2])
        update(loss, "generator", "mapping_network", "style_encoder")
        losses += [loss, *parts.values()]
        loss, parts = solver.compute_g_loss(nets, args, x, y_org, y_trg, x_refs=[x_ref, x_ref2])
        update(loss, "generator")
        for name in ("generator", "mapping_network", "style_encoder"):
            solver.moving_average(nets[name], nets_ema[name], beta=0.999)
        return [*losses, loss, *parts.values()]

    return Training(step, of_networks(*nets.values(), *nets_ema.values()))


def cut(model: str) -> Callable[[Path], Training]:
    """A model of CUT's repository, which also has CycleGAN on the same `models/networks.py`."""

    def make(_: Path) -> Training:
        models = importlib.import_module("models")
        options = importlib.import_module("options.train_options").TrainOptions(
            f"--dataroot . --gpu_ids -1 --model {model} --netG resnet_6blocks --ngf 8 --ndf 8 "
            "--crop_size 64 --load_size 64 --gan_mode lsgan --pool_size 0 --checkpoints_dir ."
            + (" --netF mlp_sample --netF_nc 16 --num_patches 16" if model == "cut" else "")
        )
        opt = options.parse()
        opt.amp = False  # asked for by CycleGAN, and no option of this repository
        trainer = models.create_model(opt)
        a, b = batches(2, 3, 64, 64), batches(2, 3, 64, 64)

        def data() -> dict[str, Any]:
            return {"A": next(a), "B": next(b), "A_paths": [], "B_paths": []}

        if model == "cut":
            trainer.data_dependent_initialize(data())
        trainer.setup(opt)

        def step() -> list[Any]:
            trainer.set_input(data())
            trainer.optimize_parameters()
            return list(trainer.get_current_losses().values())

        networks = [getattr(trainer, f"net{name}") for name in trainer.model_names]
        return Training(step, of_networks(*networks))

    return make


def zi2zi(_: Path) -> Training:
    trainer = importlib.import_module("model.model").Zi2ZiModel(
        input_nc=1, embedding_num=4, embedding_dim=8, ngf=8, ndf=8, image_size=256, gpu_ids=[]
    )
    trainer.setup()
    source, target = batches(2, 1, 256, 256), batches(2, 1, 256, 256)

    def step() -> list[Any]:
        trainer.set_input(torch.tensor([0, 3]), next(source), next(target))
        return list(trainer.optimize_parameters())

    return Training(step, of_networks(trainer.netG, trainer.netD))
