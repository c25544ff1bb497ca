"""The function that PyTorch-GAN's WGAN-GP scripts, and many after them, define."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fastgan.compat._shared import check_pair
from fastgan.losses._input_gradient import input_gradient
from fastgan.ops._checks import check_callable
from fastgan.reference.precision import wide


def compute_gradient_penalty(
    D: Callable[[Tensor], Tensor],
    real_samples: Tensor,
    fake_samples: Tensor,
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """Mean (norm - 1)^2 of the gradients at random points between real and fake samples, 0-d.

    The points are drawn from NumPy's global generator, one number for each sample, as in the original.

    Args:
        D: the discriminator, called with the points.
        real_samples, fake_samples: N ..., of one shape.
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.

    Raises:
        TypeError, ValueError: samples that are not floating-point tensors of one shape on one device, or a
            discriminator that is not callable, or whose output does not depend on its input.
    """
    check_callable("D", D)
    check_pair(real_samples=real_samples, fake_samples=fake_samples)
    shape = (len(real_samples), *(1,) * (real_samples.dim() - 1))
    alpha = torch.from_numpy(np.random.random(shape)).to(real_samples.device, torch.float32)  # noqa: NPY002
    x = (alpha * real_samples + (1 - alpha) * fake_samples).detach().requires_grad_()
    gradient = wide(input_gradient(D(x), x, scaler, ("output of D", "its input")))
    return (gradient.flatten(1).norm(2, dim=1) - 1).square().mean()
