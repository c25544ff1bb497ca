"""Autoencoders with LPIPS: taming-transformers, latent-diffusion, Video Seal."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan.bench.public.base import Training, batches, of_networks


def vgg_with_random_weights() -> None:
    """Torchvision's VGG-16 without a download; a seed of its own leaves the generator's draws alone."""
    from torchvision import models

    original = models.vgg16

    def vgg16(*_: Any, **__: Any) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return original(weights=None)

    models.vgg16 = vgg16


def _older_torch() -> None:
    """The module of torch that taming-transformers imports a name from, and that newer versions lack."""
    module: Any = types.ModuleType("torch._six")
    module.string_classes = (str, bytes)
    sys.modules.setdefault(module.__name__, module)


def calibration_of_lpips(path: str) -> None:
    """The file of LPIPS's calibration where taming-transformers looks for it, from the lpips package."""
    package = Path(str(importlib.util.find_spec("lpips").origin)).parent  # type: ignore[union-attr]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(package / "weights/v0.1/vgg.pth", path)


def taming(_: Path) -> Training:
    _older_torch()
    vgg_with_random_weights()
    calibration_of_lpips("taming/modules/autoencoder/lpips/vgg.pth")
    loss = {
        "target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator",
        "params": {"disc_start": 0, "disc_ndf": 8, "disc_weight": 0.8, "disc_conditional": False},
    }
    model = importlib.import_module("taming.models.vqgan").VQModel(
        _layers(double_z=False), loss, n_embed=16, embed_dim=4
    )
    return _lightning(model)


def latent_diffusion(_: Path) -> Training:
    _older_torch()
    vgg_with_random_weights()
    calibration_of_lpips("taming/modules/autoencoder/lpips/vgg.pth")
    loss = {
        "target": "ldm.modules.losses.LPIPSWithDiscriminator",
        "params": {"disc_start": 0, "kl_weight": 1e-6, "disc_weight": 0.5},
    }
    model = importlib.import_module("ldm.models.autoencoder").AutoencoderKL(
        _layers(double_z=True), loss, embed_dim=4
    )
    return _lightning(model)


def _layers(double_z: bool) -> dict[str, Any]:
    return {
        "double_z": double_z, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip


def _lightning(model: Any) -> Training:
    """A module of Lightning whose training_step takes the optimizer's number."""
    model.learning_rate = 1e-4
    (optimizers, _) = model.configure_optimizers()
    images = batches(2, 64, 64, 3)
    model.log = model.log_dict = lambda *_, **__: None
    model.train()

    def step() -> list[Any]:
        batch, losses = {"image": next(images)}, []
        for number, optimizer in enumerate(optimizers):
            loss = model.training_step(batch, 0, number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss)
        return losses

    trained = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    return Training(step, lambda: trained)


def videoseal(_: Path) -> Training:
    vgg_with_random_weights()
    losses = importlib.import_module("videoseal.losses.videosealloss")
    modules = importlib.import_module("videoseal.modules.unet")
    messages = importlib.import_module("videoseal.modules.msg_processor")
    bits = 8
    processor = messages.MsgProcessor(nbits=bits, hidden_size=16, msg_processor_type="binary+concat")
    embedder = modules.UNetMsg(
        msg_processor=processor, in_channels=3, out_channels=3, z_channels=8, num_blocks=1,
        activation="relu", normalization="batch", z_channels_mults=(1, 2), last_tanh=True,
    )  # fmt: skip
    extractor = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 1 + bits, 3, 2, 1), nn.Flatten(2)
    )
    loss = losses.VideosealLoss(disc_weight=0.1, percep_weight=0.1, detect_weight=0.0, decode_weight=1.0)
    optimizers = [
        torch.optim.AdamW([*embedder.parameters(), *extractor.parameters()], lr=1e-4),
        torch.optim.AdamW(loss.discriminator.parameters(), lr=1e-4),
    ]
    images = batches(2, 3, 64, 64, low=0.0)

    def step() -> list[Any]:
        x, message = next(images), torch.randint(0, 2, (2, bits)).to(torch.get_default_dtype())
        marked = x + 0.1 * embedder(x, message)
        found = extractor(marked).mean(dim=2)
        found_losses = []
        for optimizer in optimizers:
            optimizer.zero_grad()
        for number in (1, 0):
            value, _ = loss(
                x, marked, torch.ones(2, 1), message, found, number, 0, last_layer=embedder.outc.weight
            )
            value.backward()
            found_losses.append(value)
        for optimizer in optimizers:
            optimizer.step()
        return found_losses

    return Training(step, of_networks(embedder, extractor, loss.discriminator))
