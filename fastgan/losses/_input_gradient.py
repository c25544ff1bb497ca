"""The differentiable gradient of a discriminator or generator with respect to its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastgan._torch_internals import (
    half_of_sharded,
    inside_transform,
    is_wrapped_by_fsdp,
    mark_constant_for_dynamo,
    sharded_modules,
)
from fastgan._warnings import warn
from fastgan.ops._checks import check_callable, check_floating, check_scaler, described
from fastgan.reference.precision import wide, without_autocast

# The effect on a penalty's gradients if the discriminator ran in half precision.
_IN_HALF = {
    torch.bfloat16: "some percent off in its gradients",
    torch.float16: "off in its gradients, which underflow or overflow",
}


def check_supports_penalty(discriminator: object) -> None:
    """Refuses wrappers that do not support double backward.

    Raises:
        TypeError: an object that cannot be called.
        ValueError: DistributedDataParallel with static_graph=True, which computes wrong gradients, or
            FullyShardedDataParallel, which leaves gradients out, both without an error of their own.
    """
    check_network("discriminator", discriminator)


def check_network(name: str, network: object) -> None:
    """:func:`check_supports_penalty`, whose errors call the network by `name`."""
    check_callable(name, network)
    if isinstance(network, nn.parallel.DistributedDataParallel) and network.static_graph:
        raise ValueError(
            "a gradient penalty under DistributedDataParallel(static_graph=True) gives wrong gradients "
            "silently: use static_graph=False, and add penalty and loss before one backward()"
        )
    if is_wrapped_by_fsdp(network):
        raise ValueError(
            "a gradient penalty under FullyShardedDataParallel fails or silently leaves gradients out: use "
            f"fully_shard (FSDP2), or keep the {name} unsharded"
        )


def check_samples(name: str, x: Tensor) -> None:
    """Checks for a floating-point tensor with a batch dimension, not empty."""
    check_floating(name, x)
    if x.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(x.shape)}")
    if x.dim() == 0:
        raise ValueError(f"{name} must have a batch dimension, N ..., got shape {tuple(x.shape)}")


def input_gradient(
    logits: Tensor,
    x: Tensor,
    scaler: torch.amp.GradScaler | None,
    names: tuple[str, str] = ("logits", "x"),
) -> Tensor:
    """d(sum logits) / dx, differentiable; `names` are those of logits and x in errors."""
    logits_name, x_name = names
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"{logits_name} must be one tensor, got {described(logits)}: pass the part of the "
            "discriminator's output that scores the images"
        )
    check_floating(logits_name, logits)
    check_samples(x_name, x)
    check_scaler("scaler", scaler)
    if not x.requires_grad:
        raise ValueError(
            f"{x_name} must require grad before the network sees it, got {described(x)} that does not: "
            f"{x_name}.requires_grad_()"
        )
    if not logits.requires_grad:
        raise ValueError(
            f"the {logits_name} do not depend on {x_name}, got {described(logits)} without a graph: were "
            "they computed under no_grad?"
        )
    _check_batch(logits, x, names)
    if scaler is None and logits.dtype in _IN_HALF:
        _warn_of_half(logits.dtype)
    total = wide(logits).sum()
    factor = None
    if scaler is not None and scaler.is_enabled():
        factor = _inner_scale(scaler.scale(torch.ones((), device=total.device)))
        total = total * factor
    (gradient,) = torch.autograd.grad(total, x, create_graph=True, allow_unused=True)
    if gradient is None:
        raise ValueError(
            f"the {logits_name} do not depend on {x_name}, got {described(logits)} and {described(x)}: was "
            "another tensor given to the network?"
        )
    return gradient if factor is None else wide(gradient) / factor


def input_gradient_at(
    discriminator: Callable[..., Any], x: Tensor, args: tuple, output: Callable[[Any], Tensor] | None
) -> tuple[Tensor, Tensor]:
    """d(sum D(x)) / dx, differentiable, and a zero that depends on the same parameters as the logits."""
    check_supports_penalty(discriminator)
    check_samples("x", x)
    check_output(output)
    return gradient_of_scores(
        discriminator, x.detach(), args, lambda returned, x: logits_of(returned, x, output), ("logits", "x")
    )


def gradient_of_scores(
    network: Callable[..., Any],
    x: Tensor,
    args: tuple,
    scores_of: Callable[[Any, Tensor], Tensor],
    names: tuple[str, str],
) -> tuple[Tensor, Tensor]:
    """d(sum of scores) / dx, differentiable, and a zero that depends on the same parameters as the scores.

    The network runs in float32, outside of autocast. `scores_of` makes the scores from what it returns and
    from x; `names` are those of both in errors.
    """
    with without_autocast(x):
        x = wide(x)
        if torch.compiler.is_compiling() or inside_transform():
            # Inside a transform a function may write only to its arguments, so buffers become arguments:
            # batch normalization and spectral norm update theirs.
            buffers = dict(network.named_buffers()) if isinstance(network, nn.Module) else {}

            def total(x: Tensor, buffers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
                returned = (
                    torch.func.functional_call(network, buffers, (x, *args))  # type: ignore[arg-type]
                    if buffers
                    else network(x, *args)
                )
                scores = scores_of(returned, x)
                return scores.sum(), scores.sum()

            gradient, scores = torch.func.grad(total, has_aux=True)(x, buffers)
        else:
            x = x if x.requires_grad else x.detach().requires_grad_()
            scores = scores_of(network(x, *args), x)
            if half := half_of_sharded(network):
                _warn_of_half(half, by_fsdp=True)
            gradient = input_gradient(scores, x, None, names)
            if modules := sharded_modules(network):
                gradient = _Gathering.apply(gradient, modules)
        return gradient, 0 * scores.sum()


class _Gathering(torch.autograd.Function):
    """Passes a gradient on unchanged; its backward pass first gathers the parameters of sharded modules.

    FSDP frees them when the gradient has been computed, and gathers them again when backward comes to a
    module's output. A penalty's backward needs them before that, to differentiate the gradient.
    """

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, modules: list[Any]) -> Tensor:
        ctx.modules = modules
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        for module in ctx.modules:
            module.unshard()
        return gradient, None


def check_output(output: object) -> None:
    """Checks for a callable or None."""
    if output is not None:
        check_callable("output", output)


def logits_of(returned: Any, x: Tensor, output: Callable[[Any], Tensor] | None) -> Tensor:
    """The logits in float32 or better."""
    logits = returned if output is None else output(returned)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the discriminator must return its logits as one tensor, got {type(logits).__name__}: "
            "say by output= which part of it they are, as in output=lambda returned: returned[0]"
        )
    check_floating("the discriminator's logits", logits)
    _check_batch(logits, x)
    return wide(logits)


def _check_batch(logits: Tensor, x: Tensor, names: tuple[str, str] = ("logits", "x")) -> None:
    """Checks that each sample has equally many logits, in any shape, since only their sum matters."""
    if logits.dim() > 0 and logits.shape[0] != x.shape[0] and logits.numel() % max(x.shape[0], 1):
        raise ValueError(
            f"the {names[0]} must be those of {names[1]}, as many for each sample, got {logits.numel()} in "
            f"{names[0]} of shape {tuple(logits.shape)} and {x.shape[0]} samples in {names[1]} of shape "
            f"{tuple(x.shape)}"
        )


def _inner_scale(scale: Tensor) -> Tensor:
    """A power of two near the square root of the loss scale.

    Gradients flowing back from the penalty carry the loss scale, divided by the factor of the inner gradient.
    A factor of half the scale's digits keeps both in float16's range, which the default scale of 65536 itself
    exceeds.
    """
    return (scale.log2() / 2).floor().exp2()


# The dtypes that were warned of.
_warned: set[torch.dtype] = set()


@mark_constant_for_dynamo
def _warn_of_half(dtype: torch.dtype, by_fsdp: bool = False) -> None:
    """Warns once per dtype and process, since this is called at every step."""
    if dtype in _warned:
        return
    _warned.add(dtype)
    # Without a scaler, scaling the inner gradient does not help: the gradients flowing back from the penalty
    # are divided by the same factor, and are smaller to begin with. On ten discriminators no power of two
    # from 2^-8 to 2^14 came closer to float64 than 1.
    name = str(dtype).removeprefix("torch.")
    advice = "run the discriminator outside of autocast, as r1_penalty_of and R1 do"
    if by_fsdp:
        advice = "give fully_shard a MixedPrecisionPolicy without this param_dtype"
    elif dtype == torch.float16:
        advice += ", or give the GradScaler (scaler=)"
    warn(f"a penalty of {name} logits is {_IN_HALF[dtype]}: {advice}")
