"""Gradient penalties on the discriminator, with exact double backward.

Two forms of each. From logits that a trainer already has: :func:`r1_penalty`, :func:`r2_penalty`. From a
discriminator, which is then run here, in float32 outside of autocast: :func:`r1_penalty_of`,
:func:`gradient_penalty`, :func:`approximate_r1`, and :class:`R1`, which does so every few steps. The second
form works inside `torch.compile(fullgraph=True)`: `torch.compile` cannot differentiate a compiled
discriminator twice, but it can compile a function that differentiates once inside (`torch.func.grad`) and is
differentiated once outside, which gives the same numbers.

Mixed precision. In bfloat16 the gradients of a penalty are some percent off, in float16 they overflow to
NaN: the second form leaves autocast. With the first form under a GradScaler, give the scaler.

Several processes. Under DistributedDataParallel, add penalty and loss and call backward once: exact. With
``static_graph=True`` the penalty's gradients are wrong without an error, and FSDP fails or leaves gradients
out; both are refused. A penalty alone has no gradient for the last bias, for which DDP waits; the second
form therefore adds zero times the logits.

What else needs care: fused attention has no double backward, so a discriminator with attention must use
`torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`. A compiled and a plain view of one discriminator may share
their parameters: compile the loss, keep the plain one for the penalty.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from fastgan.ops.squared_norm import squared_norm

# Under the square root of the gradient's norm, so that a zero gradient gives no NaN.
EPSILON = 1e-12

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")
Mode = Literal["interpolate", "real", "fake", "dragan"]
MODES = ("interpolate", "real", "fake", "dragan")
Norm = Literal["sample", "channel"]
NORMS = ("sample", "channel")
_HALF = (torch.float16, torch.bfloat16)


def r1_penalty(
    logits: Tensor,
    x: Tensor,
    *,
    scale: float = 1.0,
    reduction: Reduction = "mean",
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """The squared L2 norm of d(sum logits) / dx, averaged over the batch; no factor 1/2.

    Args:
        logits: the discriminator's output for `x`: N ..., or their sum, 0-d.
        x: N ..., real samples; requires grad since before the discriminator saw it.
        scale: factor of the result; 0.5 gives the penalty of the paper, without gamma.
        reduction: "mean" or "sum" over the batch, or "none" for one value per sample.
        scaler: the GradScaler in use. The inner gradient is then taken of the scaled logits and divided by
            the scale again, without waiting for the device; scale the outer loss as always.

    Returns:
        0-d, or (N,) for "none"; float32 (float64 for float64), differentiable with respect to the
        discriminator's parameters.

    Raises:
        TypeError: the logits are no tensor.
        ValueError: x does not require grad, the logits do not depend on it or belong to another batch, an
            unknown reduction, or float16 logits without a scaler.

    Warns:
        RuntimeWarning: bfloat16 logits, whose penalty is some percent off in its gradients; once.

    Source: Mescheder, Geiger and Nowozin, "Which training methods for GANs do actually converge?", 2018.
    """
    _one_of("reduction", reduction, REDUCTIONS)
    gradient = _gradient(logits, x, scaler)
    return scale * _reduced(squared_norm(gradient), reduction)


def r2_penalty(
    logits: Tensor,
    x: Tensor,
    *,
    scale: float = 1.0,
    reduction: Reduction = "mean",
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """:func:`r1_penalty` at generated samples: `x` detached from the generator, then requiring grad."""
    return r1_penalty(logits, x, scale=scale, reduction=reduction, scaler=scaler)


def r1_penalty_of(
    discriminator: Callable[..., Any],
    x: Tensor,
    *args: Any,
    scale: float = 1.0,
    reduction: Reduction = "mean",
    output: Callable[[Any], Tensor] | None = None,
) -> Tensor:
    """:func:`r1_penalty` of a discriminator, which is run here: in float32, outside of autocast.

    Call it plainly, or inside a function given to `torch.compile`, also with ``fullgraph=True``.

    Args:
        discriminator: samples (and `args`, such as labels) to logits, one or more per sample.
        x: N ...; detached here.
        scale, reduction: as :func:`r1_penalty`.
        output: picks the logits from what the discriminator returns, if that is not one tensor.

    Returns:
        0-d, or (N,) for "none".

    Raises:
        TypeError: the discriminator (after `output`) returns no tensor.
        ValueError: an unknown reduction; logits of another batch or, where nothing is compiled, that do not
            depend on x; a wrapper under which second-order gradients are silently wrong or missing (see
            :func:`check_supports_penalty`).
    """
    _one_of("reduction", reduction, REDUCTIONS)
    gradient, unused = _gradient_at(discriminator, x, args, output)
    return scale * _reduced(squared_norm(gradient), reduction) + unused


def gradient_penalty(
    discriminator: Callable[..., Any],
    real: Tensor,
    fake: Tensor | None,
    *args: Any,
    center: float = 1.0,
    one_sided: bool = False,
    mode: Mode = "interpolate",
    norm: Norm = "sample",
    generator: torch.Generator | None = None,
    output: Callable[[Any], Tensor] | None = None,
    allow_batch_norm: bool = False,
) -> Tensor:
    """WGAN-GP and its relatives: mean of (|grad D| - center)^2. D runs in float32, outside of autocast.

    Call it plainly, or inside a function given to `torch.compile`, also with ``fullgraph=True``.

    Args:
        discriminator: samples (and `args`, such as labels) to logits, one or more per sample.
        real, fake: N ..., equal shapes; detached here. `fake` may be None where the mode does without.
        center: the norm aimed at: 1 for WGAN-GP, 0 for zero-centered penalties.
        one_sided: norms below the center cost nothing (WGAN-LP).
        mode: where the gradient is taken. "interpolate": at random points between real and fake; "real",
            "fake": there; "dragan": between a real sample and itself plus half the batch's standard
            deviation times uniform noise.
        norm: "sample": over the whole sample, as in the paper. "channel": over dimension 1 alone, one norm
            per position, which is what much published code computes.
        generator: draws the points (not inside `torch.compile`).
        output: picks the logits from what the discriminator returns, if that is not one tensor.
        allow_batch_norm: run a discriminator with batch normalization nevertheless.

    Returns:
        0-d, float32 (float64 for float64).

    Raises:
        TypeError: the discriminator (after `output`) returns no tensor.
        ValueError: unequal shapes, a negative center, an unknown mode or norm, logits of another batch or
            that do not depend on the samples, batch normalization (it mixes the samples, whose gradients
            are then not their own), or a wrapper under which second-order gradients are silently wrong or
            missing (see :func:`check_supports_penalty`).

    Sources: Gulrajani et al., "Improved training of Wasserstein GANs", 2017; Petzka et al. 2018
    (one-sided); Kodali et al. 2017 (DRAGAN).
    """
    _one_of("mode", mode, MODES)
    _one_of("norm", norm, NORMS)
    if center < 0:
        raise ValueError(f"center must not be negative, got {center}")
    if mode in ("interpolate", "fake"):
        if fake is None:
            raise ValueError(f"mode {mode!r} needs fake samples, got None")
        if real.shape != fake.shape:
            raise ValueError(
                f"real and fake must have the same shape, got {tuple(real.shape)} and {tuple(fake.shape)}"
            )
    if not allow_batch_norm:
        _check_no_batch_norm(discriminator)
    with torch.no_grad():
        x = _samples(real, fake, mode, generator)
    gradient, unused = _gradient_at(discriminator, x, args, output)
    if norm == "sample":
        squared = squared_norm(gradient)
    else:
        squared = gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum(dim=1)
    excess = (squared + EPSILON).sqrt() - center
    if one_sided:
        excess = excess.clamp(min=0)
    return excess.square().mean() + unused


def approximate_r1(
    discriminator: Callable[..., Any],
    x: Tensor,
    sigma: float,
    *args: Any,
    generator: torch.Generator | None = None,
    output: Callable[[Any], Tensor] | None = None,
) -> Tensor:
    """|D(x) - D(x + sigma n)|^2 with normal n, averaged over the batch: smooths D without double backward.

    A regularizer of its own, not R1: it sees differences at a distance of sigma. For a smooth D and a small
    sigma its mean is sigma^2 times R1's; for the distances in use it is blind to what cancels over them, and
    the gradient of piecewise linear networks enters only by their slopes. D runs in float32.

    Args:
        discriminator: samples (and `args`) to logits; several logits of a sample add their squares.
        x: N ..., detached here.
        sigma: standard deviation of the noise, positive; published models use 0.01 to 0.1.
        generator: draws the noise.
        output: picks the logits from what the discriminator returns, if that is not one tensor.

    Returns:
        0-d.

    Raises:
        TypeError, ValueError: sigma is not positive, or as :func:`r1_penalty_of`.

    Source: Lin et al., "Diffusion adversarial post-training for one-step video generation", 2025.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    check_supports_penalty(discriminator)
    with _full_precision(x):
        x = _in_full_precision(x)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        there = _logits(discriminator(x, *args), x, output)
        nearby = _logits(discriminator(x + sigma * noise, *args), x, output)
        return squared_norm((there - nearby).flatten(1) if there.dim() > 1 else there - nearby).mean()


class PenaltyTerm(NamedTuple):
    """What :class:`R1` returns for a step."""

    loss: Tensor
    """To be added to D's loss: weight * interval * penalty, or 0; 0-d."""
    penalty: Tensor
    """The penalty itself, detached, for logging, or 0; 0-d."""


class R1:
    """Lazy R1: on every `interval`-th step, `interval` times as strong.

    .. code-block:: python

        r1 = R1(discriminator, weight=5.0)
        loss_term, penalty = r1(real, step)
        (d_loss + loss_term).backward()

    Args:
        discriminator: samples (and further arguments) to logits.
        weight: of the penalty without factor 1/2: gamma / 2 of the paper.
        interval: steps between penalties (StyleGAN2: 16); 1: every step.
        compile: compile the penalty and its gradients with `torch.compile(fullgraph=True)`.
        output: picks the logits from what the discriminator returns, if that is not one tensor.

    Raises:
        ValueError: a negative weight, an interval below 1, or a wrapper under which penalties are wrong.

    Source: Karras et al., "Analyzing and improving the image quality of StyleGAN", 2020.
    """

    def __init__(
        self,
        discriminator: Callable[..., Any],
        weight: float,
        interval: int = 16,
        *,
        compile: bool = False,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        if interval < 1:
            raise ValueError(f"interval must be at least 1, got {interval}")
        check_supports_penalty(discriminator)
        self.weight, self.interval = weight, interval
        if compile and isinstance(discriminator, nn.parallel.DistributedDataParallel):
            # DDP averages gradients however they came about; its forward cannot be compiled here.
            discriminator = discriminator.module

        def penalty(x: Tensor, *args: Any) -> Tensor:
            return r1_penalty_of(discriminator, x, *args, output=output)

        self._penalty = torch.compile(penalty, fullgraph=True) if compile else penalty

    def __call__(self, x: Tensor, step: int, *args: Any) -> PenaltyTerm:
        """The term of this step.

        Args:
            x: real samples, N ...
            step: counted from 0; a Python number.
            args: what else the discriminator takes.
        """
        if step % self.interval:
            zero = torch.zeros((), device=x.device)
            return PenaltyTerm(zero, zero)
        penalty = self._penalty(x.detach(), *args)
        return PenaltyTerm(self.weight * self.interval * penalty, penalty.detach())


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


# --- parts ------------------------------------------------------------------------------------------------


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _reduced(values: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


def _samples(real: Tensor, fake: Tensor | None, mode: str, generator: torch.Generator | None) -> Tensor:
    """Where the gradient penalty looks at the discriminator."""
    if mode == "real":
        return real
    if mode == "fake":
        assert fake is not None
        return fake
    if mode == "dragan":
        noise = torch.rand(real.shape, generator=generator, device=real.device, dtype=real.dtype)
        fake = real + 0.5 * real.std() * noise
    assert fake is not None
    part = torch.rand(real.shape[0], *(1,) * (real.dim() - 1), generator=generator, device=real.device)
    return torch.lerp(real, fake, part.to(real.dtype))


def _gradient(logits: Tensor, x: Tensor, scaler: torch.amp.GradScaler | None) -> Tensor:
    """d(sum logits) / dx, differentiable."""
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the penalty needs the logits as one tensor, got {type(logits).__name__}: "
            "pass the part of the discriminator's output that scores the images"
        )
    if not x.requires_grad:
        raise ValueError("x must require grad before the discriminator sees it: x.requires_grad_()")
    if not logits.requires_grad:
        raise ValueError("the logits do not depend on x: were they computed under no_grad?")
    _check_batch(logits, x)
    if scaler is None and logits.dtype in _HALF:
        _warn_of_half(logits.dtype)
    total = logits.to(torch.promote_types(logits.dtype, torch.float32)).sum()
    factor = None
    if scaler is not None and scaler.is_enabled():
        factor = scaler.scale(torch.ones((), device=total.device))
        total = total * factor
    (gradient,) = torch.autograd.grad(total, x, create_graph=True, allow_unused=True)
    if gradient is None:
        raise ValueError("the logits do not depend on x: was another tensor given to the discriminator?")
    return gradient if factor is None else gradient.to(factor.dtype) / factor


def _gradient_at(
    discriminator: Callable[..., Any], x: Tensor, args: tuple, output: Callable[[Any], Tensor] | None
) -> tuple[Tensor, Tensor]:
    """d(sum D(x)) / dx, differentiable, and a zero that depends on every parameter that the logits do."""
    check_supports_penalty(discriminator)
    with _full_precision(x):
        x = _in_full_precision(x)
        if torch.compiler.is_compiling():

            def total(x: Tensor) -> tuple[Tensor, Tensor]:
                logits = _logits(discriminator(x, *args), x, output)
                return logits.sum(), logits.sum()

            gradient, logits = torch.func.grad(total, has_aux=True)(x)
        else:
            x = x.requires_grad_()
            logits = _logits(discriminator(x, *args), x, output)
            gradient = _gradient(logits, x, None)
        return gradient, 0 * logits.sum()


def _logits(returned: Any, x: Tensor, output: Callable[[Any], Tensor] | None) -> Tensor:
    """The logits in float32 or better."""
    logits = returned if output is None else output(returned)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the discriminator must return its logits as one tensor, got {type(logits).__name__}: "
            "say by output= which part of it they are, as in output=lambda returned: returned[0]"
        )
    _check_batch(logits, x)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check_batch(logits: Tensor, x: Tensor) -> None:
    if logits.dim() > 0 and logits.shape[0] != x.shape[0]:
        raise ValueError(
            f"the logits must be those of x, sample by sample, got {logits.shape[0]} in logits of shape "
            f"{tuple(logits.shape)} and {x.shape[0]} in x"
        )


def _check_no_batch_norm(discriminator: object) -> None:
    if not isinstance(discriminator, nn.Module):
        return
    for name, module in discriminator.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"layer {name!r} is batch normalization, which mixes the samples of a batch: the penalty "
                "would not be on each sample's own gradient. Use instance or layer normalization, or "
                "allow_batch_norm=True"
            )


def _full_precision(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _in_full_precision(x: Tensor) -> Tensor:
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _warn_of_half(dtype: torch.dtype) -> None:
    if dtype == torch.float16:
        raise ValueError(
            "a penalty of float16 logits overflows to NaN: run the discriminator outside of autocast, as "
            "r1_penalty_of and R1 do, or give the GradScaler (scaler=)"
        )
    if not torch.compiler.is_compiling():
        warnings.warn(
            "a penalty of bfloat16 logits is some percent off in its gradients: run the discriminator "
            "outside of autocast, as r1_penalty_of and R1 do",
            RuntimeWarning,
            stacklevel=4,
        )
