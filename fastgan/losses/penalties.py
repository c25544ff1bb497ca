"""Gradient penalties on the discriminator, with exact double backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Under the square root of the gradient's norm, so that a zero gradient gives no NaN.
EPSILON = 1e-12


def r1_penalty(logits: Tensor, x: Tensor) -> Tensor:
    """Mean over the batch of the squared L2 norm of d(sum logits) / dx; no factor 1/2.

    Args:
        logits: the discriminator's output for `x`, any shape.
        x: N ..., requires grad since before the discriminator saw it.

    Returns:
        0-d, differentiable with respect to the discriminator's parameters.

    Raises:
        ValueError: x does not require grad, or the logits do not depend on it.

    Source: Mescheder, Geiger and Nowozin, "Which training methods for GANs do actually converge?", 2018.
    """
    return _gradient(logits, x).square().flatten(1).sum(dim=1).mean()


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    *,
    center: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """WGAN-GP: mean of (|grad D| - center)^2 at random points between real and fake samples.

    The norm is over the whole sample.

    Args:
        discriminator: images to logits, one or more per sample.
        real, fake: N ..., equal shapes; detached here.
        center: the norm aimed at.
        generator: draws the points.

    Returns:
        0-d.

    Raises:
        TypeError: the discriminator returns no tensor.
        ValueError: unequal shapes, a negative center, or a wrapper under which second-order gradients
            are silently wrong or missing (see :func:`check_supports_penalty`).

    Source: Gulrajani et al., "Improved training of Wasserstein GANs", 2017.
    """
    if real.shape != fake.shape:
        raise ValueError(
            f"real and fake must have the same shape, got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    if center < 0:
        raise ValueError(f"center must not be negative, got {center}")
    check_supports_penalty(discriminator)
    where = torch.rand(real.shape[0], *(1,) * (real.dim() - 1), generator=generator, device=real.device)
    x = torch.lerp(real.detach(), fake.detach(), where.to(real.dtype)).requires_grad_()
    norm = (_gradient(discriminator(x), x).square().flatten(1).sum(dim=1) + EPSILON).sqrt()
    return (norm - center).square().mean()


def check_supports_penalty(discriminator: object) -> None:
    """Refuses wrappers that do not survive a double backward.

    Raises:
        ValueError: DistributedDataParallel with static_graph=True computes wrong gradients, and FSDP
            leaves gradients out, both without an error of their own.
    """
    if isinstance(discriminator, nn.parallel.DistributedDataParallel) and discriminator.static_graph:
        raise ValueError(
            "a gradient penalty under DistributedDataParallel(static_graph=True) gives wrong gradients "
            "silently: use static_graph=False, and add penalty and loss before one backward()"
        )
    if any("FullyShardedDataParallel" in cls.__name__ or cls.__name__ == "FSDPModule"
           for cls in type(discriminator).__mro__):  # fmt: skip
        raise ValueError(
            "a gradient penalty on an FSDP discriminator fails or silently leaves gradients out: "
            "keep the discriminator unsharded"
        )


def _gradient(logits: Tensor, x: Tensor) -> Tensor:
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the penalty needs the logits as one tensor, got {type(logits).__name__}: "
            "pass the part of the discriminator's output that scores the images"
        )
    if not x.requires_grad:
        raise ValueError("x must require grad before the discriminator sees it: x.requires_grad_()")
    if not logits.requires_grad:
        raise ValueError("the logits do not depend on x: were they computed under no_grad?")
    (gradient,) = torch.autograd.grad(logits.float().sum(), x, create_graph=True, allow_unused=True)
    if gradient is None:
        raise ValueError("the logits do not depend on x: was another tensor given to the discriminator?")
    return gradient
