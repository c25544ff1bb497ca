"""What the losses of image tokenizers share: a perceptual loss, a discriminator and its adaptive weight.

The published code computes the adaptive weight by one backward pass through VGG and one through the
discriminator, and then runs both again with the generator's. Here :class:`fastgan.monitor.LossBudget` runs
each once, when the loss is called; `loss.backward()` continues from the reconstructions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from fastgan.compat._patchgan import PatchGAN
from fastgan.compat._shared import check_logits
from fastgan.losses import LPIPS, d_hinge_loss, d_nonsaturating_loss, g_adversarial_loss
from fastgan.losses._frozen import frozen
from fastgan.monitor import AdaptiveWeight, LossBudget, Shares
from fastgan.ops._checks import (
    as_finite,
    as_number,
    check_floating,
    check_instance,
    check_one_of,
    check_same_device,
    check_same_shape,
    check_scaler,
    described,
)

Log = dict[str, Tensor]
Terms = dict[str, Tensor]
Weights = dict[str, float]


def adopt_weight(weight: float, global_step: float, threshold: float = 0, value: float = 0.0) -> float:
    """The weight from step `threshold` on, and `value` before."""
    global_step, threshold = as_number("global_step", global_step), as_number("threshold", threshold)
    return as_number("value", value) if global_step < threshold else as_number("weight", weight)


def hinge_d_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """(mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2, 0-d, in float32 or better.

    Args:
        logits_real, logits_fake: of any shapes.
    """
    check_logits(logits_real=logits_real, logits_fake=logits_fake)
    return 0.5 * d_hinge_loss(logits_real, logits_fake)


def vanilla_d_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """(mean softplus(-real) + mean softplus(fake)) / 2, 0-d, in float32 or better.

    Args:
        logits_real, logits_fake: of any shapes.
    """
    check_logits(logits_real=logits_real, logits_fake=logits_fake)
    return 0.5 * d_nonsaturating_loss(logits_real, logits_fake)


D_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge": hinge_d_loss,
    "vanilla": vanilla_d_loss,
}


class TokenizerLoss(nn.Module):
    """Holds networks and schedule under the published names of attributes."""

    def __init__(
        self,
        perceptual_loss: nn.Module,
        discriminator: nn.Module,
        disc_start: float,
        disc_loss: str,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        super().__init__()
        self.perceptual_loss = perceptual_loss
        self.discriminator = discriminator
        self.discriminator_iter_start = as_number("disc_start", disc_start)
        check_one_of("disc_loss", disc_loss, D_LOSSES)
        self.disc_loss = D_LOSSES[disc_loss]
        check_scaler("scaler", scaler)
        self.scaler = scaler
        self.shares: Shares | None = None

    def _check_images(self, inputs: Tensor, reconstructions: Tensor, dims: int = 4) -> None:
        check_floating("inputs", inputs)
        check_floating("reconstructions", reconstructions)
        check_same_shape(inputs=inputs, reconstructions=reconstructions)
        check_same_device(inputs=inputs, reconstructions=reconstructions)
        if reconstructions.dim() != dims or reconstructions.numel() == 0:
            raise ValueError(
                f"reconstructions must have {dims} dimensions and not be empty, got shape "
                f"{tuple(reconstructions.shape)}"
            )

    def _perceptual(self, inputs: Tensor, reconstructions: Tensor) -> Tensor:
        if isinstance(self.perceptual_loss, LPIPS):
            self.perceptual_loss._checked("reconstructions", reconstructions)
        distance: Tensor = self.perceptual_loss(inputs.contiguous(), reconstructions.contiguous())
        return distance

    def _logits(self, name: str, images: Tensor, cond: Tensor | None) -> Tensor:
        """The discriminator's, of images whose name is for errors."""
        if cond is not None:
            images = torch.cat((images, cond), dim=1)
        if isinstance(self.discriminator, PatchGAN):
            self.discriminator._check(name if cond is None else f"{name} with cond", images)
        logits: Tensor = self.discriminator(images.contiguous())
        return logits

    def _g_loss(self, reconstructions: Tensor, cond: Tensor | None = None) -> Tensor:
        """-mean D, from which D's weights get no gradient."""
        with frozen(self.discriminator):
            return g_adversarial_loss(self._logits("reconstructions", reconstructions, cond))

    def _discriminator_logits(
        self, inputs: Tensor, reconstructions: Tensor, cond: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(logits_real, logits_fake), from two passes, each with batch statistics of its own."""
        real = self._logits("inputs", inputs.detach(), cond)
        return real, self._logits("reconstructions", reconstructions.detach(), cond)


class AdaptiveTokenizerLoss(TokenizerLoss):
    """Brings the adversarial term's gradient at the last layer to the size of the others'."""

    def __init__(
        self,
        perceptual_loss: nn.Module,
        discriminator: nn.Module,
        *,
        perceptual_weight: float,
        disc_start: float,
        disc_factor: float,
        disc_weight: float,
        disc_loss: str,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        super().__init__(perceptual_loss, discriminator, disc_start, disc_loss, scaler)
        self.perceptual_weight = as_finite("perceptual_weight", perceptual_weight)
        self.disc_factor = as_finite("disc_factor", disc_factor)
        self.discriminator_weight = as_finite("disc_weight", disc_weight)

    def _disc_factor(self, global_step: float) -> float:
        return adopt_weight(self.disc_factor, global_step, self.discriminator_iter_start)

    def _cut(self, reconstructions: Tensor, last_layer: object) -> tuple[Tensor, LossBudget | None]:
        """What stands for the reconstructions in every term, and the terms' budget; None without a graph."""
        self.shares = None
        if not torch.is_grad_enabled() or not reconstructions.requires_grad:
            if self.training:
                raise ValueError(
                    "reconstructions must have a graph in training mode, got "
                    f"{described(reconstructions)} without: call eval() of the loss for validation"
                )
            return reconstructions, None
        if reconstructions.grad_fn is None:
            raise ValueError(
                "reconstructions must be computed from trained weights, got a leaf, "
                f"{described(reconstructions)}"
            )
        budget = budget_at(reconstructions, last_layer)
        return budget.cut(reconstructions), budget

    def _weighed(
        self,
        budget: LossBudget | None,
        last_layer: object,
        terms: Terms,
        weights: Weights,
        g_loss: Tensor | None,
        factor: float,
        beside: Tensor,
        relative_to: tuple[str, ...] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(loss, d_weight): the sum of all, and the adversarial term's weight without its factor.

        Args:
            g_loss: None for a step without the adversarial term.
            factor: of the adversarial term, with which it is not logged.
            beside: what does not depend on the reconstructions.
            relative_to: the terms whose gradient the adversarial one's is brought to; None for all.
        """
        none = beside.detach().new_zeros(())
        if budget is None:
            return weighted_sum(terms, weights) + beside, none
        all_weights: dict[str, float | Tensor | AdaptiveWeight] = {**weights}
        if g_loss is not None:
            terms = {**terms, "gan": g_loss}
            scale = self.discriminator_weight * factor
            all_weights["gan"] = AdaptiveWeight(tuple(relative_to or weights), scale)
        with refused("last_layer", last_layer, "reconstructions"):
            loss, self.shares = budget.loss(terms, all_weights, beside=beside, scaler=self.scaler)
        if g_loss is None:
            return loss, none
        return loss, self.discriminator_weight * self.shares.ratio["gan"]


def budget_at(images: Tensor, layer: object, name: str = "last_layer") -> LossBudget:
    """A budget that compares gradients of the layer, which has this name in errors."""
    check_instance(name, layer, nn.Parameter, "the weight of the decoder's last layer, a parameter")
    assert isinstance(layer, nn.Parameter)
    if not layer.requires_grad:
        raise ValueError(f"{name} must be trained, got {described(layer)} that does not require grad")
    with images.device:  # where its buffers are made, without copies
        return LossBudget(layer)


@contextlib.contextmanager
def refused(name: str, layer: object, images: str) -> Iterator[None]:
    """Turns the budget's refusal of a layer, the one thing left to refuse, into one by our names."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{name} must be a weight behind {images}, got {described(layer)}: {error}"
        ) from error


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Of the terms that weights name."""
    first, *others = weights
    total = weights[first] * terms[first]
    for name in others:
        total = total + weights[name] * terms[name]
    return total


def check_cond(cond: object, disc_conditional: bool, reconstructions: Tensor) -> None:
    """Checks for a condition N C H W where the discriminator takes one, and for None where not."""
    if cond is None:
        if disc_conditional:
            raise ValueError("cond must be given with disc_conditional=True, got None")
        return
    check_floating("cond", cond)
    if not disc_conditional:
        raise ValueError(f"cond is for disc_conditional=True, got {described(cond)} with False")
    assert isinstance(cond, Tensor)
    check_same_device(cond=cond, reconstructions=reconstructions)
    size = (reconstructions.shape[0], *reconstructions.shape[2:])
    if cond.dim() != 4 or (cond.shape[0], *cond.shape[2:]) != size:
        raise ValueError(
            f"cond must have the batch and the size of reconstructions {tuple(reconstructions.shape)}, got "
            f"{tuple(cond.shape)}"
        )
