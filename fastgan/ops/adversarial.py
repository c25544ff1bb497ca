r"""Adversarial losses: the loss, its gradient and the statistics that people watch, in one launch.

With s the critic's sign, r = s D(x) and f = s D(G(z)), all means over logits:

============== ============================================= =============================
game           D minimizes                                   G minimizes
============== ============================================= =============================
cross_entropy  mean h(r, real_label) + mean h(f, fake_label) mean h(f, real_label)
least_squares  mean (r - real_label)^2 / 2                   mean (f - real_label)^2 / 2
               + mean (f - fake_label)^2 / 2
hinge          mean max(0, 1 - r) + mean max(0, 1 + f)       -mean f
wasserstein    mean f - mean r                               -mean f
relativistic   mean softplus(f - r)                          mean softplus(r - f)
============== ============================================= =============================

with h(l, t) = (1 - t) softplus(l) + t softplus(-l). The derivatives with respect to the logits are outputs
of the sweep; backward multiplies them by the incoming gradient. A backward pass that is itself to be
differentiated computes them again with plain PyTorch, so every order is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops import _dispatch, _library
from fastgan.ops._autograd import differentiable
from fastgan.ops._checks import check_floating, check_one_of, check_same_device
from fastgan.reference import adversarial as reference
from fastgan.reference.adversarial import GAMES

_dispatch.register(_dispatch.Kernels("adversarial", cpu="native", gpu="triton"))


def discriminator_loss(
    real: Tensor,
    fake: Tensor,
    game: str,
    *,
    sign: int = 1,
    real_label: float = 1.0,
    fake_label: float = 0.0,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """D's loss and statistics; see :class:`fastgan.losses.AdversarialLoss`.

    Returns:
        The loss, 0-d, and the statistics (8,), without gradient: for real and then for fake logits the mean
        logit, the mean probability of being real, accuracy, and margin violations; both float32 (float64
        for float64).
    """
    _check(real, fake, game)
    if _dispatch.choose("adversarial", (real, fake), backend) == "reference":
        wide = _wide(real, fake)
        loss = reference.discriminator_loss(real.to(wide), fake.to(wide), game, sign, real_label, fake_label)
        with torch.no_grad():
            threshold = (real_label + fake_label) / 2 if game == "least_squares" else 0.0
            return loss, reference.statistics(real.to(wide), fake.to(wide), sign, threshold)
    differentiated = torch.is_grad_enabled() and (real.requires_grad or fake.requires_grad)
    arguments = GAMES.index(game), False, float(sign), float(real_label), float(fake_label), differentiated
    return _adversarial(real.contiguous(), fake.contiguous(), *arguments)[:2]


def generator_loss(
    fake: Tensor,
    real: Tensor | None,
    game: str,
    *,
    sign: int = 1,
    real_label: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """G's loss, 0-d; see :class:`fastgan.losses.AdversarialLoss`. `real` is for the relativistic game."""
    if game != "relativistic":
        real = None
    elif real is None:
        raise ValueError("the relativistic generator loss needs real_logits, got None")
    _check(fake if real is None else real, fake, game)
    tensors = (fake,) if real is None else (fake, real)
    if _dispatch.choose("adversarial", tensors, backend) == "reference":
        wide = _wide(*tensors)
        return reference.generator_loss(
            None if real is None else real.to(wide), fake.to(wide), game, sign, real_label
        )
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    arguments = GAMES.index(game), True, float(sign), float(real_label), 0.0, differentiated
    return _adversarial(None if real is None else real.contiguous(), fake.contiguous(), *arguments)[0]


def _check(real: Tensor, fake: Tensor, game: str) -> None:
    check_one_of("game", game, GAMES)
    for name, logits in (("real logits", real), ("fake logits", fake)):
        check_floating(name, logits)
        if logits.numel() == 0:
            raise ValueError(f"{name} must not be empty, got shape {tuple(logits.shape)}")
    check_same_device(real=real, fake=fake)
    if game == "relativistic" and real.shape != fake.shape:
        raise ValueError(
            "the relativistic game pairs real and fake logits, which must have the same shape, got "
            f"{tuple(real.shape)} and {tuple(fake.shape)}"
        )


def _wide(*tensors: Tensor) -> torch.dtype:
    """The dtype in which logits are computed with: float64 if one is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


# --- op -------------------------------------------------------------------------------------------

_library.define(
    "adversarial(Tensor? real, Tensor fake, int game, bool generator, float sign, float real_label, "
    "float fake_label, bool with_slopes) "
    "-> (Tensor loss, Tensor statistics, Tensor real_slopes, Tensor fake_slopes)"
)


@torch.library.impl(_library.LIBRARY, "adversarial", "CUDA")
def _adversarial_triton(real, fake, game, generator, sign, real_label, fake_label, with_slopes):
    from fastgan.kernels import adversarial as kernel

    return kernel.adversarial(real, fake, game, generator, sign, real_label, fake_label, with_slopes)


# --- fake -----------------------------------------------------------------------------------------


@torch.library.register_fake("fastgan::adversarial", lib=_library.LIBRARY)
def _adversarial_fake(real, fake, game, generator, sign, real_label, fake_label, with_slopes):
    dtype = _wide(fake) if real is None else _wide(real, fake)
    slopes = [
        torch.empty_like(logits, dtype=dtype)
        if with_slopes and logits is not None
        else fake.new_empty(0, dtype=dtype)
        for logits in (real, fake)
    ]
    return fake.new_empty((), dtype=dtype), fake.new_empty(0 if generator else 8, dtype=dtype), *slopes


# --- backward -------------------------------------------------------------------------------------


def _save_for_adversarial(ctx, inputs, output):
    real, fake, game, generator, sign, real_label, fake_label, with_slopes = inputs
    _, statistics, real_slopes, fake_slopes = output
    if not with_slopes:
        raise RuntimeError("adversarial needs with_slopes where a gradient may be asked for")
    ctx.mark_non_differentiable(statistics, real_slopes, fake_slopes)
    ctx.save_for_backward(real, fake, real_slopes, fake_slopes)
    ctx.options = GAMES[game], generator, sign, real_label, fake_label


def _adversarial_gradients(ctx, grad, *_):
    real, fake, real_slopes, fake_slopes = ctx.saved_tensors
    if torch.is_grad_enabled():
        real_slopes, fake_slopes = _slopes(real, fake, *ctx.options)
    of_real = (grad * real_slopes).to(real.dtype) if ctx.needs_input_grad[0] else None
    of_fake = (grad * fake_slopes).to(fake.dtype) if ctx.needs_input_grad[1] else None
    return of_real, of_fake, None, None, None, None, None, None


def _slopes(
    real: Tensor | None, fake: Tensor, game: str, generator: bool, sign: float, real_label: float,
    fake_label: float,
) -> tuple[Tensor | None, Tensor]:  # fmt: skip
    """The derivatives of the loss in plain, differentiable PyTorch."""
    wide = _wide(fake) if real is None else _wide(real, fake)
    # Slopes of the wide logits, since half precision would round them.
    fake = fake.to(wide)
    real = None if real is None else real.to(wide)
    inputs = [logits for logits in (real, fake) if logits is not None and logits.requires_grad]
    if generator:
        loss = reference.generator_loss(real, fake, game, sign, real_label)
    else:
        assert real is not None
        loss = reference.discriminator_loss(real, fake, game, sign, real_label, fake_label)
    slopes = iter(torch.autograd.grad(loss, inputs, create_graph=True))
    of_real = next(slopes) if real is not None and real.requires_grad else None
    return of_real, next(slopes) if fake.requires_grad else torch.zeros_like(fake)


_adversarial = differentiable("adversarial", _save_for_adversarial, _adversarial_gradients)
