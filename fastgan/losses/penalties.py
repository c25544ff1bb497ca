"""Gradient penalties on the discriminator, with exact double backward.

Two forms of each. From logits that a trainer already has: :func:`r1_penalty`, :func:`r2_penalty`. From a
discriminator, which is then run here, in float32 outside of autocast: :func:`r1_penalty_of`,
:func:`gradient_penalty`, :func:`approximate_r1`, and :class:`fastgan.losses.R1` every few steps. The second
form works inside `torch.compile(fullgraph=True)`: `torch.compile` cannot differentiate a compiled
discriminator twice, but it can compile a function that differentiates once inside (`torch.func.grad`) and is
differentiated once outside, which gives the same numbers.

Mixed precision. In bfloat16 the gradients of a penalty are some percent off, in float16 they underflow, or
overflow to NaN: the second form leaves autocast. With the first form under a GradScaler, give the scaler.

The sum of the logits is what is differentiated, so they may have any shape with as many for each sample:
N ..., flattened over patches, squeezed. What is refused is a number of logits that the batch does not divide:
they cannot be those of these samples.

Several processes. Under DistributedDataParallel, add penalty and loss and call backward once: exact. With
``static_graph=True`` the penalty's gradients are wrong without an error, and FSDP fails or leaves gradients
out; both are refused. A penalty alone has no gradient for the last bias, for which DDP waits; the second
form therefore adds zero times the logits.

What else needs care: fused attention has no double backward, so a discriminator with attention must use
`torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`. A compiled and a plain view of one discriminator may share
their parameters: compile the loss, keep the plain one for the penalty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastgan._torch_internals import BatchNorm
from fastgan.losses._draws import draw
from fastgan.losses._input_gradient import (
    check_output,
    check_samples,
    check_supports_penalty,
    input_gradient,
    input_gradient_at,
    logits_of,
)
from fastgan.ops._checks import (
    as_factor,
    as_finite,
    as_flag,
    as_not_negative,
    check_alike,
    check_generator,
    check_one_of,
)
from fastgan.ops.squared_norm import squared_norm
from fastgan.reference.precision import wide, without_autocast

# Under the square root of the gradient's norm, so that a zero gradient gives no NaN.
EPSILON = 1e-12

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")
Mode = Literal["interpolate", "real", "fake", "dragan"]
MODES = ("interpolate", "real", "fake", "dragan")
Norm = Literal["sample", "channel"]
NORMS = ("sample", "channel")


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
        logits: the discriminator's output for `x`: as many for each sample in any shape, or their sum, 0-d.
        x: N ..., real samples; requires grad since before the discriminator saw it.
        scale: factor of the result; 0.5 gives the penalty of the paper, without gamma.
        reduction: "mean" or "sum" over the batch, or "none" for one value per sample.
        scaler: the GradScaler in use. The inner gradient is then taken of logits scaled by about its square
            root and divided by that again, without waiting for the device; scale the outer loss as always.

    Returns:
        0-d, or (N,) for "none"; float32 (float64 for float64), differentiable with respect to the
        discriminator's parameters.

    Raises:
        TypeError: the logits are no tensor, or x or the scaler is none.
        ValueError: x does not require grad, the logits do not depend on it or belong to another batch, or an
            unknown reduction.

    Warns:
        RuntimeWarning: half-precision logits without a scaler; once. In bfloat16 the gradients of the penalty
            are some percent off, in float16 small ones are lost and large ones overflow.

    Source: Mescheder, Geiger and Nowozin, "Which training methods for GANs do actually converge?", 2018.
    """
    return penalty_of_logits(logits, x, scale, reduction, scaler)


def penalty_of_logits(
    logits: Tensor,
    x: Tensor,
    scale: float = 1.0,
    reduction: Reduction = "mean",
    scaler: torch.amp.GradScaler | None = None,
    names: tuple[str, str] = ("logits", "x"),
) -> Tensor:
    """:func:`r1_penalty` for callers whose arguments have other names."""
    check_one_of("reduction", reduction, REDUCTIONS)
    scale = as_factor("scale", scale)  # type: ignore[assignment]
    gradient = input_gradient(logits, x, scaler, names)
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
    check_one_of("reduction", reduction, REDUCTIONS)
    scale = as_factor("scale", scale)  # type: ignore[assignment]
    gradient, unused = input_gradient_at(discriminator, x, args, output)
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
        generator: draws the points (not inside `torch.compile`), on the samples' device, one weight of the
            fake per sample. Published code draws otherwise: see `fastgan.compat` for theirs.
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
    check_one_of("mode", mode, MODES)
    check_one_of("norm", norm, NORMS)
    center, one_sided = as_not_negative("center", center), as_flag("one_sided", one_sided)
    check_generator("generator", generator)
    check_samples("real", real)
    if mode in ("interpolate", "fake"):
        if fake is None:
            raise ValueError(f"mode {mode!r} needs fake samples, got None")
        check_samples("fake", fake)
        check_alike("real", real, "fake", fake)
    if norm == "channel" and real.dim() < 2:
        raise ValueError(f"real must have channels, N C ..., for norm='channel', got {tuple(real.shape)}")
    if not as_flag("allow_batch_norm", allow_batch_norm):
        _check_no_batch_norm(discriminator)
    with torch.no_grad():
        x = _samples(real, fake, mode, generator)
    gradient, unused = input_gradient_at(discriminator, x, args, output)
    squared = squared_norm(gradient) if norm == "sample" else wide(gradient).square().sum(dim=1)
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

    A regularizer of its own, not R1: it sees differences at a distance of sigma, and nothing finer. For a
    smooth D, its mean approaches sigma^2 times R1's as sigma goes to 0. D runs in float32.

    Args:
        discriminator: samples (and `args`) to logits; several logits of a sample add their squares.
        x: N ..., detached here.
        sigma: standard deviation of the noise, positive; published models use 0.01 to 0.1.
        generator: draws the noise.
        output: picks the logits from what the discriminator returns, if that is not one tensor.

    Returns:
        0-d.

    Raises:
        TypeError, ValueError: sigma is not positive, a sum of logits, or as :func:`r1_penalty_of`.

    Source: Lin et al., "Diffusion adversarial post-training for one-step video generation", 2025.
    """
    sigma = as_finite("sigma", sigma)
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    check_supports_penalty(discriminator)
    check_samples("x", x)
    check_generator("generator", generator)
    check_output(output)
    with without_autocast(x):
        x = wide(x.detach())
        noise = draw(torch.randn, x.shape, generator, dtype=x.dtype, device=x.device)
        there = logits_of(discriminator(x, *args), x, output)
        nearby = logits_of(discriminator(x + sigma * noise, *args), x, output)
        if there.dim() == 0:
            raise ValueError("approximate_r1 needs one logit or more per sample, got their sum, 0-d")
        return squared_norm((there - nearby).reshape(x.shape[0], -1)).mean()


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
        noise = draw(torch.rand, real.shape, generator, dtype=real.dtype, device=real.device)
        fake = real + 0.5 * real.std() * noise
    assert fake is not None
    part = draw(torch.rand, (real.shape[0], *(1,) * (real.dim() - 1)), generator, device=real.device)
    dtype = torch.promote_types(real.dtype, fake.dtype)  # that of fakes may be autocast's
    return torch.lerp(real.to(dtype), fake.to(dtype), part.to(dtype))


def _check_no_batch_norm(discriminator: object) -> None:
    if not isinstance(discriminator, nn.Module):
        return
    for name, module in discriminator.named_modules():
        if isinstance(module, BatchNorm) and module.training:
            raise ValueError(
                f"layer {name!r} is batch normalization, which mixes the samples of a batch: the penalty "
                "would not be on each sample's own gradient. Use instance or layer normalization, or "
                "allow_batch_norm=True"
            )
