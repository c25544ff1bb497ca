"""Names and signatures of PyTorch-StudioGAN (`src/utils/losses.py`).

`scaler` of the penalties is the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan import losses
from fastgan.compat._shared import check_logits, check_pair, interpolated
from fastgan.losses._input_gradient import check_samples, input_gradient
from fastgan.losses.path_length import as_decay, penalized_lengths
from fastgan.losses.penalties import penalty_of_logits
from fastgan.ops._checks import (
    as_device,
    as_finite,
    as_flag,
    check_callable,
    check_same_device,
    check_tensor,
    described,
    may_look_at,
)
from fastgan.reference.precision import wide


def d_vanilla(
    d_logit_real: Tensor, d_logit_fake: Tensor, DDP: bool, *, from_probabilities: bool = False
) -> Tensor:
    """Mean softplus(-real) + mean softplus(fake); `DDP` is unused, as in the original."""
    check_logits(d_logit_real=d_logit_real, d_logit_fake=d_logit_fake)
    return losses.d_nonsaturating_loss(d_logit_real, d_logit_fake, from_probabilities=from_probabilities)


def g_vanilla(d_logit_fake: Tensor, DDP: bool, *, from_probabilities: bool = False) -> Tensor:
    """Mean softplus(-fake)"""
    check_logits(d_logit_fake=d_logit_fake)
    return losses.g_nonsaturating_loss(d_logit_fake, from_probabilities=from_probabilities)


def d_logistic(
    d_logit_real: Tensor, d_logit_fake: Tensor, DDP: bool, *, from_probabilities: bool = False
) -> Tensor:
    """Mean of softplus(-real) + softplus(fake): `d_vanilla`'s."""
    return d_vanilla(d_logit_real, d_logit_fake, DDP, from_probabilities=from_probabilities)


def g_logistic(d_logit_fake: Tensor, DDP: bool, *, from_probabilities: bool = False) -> Tensor:
    """Mean softplus(-fake): `g_vanilla`'s."""
    return g_vanilla(d_logit_fake, DDP, from_probabilities=from_probabilities)


def d_ls(d_logit_real: Tensor, d_logit_fake: Tensor, DDP: bool) -> Tensor:
    """Mean of ((real - 1)^2 + fake^2) / 2"""
    check_logits(d_logit_real=d_logit_real, d_logit_fake=d_logit_fake)
    return losses.d_lsgan_loss(d_logit_real, d_logit_fake)


def g_ls(d_logit_fake: Tensor, DDP: bool) -> Tensor:
    """Mean (fake - 1)^2 / 2"""
    check_logits(d_logit_fake=d_logit_fake)
    return losses.g_lsgan_loss(d_logit_fake)


def d_hinge(d_logit_real: Tensor, d_logit_fake: Tensor, DDP: bool) -> Tensor:
    """Mean max(0, 1 - real) + mean max(0, 1 + fake)"""
    check_logits(d_logit_real=d_logit_real, d_logit_fake=d_logit_fake)
    return losses.d_hinge_loss(d_logit_real, d_logit_fake)


def g_hinge(d_logit_fake: Tensor, DDP: bool) -> Tensor:
    """-mean fake"""
    check_logits(d_logit_fake=d_logit_fake)
    return losses.g_adversarial_loss(d_logit_fake)


def d_wasserstein(d_logit_real: Tensor, d_logit_fake: Tensor, DDP: bool) -> Tensor:
    """Mean (fake - real)"""
    check_logits(d_logit_real=d_logit_real, d_logit_fake=d_logit_fake)
    return losses.d_wgan_loss(d_logit_real, d_logit_fake)


def g_wasserstein(d_logit_fake: Tensor, DDP: bool) -> Tensor:
    """-mean fake"""
    check_logits(d_logit_fake=d_logit_fake)
    return losses.g_adversarial_loss(d_logit_fake)


def crammer_singer_loss(adv_output: Tensor, label: Tensor, DDP: bool, **_: Any) -> Tensor:
    """Mean max(0, 1 + the largest other class's logit - the label's); of D and G of multi-hinge GANs.

    Args:
        adv_output: logits (N, classes + 1).
        label: (N,), int64 in [0, classes].
        DDP: unused, as in the original.

    Raises:
        TypeError, ValueError: logits that are not such a floating-point tensor, or labels of another dtype or
            number, or, if they can be read without synchronization, out of range.
    """
    check_logits(adv_output=adv_output)
    check_tensor("label", label)
    if adv_output.dim() != 2 or adv_output.shape[1] < 2:
        raise ValueError(f"adv_output must have shape (N, classes + 1), got {tuple(adv_output.shape)}")
    if label.dtype != torch.int64:
        raise TypeError(f"label must be int64, got {described(label)}")
    if label.shape != adv_output.shape[:1]:
        raise ValueError(f"label must have shape ({len(adv_output)},), got {tuple(label.shape)}")
    check_same_device(adv_output=adv_output, label=label)
    classes = adv_output.shape[1]
    if may_look_at(label):
        low, high = (int(bound) for bound in label.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(f"label must lie in [0, {classes}), got {low if low < 0 else high}")
    logits, index = wide(adv_output), label[:, None]
    wrong = logits.scatter(1, index, -torch.inf).max(dim=1, keepdim=True).values
    return torch.relu(1 + wrong - logits.gather(1, index)).mean()


def feature_matching_loss(real_embed: Tensor, fake_embed: Tensor) -> Tensor:
    """Mean |mean of fake_embed over the batch - mean of real_embed over the batch|; both get a gradient.

    Args:
        real_embed, fake_embed: the discriminator's features (N, ...); the batches may differ in size.

    Raises:
        TypeError, ValueError: features that are not floating-point tensors with samples, or of other shapes.
    """
    check_logits(real_embed=real_embed)
    check_logits(fake_embed=fake_embed)
    if real_embed.dim() == 0 or real_embed.shape[1:] != fake_embed.shape[1:]:
        raise ValueError(
            "real_embed and fake_embed must have samples of one shape, got "
            f"{tuple(real_embed.shape)} and {tuple(fake_embed.shape)}"
        )
    check_same_device(real_embed=real_embed, fake_embed=fake_embed)
    return F.l1_loss(wide(fake_embed).mean(dim=0), wide(real_embed).mean(dim=0))


def cal_r1_reg(
    adv_output: Tensor,
    images: Tensor,
    device: torch.device | str,
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """Half the mean squared norm of the gradient; `device` is unused."""
    return penalty_of_logits(adv_output, images, scale=0.5, scaler=scaler, names=("adv_output", "images"))


def stylegan_cal_r1_reg(
    adv_output: Tensor, images: Tensor, *, scaler: torch.amp.GradScaler | None = None
) -> Tensor:
    """Half the mean squared norm of the gradient: `cal_r1_reg`'s."""
    return penalty_of_logits(adv_output, images, scale=0.5, scaler=scaler, names=("adv_output", "images"))


def cal_grad_penalty(
    real_images: Tensor,
    real_labels: Tensor,
    fake_images: Tensor,
    discriminator: Callable[..., dict[str, Any]],
    device: torch.device | str,
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """WGAN-GP; the discriminator is called as (images, labels, eval=False) and returns "adv_output"."""
    real_images = _moved(real_images, device)
    check_pair(real_images=real_images, fake_images=fake_images)
    x = interpolated(real_images, fake_images)
    return _distance_from_unit_norm(x, real_labels, discriminator, scaler).square().mean()


def cal_maxgrad_penalty(
    real_images: Tensor,
    real_labels: Tensor,
    fake_images: Tensor,
    discriminator: Callable[..., dict[str, Any]],
    device: torch.device | str,
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """The largest squared norm of a gradient at points as of `cal_grad_penalty`."""
    real_images = _moved(real_images, device)
    check_pair(real_images=real_images, fake_images=fake_images)
    x = interpolated(real_images, fake_images)
    return _norms(x, real_labels, discriminator, scaler).square().max()


def cal_dra_penalty(
    real_images: Tensor,
    real_labels: Tensor,
    discriminator: Callable[..., dict[str, Any]],
    device: torch.device | str,
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """DRAGAN, at points between real images and noise around them; the discriminator as above."""
    real = _moved(real_images, device)
    weight = torch.rand(real.shape[0], 1, 1, 1).to(device)
    noise = 0.5 * real.std() * torch.rand(real.shape).to(device)
    x = (real + weight * noise).detach().requires_grad_()
    return _distance_from_unit_norm(x, real_labels, discriminator, scaler).square().mean()


def _moved(real_images: Tensor, device: torch.device | str) -> Tensor:
    check_samples("real_images", real_images)
    device = as_device("device", device)
    if real_images.is_meta and device.type != "meta":
        raise ValueError(f"real_images must have values to bring to {device}, got {described(real_images)}")
    return real_images.to(device)


def _distance_from_unit_norm(
    x: Tensor,
    labels: Tensor,
    discriminator: Callable[..., dict[str, Any]],
    scaler: torch.amp.GradScaler | None,
) -> Tensor:
    """The norm of each sample's gradient, minus 1."""
    return _norms(x, labels, discriminator, scaler) - 1


def _norms(
    x: Tensor,
    labels: Tensor,
    discriminator: Callable[..., dict[str, Any]],
    scaler: torch.amp.GradScaler | None,
) -> Tensor:
    """The norm of each sample's gradient."""
    check_callable("discriminator", discriminator)
    returned = discriminator(x, labels, eval=False)
    if not isinstance(returned, Mapping) or "adv_output" not in returned:
        raise TypeError(
            f"the discriminator must return a dict with 'adv_output', got {type(returned).__name__}"
        )
    logits = returned["adv_output"]
    names = ("discriminator's adv_output", "its images")
    return wide(input_gradient(logits, x, scaler, names)).flatten(1).norm(2, dim=1)


class PathLengthRegularizer:
    """Path length regularization with its running mean `pl_mean`, which no checkpoint has.

    :class:`fastgan.losses.PathLength` keeps it in a `state_dict`.

    Args:
        device: of the running mean.
        pl_decay: the share in [0, 1] by which it moves at each call.
        pl_weight: factor of the penalty.
        pl_no_weight_grad: unused: the original leaves out gradients that nothing reads.
    """

    def __init__(
        self,
        device: torch.device | str | int,
        pl_decay: float = 0.01,
        pl_weight: float = 2,
        pl_no_weight_grad: bool = False,
    ) -> None:
        self.pl_mean = torch.zeros([], device=as_device("device", device))
        self.pl_decay = as_decay("pl_decay", pl_decay)
        self.pl_weight = as_finite("pl_weight", pl_weight)
        self.pl_no_weight_grad = as_flag("pl_no_weight_grad", pl_no_weight_grad)

    def cal_pl_reg(
        self, fake_images: Tensor, ws: Tensor, *, scaler: torch.amp.GradScaler | None = None
    ) -> Tensor:
        """The weighted penalty of images, N C H W, made from latents, N L D or N D, 0-d; moves `pl_mean`."""
        names = ("fake_images", "ws", "pl_mean")
        mean = self.pl_mean.clone()
        penalty, moved, _ = penalized_lengths(fake_images, ws, mean, self.pl_decay, None, None, scaler, names)
        self.pl_mean.copy_(moved.detach())
        return self.pl_weight * penalty
