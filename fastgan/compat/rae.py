"""Names and signatures of RAE (`src/train_stage1.py`, `src/disc/gan_loss.py`): losses of stage one.

:func:`generator_loss` is in place of these lines of the trainer, with one backward pass through LPIPS and the
discriminator in place of two:

.. code-block:: python

    adaptive_weight = calculate_adaptive_weight(recon_total, gan_loss, last_layer, max_d_weight)
    total_loss = recon_total + disc_weight * adaptive_weight * gan_loss
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.compat import _tokenizer
from fastgan.compat._late_cut import LateCut
from fastgan.compat._shared import check_logits
from fastgan.losses import g_adversarial_loss
from fastgan.monitor import AdaptiveWeight, Shares
from fastgan.ops._checks import (
    as_finite,
    as_not_negative,
    check_floating,
    check_instance,
    check_one_of,
    check_same_device,
    check_scaler,
    described,
)
from fastgan.reference.precision import wide

__all__ = [
    "calculate_adaptive_weight",
    "generator_loss",
    "hinge_d_loss",
    "select_gan_losses",
    "vanilla_d_loss",
    "vanilla_g_loss",
]

Reduction = Literal["mean", "sum"]


def hinge_d_loss(logits_real: Tensor, logits_fake: Tensor, reduction: Reduction = "mean") -> Tensor:
    """(max(0, 1 - real) + max(0, 1 + fake)) / 2, each reduced, 0-d, in float32 or better."""
    check_one_of("reduction", reduction, ("mean", "sum"))
    if reduction == "mean":
        return _tokenizer.hinge_d_loss(logits_real, logits_fake)
    check_logits(logits_real=logits_real, logits_fake=logits_fake)
    return 0.5 * (F.relu(1 - wide(logits_real)).sum() + F.relu(1 + wide(logits_fake)).sum())


def vanilla_d_loss(logits_real: Tensor, logits_fake: Tensor, reduction: Reduction = "mean") -> Tensor:
    """(softplus(-real) + softplus(fake)) / 2, each reduced, 0-d, in float32 or better."""
    check_one_of("reduction", reduction, ("mean", "sum"))
    if reduction == "mean":
        return _tokenizer.vanilla_d_loss(logits_real, logits_fake)
    check_logits(logits_real=logits_real, logits_fake=logits_fake)
    return 0.5 * (F.softplus(-wide(logits_real)).sum() + F.softplus(wide(logits_fake)).sum())


def vanilla_g_loss(logits_fake: Tensor, reduction: Reduction = "mean") -> Tensor:
    """-fake, reduced, 0-d, in float32 or better."""
    check_one_of("reduction", reduction, ("mean", "sum"))
    check_logits(logits_fake=logits_fake)
    return g_adversarial_loss(logits_fake) if reduction == "mean" else -wide(logits_fake).sum()


def select_gan_losses(
    disc_kind: Literal["hinge", "vanilla"], gen_kind: Literal["vanilla"]
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """(discriminator's loss, generator's loss)

    Raises:
        ValueError: another kind, as published.
    """
    check_one_of("disc_kind", disc_kind, ("hinge", "vanilla"))
    check_one_of("gen_kind", gen_kind, ("vanilla",))
    return hinge_d_loss if disc_kind == "hinge" else vanilla_d_loss, vanilla_g_loss


def calculate_adaptive_weight(
    recon_loss: Tensor, gan_loss: Tensor, layer: nn.Parameter, max_d_weight: float = 1e4
) -> Tensor:
    """The ratio of the norms of two losses' gradients of a layer, at most max_d_weight, 0-d.

    As published: a backward pass through all that each loss consists of. See :func:`generator_loss`.

    Args:
        recon_loss, gan_loss: 0-d, whose graphs are kept.
        layer: the weight of the decoder's last layer.
        max_d_weight: not negative.

    Raises:
        TypeError, ValueError: arguments of another kind, or losses that do not depend on the layer.
    """
    max_d_weight = _check(recon_loss, gan_loss, layer, max_d_weight)
    norms = []
    for name, loss in (("recon_loss", recon_loss), ("gan_loss", gan_loss)):
        (gradient,) = torch.autograd.grad(loss, layer, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(f"{name} must depend on the layer, got {described(loss)} that does not")
        norms.append(torch.linalg.vector_norm(wide(gradient)))
    return (norms[0] / (norms[1] + 1e-6)).clamp(0.0, max_d_weight)


def generator_loss(
    recon: Tensor,
    recon_loss: Tensor,
    gan_loss: Tensor,
    layer: nn.Parameter,
    disc_weight: float = 1.0,
    max_d_weight: float = 1e4,
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> tuple[Tensor, Tensor, Shares]:
    r"""(total_loss, adaptive_weight, shares), of one backward pass through each loss.

    total_loss is recon_loss + disc_weight * adaptive_weight * gan_loss, with

    .. math::
        \text{adaptive\_weight} = \min \Big( \frac{\lVert \nabla_L \, \text{recon\_loss} \rVert}{\lVert
        \nabla_L \, \text{gan\_loss} \rVert + 10^{-6}}, \text{max\_d\_weight} \Big)

    and shares tells what "reconstruction" and "gan" contribute to the gradient of recon.

    `total_loss.backward()` continues from recon, and can be called once: both losses are run backward down to
    `recon` at once, and what they saved for it is freed. The discriminator's weights get no gradient from
    gan_loss, which the published trainer discards. In several processes the weight is that of the joined
    batch.

    Args:
        recon: the decoder's output, from which both losses were computed.
        recon_loss, gan_loss: 0-d.
        layer: the weight of the decoder's last layer.
        disc_weight: factor of the adversarial term.
        max_d_weight: the largest adaptive weight.
        scaler: the GradScaler in use, if any; `scaler.scale(total_loss).backward()` follows as before.

    Raises:
        TypeError, ValueError: arguments of another kind, recon without a graph, losses that do not depend on
            it alone, or a layer that it does not depend on.

    Source: Zheng et al., "Diffusion Transformers with Representation Autoencoders", 2025.
    """
    check_floating("recon", recon)
    disc_weight = as_finite("disc_weight", disc_weight)
    check_scaler("scaler", scaler)
    max_d_weight = _check(recon_loss, gan_loss, layer, max_d_weight)
    check_same_device(recon=recon, recon_loss=recon_loss, gan_loss=gan_loss)
    if recon.grad_fn is None:
        raise ValueError(
            f"recon must be computed from trained weights, got {described(recon)} without a graph"
        )
    budget = _tokenizer.budget_at(recon, layer, "layer")
    cut = LateCut(recon, budget, scaler)
    for name, loss in (("recon_loss", recon_loss), ("gan_loss", gan_loss)):
        if not cut.ends(loss):
            raise ValueError(
                f"{name} must be computed from recon alone, got {described(loss)} that is not: was another "
                "tensor than recon given to the loss?"
            )
    moved = cut.move({"reconstruction": recon_loss, "gan": gan_loss}, without_parameters=("gan",))
    terms = {name: each.loss for name, each in moved.items()}
    weight = AdaptiveWeight(("reconstruction",), disc_weight, (0.0, max_d_weight), epsilon=1e-6)
    with _tokenizer.refused("layer", layer, "recon"):
        total_loss, shares = budget.loss(terms, {"reconstruction": 1.0, "gan": weight}, scaler=scaler)
    return total_loss, shares.ratio["gan"], shares


def _check(recon_loss: Tensor, gan_loss: Tensor, layer: object, max_d_weight: float) -> float:
    for name, loss in (("recon_loss", recon_loss), ("gan_loss", gan_loss)):
        check_floating(name, loss)
        if loss.dim() != 0 or not loss.requires_grad:
            raise ValueError(f"{name} must be 0-d with a graph, got {described(loss)}")
    check_instance("layer", layer, nn.Parameter, "the weight of the decoder's last layer")
    assert isinstance(layer, nn.Parameter)
    if not layer.requires_grad:
        raise ValueError(f"layer must be trained, got {described(layer)} that does not require grad")
    return as_not_negative("max_d_weight", max_d_weight)
