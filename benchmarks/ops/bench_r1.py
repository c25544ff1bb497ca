"""An R1 step, forward + penalty + backward, on the discriminators of StarGAN v2 and DCGAN.

Run by `fastgan bench r1`. "eager" is the usual code of trainers: autograd.grad(create_graph=True). "fastgan
eager" is r1_penalty, "compiled" r1_penalty_of under torch.compile, "fastgan" the same with
`convert_convolutions`. A step takes seconds on a CPU, so it is measured only a few times, with freed memory
kept, as in fastgan's trainers.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastgan.bench.critics import CRITICS, make_critic
from fastgan.losses import r1_penalty, r1_penalty_of
from fastgan.ops import convert_convolutions

PROVIDERS = ["fastgan", "fastgan eager", "eager", "compiled"]
BATCH, IMAGE_SIZE = {"cpu": 16, "cuda": 32}, {"cpu": 64, "cuda": 256}
ROUNDS = 5


def setup(provider: str, critic: nn.Module) -> Callable[[Tensor], Tensor]:
    """The provider's penalty(real), ready for backward()."""

    def plain(real: Tensor) -> Tensor:
        real = real.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
        return gradient.square().flatten(1).sum(dim=1).mean()

    def eager(real: Tensor) -> Tensor:
        real = real.detach().requires_grad_()
        return r1_penalty(critic(real), real)

    def functional(real: Tensor) -> Tensor:
        return r1_penalty_of(critic, real)

    compiled = torch.compile(functional, fullgraph=True)
    return {"fastgan": compiled, "fastgan eager": eager, "eager": plain, "compiled": compiled}[provider]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", CRITICS)
def test_r1(measure, device, memory, name, provider):
    if memory == "returned":
        pytest.skip("measured with memory kept, as trainers keep it")
    size = IMAGE_SIZE[device]
    real = torch.rand(BATCH[device], 3, size, size, device=device)
    critic = make_critic(name, size).to(device)
    if provider == "fastgan":
        convert_convolutions(critic)
    penalty = setup(provider, critic)

    def forward() -> Tensor:
        return penalty(real)

    def full() -> None:
        critic.zero_grad()
        forward().backward()

    measure(
        op="r1",
        provider=provider,
        size=f"{name} {size}x{size}",
        mode="full",
        run=full,
        floor_bytes=real.numel() * real.element_size(),
        forward=forward,
        inputs=(real, *critic.parameters()),
        rounds=ROUNDS,
        compiles=provider in ("fastgan", "compiled"),
    )
