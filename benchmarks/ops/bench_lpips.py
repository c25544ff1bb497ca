"""Whole perceptual losses, with a gradient for the generated image only, against common implementations.

Run by `fastgan bench lpips`. "lpips" is LPIPS with VGG: the package's, and fastgan's with precomputed
features of the target ("fastgan") and without ("fastgan, new target"); "perceptual" is relu1_2 and relu2_2 of
VGG16, and "by hand" the usual code of trainers. Backbones are random, since weights do not affect the time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastgan.losses import LPIPS, PerceptualLoss

SIZES = {"cpu": (4, 3, 256, 256), "cuda": (32, 3, 256, 256)}
# fastgan last: its calls make glibc keep freed memory, from which the others would profit.
CASES = [
    *(("lpips", provider) for provider in ("package", "package, compiled")),
    ("perceptual", "by hand"),
    *(("lpips", provider) for provider in ("fastgan", "fastgan, new target", "fastgan, channels_last")),
    *(("perceptual", provider) for provider in ("fastgan", "fastgan, new target")),
]


class ByHand(nn.Module):
    """A perceptual loss as usually written in trainers."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.vgg import cfgs, make_layers

        features = make_layers(cfgs["D"])
        self.slices = nn.ModuleList([features[:4], features[4:9]])
        for parameter in self.parameters():
            parameter.requires_grad = False
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = (((image + 1) / 2 - self.mean) / self.std for image in (x, y))
        loss = torch.zeros((), device=x.device)
        for part in self.slices:
            x, y = part(x), part(y)
            loss = loss + nn.functional.l1_loss(x, y)
        return loss


def setup(mode: str, provider: str, y: Tensor) -> Callable[[Tensor], Tensor]:
    """The provider's loss(x) for the target y."""
    pytest.importorskip("torchvision")
    if provider.startswith("fastgan"):
        loss: LPIPS | PerceptualLoss
        if mode == "lpips":
            loss = LPIPS(
                net="vgg", weights=None, reduction="mean", channels_last=provider.endswith("channels_last")
            ).to(y.device)
        else:
            loss = PerceptualLoss(backbone=None, device=y.device)
        target = y if provider.endswith("new target") else loss.precompute(y)
        return lambda x: loss(x, target)  # type: ignore[arg-type, return-value]
    if mode == "perceptual":
        by_hand = ByHand().to(y.device)
        return lambda x: by_hand(x, y)
    package = pytest.importorskip("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package_loss = package.LPIPS(net="vgg", pnet_rand=True, verbose=False).to(y.device)
    if provider.endswith("compiled"):
        package_loss = torch.compile(package_loss)
    return lambda x: package_loss(x, y).mean()


@pytest.mark.parametrize(("mode", "provider"), CASES)
def test_lpips(measure, device, mode, provider):
    torch.manual_seed(0)
    size = SIZES[device]
    x = (2 * torch.rand(size, device=device) - 1).requires_grad_()
    y = 2 * torch.rand(size, device=device) - 1
    loss = setup(mode, provider, y)

    def forward() -> Tensor:
        return loss(x)

    def full() -> None:
        x.grad = None
        forward().backward()

    measure(
        op="lpips",
        provider=provider,
        size="x".join(str(length) for length in size),
        mode=mode,
        run=full,
        floor_bytes=3 * x.numel() * x.element_size(),
        forward=forward,
        inputs=(x, y),
        rounds=5,
    )
