"""Gradient penalties on the discriminator, with exact double backward.

There are two forms. The first takes logits that a trainer already has: :func:`r1_penalty`,
:func:`r2_penalty`. The second runs a discriminator itself, in float32 outside of autocast:
:func:`r1_penalty_of`, :func:`gradient_penalty`, :func:`approximate_r1`, and :class:`fastgan.losses.R1` every
few steps. The second form works inside `torch.compile(fullgraph=True)`: `torch.compile` cannot differentiate
a compiled discriminator twice, but it can compile a function that differentiates once inside
(`torch.func.grad`) and is differentiated once outside, which gives the same numbers.

Mixed precision. In bfloat16 the gradients of a penalty are some percent off, in float16 they underflow, or
overflow to NaN, so the second form disables autocast. Pass the scaler to the first form under a GradScaler.

The sum of the logits is differentiated, so they may have any shape with equally many for each sample: N ...,
flattened over patches, squeezed. A number of logits that the batch size does not divide is refused, since
they cannot belong to these samples.

Several processes. Under DistributedDataParallel, add penalty and loss and call backward once: exact. With
``static_graph=True`` the penalty's gradients are wrong without an error, and FullyShardedDataParallel fails
or leaves gradients out; both are refused. A penalty alone has no gradient for the last bias, which DDP would
wait for; the second form therefore adds zero times the logits.

A discriminator sharded by ``fully_shard`` (FSDP2) has exact penalties in the second form, in any order with
the step's other passes, and with or without a backward pass of their own: backward gathers the parameters
once more before it comes to the penalty. The first form raises "data is not allocated yet". Torch's own
switch for this, ``set_reshard_after_backward(False)``, is not needed, and with it every later forward pass
uses the first step's parameters, without an error, unless ``reshard()`` is called on each sharded module
after each step.

Fused attention has no double backward, so a discriminator with attention must use
`torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`. A compiled and a plain version of one discriminator may
share their parameters: compile the loss, and use the plain one for the penalty.
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

# Added under the square root of the gradient's norm, so that a zero gradient gives no NaN.
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
        logits: the discriminator's output for `x`: equally many for each sample in any shape, or their sum,
            0-d.
        x: N ..., real samples; must have required grad when the discriminator was called.
        scale: factor of the result; 0.5 gives the penalty of the paper, without gamma.
        reduction: "mean" or "sum" over the batch, or "none" for one value per sample.
        scaler: the GradScaler in use. The inner gradient is then that of logits scaled by about the square
            root of the loss scale, divided by the same factor, without synchronization; scale the outer loss
            as usual.

    Returns:
        0-d, or (N,) for "none"; float32 (float64 for float64), differentiable with respect to the
        discriminator's parameters.

    Raises:
        TypeError: the logits or x are not tensors, or the scaler is not a GradScaler.
        ValueError: x does not require grad, the logits do not depend on it or belong to another batch, or an
            unknown reduction.

    Warns:
        RuntimeWarning: once, for half-precision logits without a scaler. In bfloat16 the gradients of the
            penalty are some percent off, in float16 small ones are lost and large ones overflow.

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
    """:func:`r1_penalty`, whose errors call logits and x by `names`."""
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
    """:func:`r1_penalty` at generated samples: `x` is detached from the generator, then requires grad."""
    return r1_penalty(logits, x, scale=scale, reduction=reduction, scaler=scaler)


def r1_penalty_of(
    discriminator: Callable[..., Any],
    x: Tensor,
    *args: Any,
    scale: float = 1.0,
    reduction: Reduction = "mean",
    output: Callable[[Any], Tensor] | None = None,
) -> Tensor:
    """:func:`r1_penalty` of a discriminator, which is called here, in float32 and outside of autocast.

    Works in eager mode and inside a function given to `torch.compile`, also with ``fullgraph=True``.

    Args:
        discriminator: samples (and `args`, such as labels) to logits, one or more per sample.
        x: N ...; detached here.
        scale, reduction: as in :func:`r1_penalty`.
        output: picks the logits from what the discriminator returns, if that is not one tensor.

    Returns:
        0-d, or (N,) for "none".

    Raises:
        TypeError: the discriminator (after `output`) does not return a tensor.
        ValueError: an unknown reduction; logits of another batch or, in eager mode, that do not depend on x;
            a wrapper under which second-order gradients are silently wrong or missing (see
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
    """WGAN-GP and its variants: mean of (|grad D| - center)^2. D runs in float32, outside of autocast.

    Works in eager mode and inside a function given to `torch.compile`, also with ``fullgraph=True``.

    Args:
        discriminator: samples (and `args`, such as labels) to logits, one or more per sample.
        real, fake: N ..., equal shapes; detached here. `fake` may be None if the mode does not need it.
        center: the target norm: 1 for WGAN-GP, 0 for zero-centered penalties.
        one_sided: norms below the center cost nothing (WGAN-LP).
        mode: where the gradient is taken. "interpolate": at random points between real and fake; "real",
            "fake": at those samples; "dragan": between a real sample and itself plus half the batch's
            standard deviation times uniform noise.
        norm: "sample": over the whole sample, as in the paper. "channel": over dimension 1 only, one norm per
            position, as much published code computes it.
        generator: draws the points (not inside `torch.compile`), on the samples' device, one weight of the
            fake per sample. For the order of random numbers of published code see `fastgan.compat`.
        output: picks the logits from what the discriminator returns, if that is not one tensor.
        allow_batch_norm: accept a discriminator with batch normalization.

    Returns:
        0-d, float32 (float64 for float64).

    Raises:
        TypeError: the discriminator (after `output`) does not return a tensor.
        ValueError: unequal shapes, a negative center, an unknown mode or norm, logits of another batch or
            that do not depend on the samples, batch normalization (it mixes samples, so that a sample's
            gradient depends on the others), or a wrapper under which second-order gradients are silently
            wrong or missing (see :func:`check_supports_penalty`).

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

    A regularizer in its own right, not R1: it measures differences at a distance of sigma, and nothing finer.
    For a smooth D, its mean approaches sigma^2 times R1's as sigma goes to 0. D runs in float32.

    Args:
        discriminator: samples (and `args`) to logits; squares are summed over several logits of a sample.
        x: N ..., detached here.
        sigma: standard deviation of the noise, positive; published models use 0.01 to 0.1.
        generator: draws the noise.
        output: picks the logits from what the discriminator returns, if that is not one tensor.

    Returns:
        0-d.

    Raises:
        TypeError, ValueError: sigma is not positive, D returns a sum of logits, or as :func:`r1_penalty_of`.

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
        logits = logits_of(discriminator(x, *args), x, output)
        noisy_logits = logits_of(discriminator(x + sigma * noise, *args), x, output)
        if logits.dim() == 0:
            raise ValueError("approximate_r1 needs one logit or more per sample, got their sum, 0-d")
        return squared_norm((logits - noisy_logits).reshape(x.shape[0], -1)).mean()


def _reduced(values: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


def _samples(real: Tensor, fake: Tensor | None, mode: str, generator: torch.Generator | None) -> Tensor:
    """The points at which the gradient penalty takes the discriminator's gradient."""
    if mode == "real":
        return real
    if mode == "fake":
        assert fake is not None
        return fake
    if mode == "dragan":
        noise = draw(torch.rand, real.shape, generator, dtype=real.dtype, device=real.device)
        fake = real + 0.5 * real.std() * noise
    assert fake is not None
    weight = draw(torch.rand, (real.shape[0], *(1,) * (real.dim() - 1)), generator, device=real.device)
    dtype = torch.promote_types(real.dtype, fake.dtype)  # fakes may have autocast's dtype
    return torch.lerp(real.to(dtype), fake.to(dtype), weight.to(dtype))


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
