"""The gradient of a discriminator with respect to its input, which can be differentiated again."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.reference.autocast import without_autocast

_HALF = (torch.float16, torch.bfloat16)


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


def input_gradient(logits: Tensor, x: Tensor, scaler: torch.amp.GradScaler | None) -> Tensor:
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
        _check_half(logits.dtype)
    total = logits.to(torch.promote_types(logits.dtype, torch.float32)).sum()
    factor = None
    if scaler is not None and scaler.is_enabled():
        factor = scaler.scale(torch.ones((), device=total.device))
        total = total * factor
    (gradient,) = torch.autograd.grad(total, x, create_graph=True, allow_unused=True)
    if gradient is None:
        raise ValueError("the logits do not depend on x: was another tensor given to the discriminator?")
    return gradient if factor is None else gradient.to(factor.dtype) / factor


def input_gradient_at(
    discriminator: Callable[..., Any], x: Tensor, args: tuple, output: Callable[[Any], Tensor] | None
) -> tuple[Tensor, Tensor]:
    """d(sum D(x)) / dx, differentiable, and a zero that depends on every parameter that the logits do."""
    check_supports_penalty(discriminator)
    with full_precision(x):
        x = in_full_precision(x)
        if torch.compiler.is_compiling():
            # A transform lets a function change its arguments in place, and nothing else: batch
            # normalization and spectral norm change their buffers.
            buffers = dict(discriminator.named_buffers()) if isinstance(discriminator, nn.Module) else {}

            def total(x: Tensor, buffers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
                returned = (
                    torch.func.functional_call(discriminator, buffers, (x, *args))  # type: ignore[arg-type]
                    if buffers
                    else discriminator(x, *args)
                )
                logits = logits_of(returned, x, output)
                return logits.sum(), logits.sum()

            gradient, logits = torch.func.grad(total, has_aux=True)(x, buffers)
        else:
            x = x.requires_grad_()
            logits = logits_of(discriminator(x, *args), x, output)
            gradient = input_gradient(logits, x, None)
        return gradient, 0 * logits.sum()


def logits_of(returned: Any, x: Tensor, output: Callable[[Any], Tensor] | None) -> Tensor:
    """The logits in float32 or better."""
    logits = returned if output is None else output(returned)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the discriminator must return its logits as one tensor, got {type(logits).__name__}: "
            "say by output= which part of it they are, as in output=lambda returned: returned[0]"
        )
    _check_batch(logits, x)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def full_precision(x: Tensor) -> contextlib.AbstractContextManager:
    return without_autocast(x.device)


def in_full_precision(x: Tensor) -> Tensor:
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _check_batch(logits: Tensor, x: Tensor) -> None:
    if logits.dim() > 0 and logits.shape[0] != x.shape[0]:
        raise ValueError(
            f"the logits must be those of x, sample by sample, got {logits.shape[0]} in logits of shape "
            f"{tuple(logits.shape)} and {x.shape[0]} in x"
        )


def _check_half(dtype: torch.dtype) -> None:
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
