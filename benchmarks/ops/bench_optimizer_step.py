"""WGAN's and Adam's updates against torch's optimizers and the calls around them.

Run by `fastgan bench optimizer_step`. "rmsprop": gradients clamped, RMSprop, weights clamped; "adam": Adam
and a moving average of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from fastgan._torch_internals import foreach_clamp_max_, foreach_clamp_min_, lerp_all
from fastgan.bench.critics import DCGANCritic
from fastgan.optim import EMA, Adam, RMSprop
from fastgan.recipes.stegastamp.networks import StegaStampDiscriminator


def unet() -> nn.Module:
    """The parameters, 31 million, of the U-Net of Ronneberger, Fischer and Brox, 2015."""
    widths = (3, 64, 128, 256, 512, 1024)
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Conv2d(narrow, wide, 3), nn.Conv2d(wide, wide, 3)]
    for narrow, wide in pairwise(widths[1:]):
        up = nn.ConvTranspose2d(wide, narrow, 2)
        layers += [up, nn.Conv2d(wide, narrow, 3), nn.Conv2d(narrow, narrow, 3)]
    return nn.ModuleList([*layers, nn.Conv2d(64, 3, 1)])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "stegastamp": StegaStampDiscriminator,
    "dcgan": lambda: DCGANCritic(width=128),
    "unet": unet,
}
CASES = [("rmsprop", "stegastamp"), ("rmsprop", "dcgan"), ("adam", "stegastamp"), ("adam", "unet")]
# rmsprop reads p, g, v and writes p, v; adam reads p, g, m, v, average and writes all but g
FLOOR_TENSORS = {"rmsprop": 5, "adam": 9}
GRAD_CLIP, WEIGHT_CLIP, DECAY = 0.25, 0.01, 0.999


def setup(provider: str, mode: str, model: nn.Module) -> Callable[[], object]:
    """The provider's update()."""
    params: list[Tensor] = list(model.parameters())
    if provider == "fastgan" and mode == "rmsprop":
        return RMSprop(params, 1e-5, grad_clip_value=GRAD_CLIP, weight_clip=WEIGHT_CLIP).step
    if provider == "fastgan":
        return Adam(params, 1e-4, ema=EMA(model, DECAY, warmup=False)).step
    if mode == "rmsprop":
        rmsprop = torch.optim.RMSprop(params, 1e-5, foreach=provider == "foreach")

        @torch.no_grad()
        def clipped() -> None:
            nn.utils.clip_grad_value_(params, GRAD_CLIP, foreach=provider == "foreach")
            rmsprop.step()
            if provider == "foreach":
                foreach_clamp_max_(params, WEIGHT_CLIP)
                foreach_clamp_min_(params, -WEIGHT_CLIP)
            else:
                for parameter in params:
                    parameter.clamp_(-WEIGHT_CLIP, WEIGHT_CLIP)

        return clipped
    adam = torch.optim.Adam(params, 1e-4, foreach=provider == "foreach", fused=provider != "foreach")
    averages = [parameter.detach().clone() for parameter in params]

    @torch.no_grad()
    def averaged() -> None:
        adam.step()
        lerp_all(averages, params, 1 - DECAY)

    return averaged


@pytest.mark.parametrize("provider", ["fastgan", "foreach", "single or fused"])
@pytest.mark.parametrize(("mode", "name"), CASES)
def test_optimizer_step(measure, device, mode, name, provider):
    torch.manual_seed(0)
    model = MODELS[name]().to(device)
    for parameter in model.parameters():
        parameter.grad = 1e-2 * torch.randn_like(parameter)
    elements = sum(parameter.numel() for parameter in model.parameters())
    measure(
        op="optimizer_step",
        provider={"single or fused": "single" if mode == "rmsprop" else "fused"}.get(provider, provider),
        size=f"{name} {elements / 1e6:.3g}M",
        mode=mode,
        run=setup(provider, mode, model),
        floor_bytes=FLOOR_TENSORS[mode] * elements * 4,
    )
