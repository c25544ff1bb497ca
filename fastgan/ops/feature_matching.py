r"""The weighted L1 distance of two lists of feature maps, all pairs in one sweep.

.. math::
    L = \sum_i w_i \, \operatorname{mean} |f_i - r_i|, \qquad
    \frac{\partial L}{\partial f_i} = \frac{w_i}{n_i} \operatorname{sign}(f_i - r_i)

Features f of fake images are pulled to the features r of real ones, which are constants. The forward sweep
keeps the signs, a byte for each element, which a float16 gradient divided by the number of elements would not
survive; backward is one pass over them, for all maps. The second derivative is zero almost everywhere, as is
that of |x| in PyTorch.

The signs of all maps form segments of SEGMENT elements, so that a map begins with a segment of its own:
`signs` is (segments, SEGMENT), 0 beyond a map's end, and `slopes` has each segment's w_i / n_i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import check_saved, differentiable, wants_gradient
from fastgan.ops._batching import one_by_one
from fastgan.ops._checks import as_finite, check_alike, check_floating, check_same_device, dense, is_floating
from fastgan.ops._declare import declare
from fastgan.reference import feature_matching as reference

MOST = 16
"""The largest number of pairs of one call of the operator."""
SEGMENT = 8192
NAN = 2
"""In place of the sign of a difference that is NaN."""


def feature_matching(
    fake: Sequence[Tensor],
    real: Sequence[Tensor],
    weights: Sequence[float],
    *,
    backend: str | None = None,
    named: Callable[[str, int], str] = "{}[{}]".format,
) -> Tensor:
    """The sum over pairs of tensors of weight times mean |fake - real|.

    Args:
        fake, real: as many tensors, the pairs of equal shapes, each pair of its own; float32, bfloat16,
            float16 or float64. Any strides: dense tensors are read without a copy if those of a pair are
            equal. The real ones get no gradient.
        weights: a number for each pair.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.
        named: the name in errors of a tensor of "fake" or "real", given its index.

    Returns:
        0-d, float32, or float64 if a tensor is. The gradient is exact, and that of the gradient zero.

    Raises:
        TypeError: tensors that are not floating-point.
        ValueError: no pairs, empty tensors, unequal numbers or shapes, or several devices.
        RuntimeError: the requested backend cannot serve the call.
    """
    _check(fake, real, weights, named)
    if _dispatch.choose("feature_matching", (*fake, *real), backend) == "reference":
        return reference.feature_matching(fake, real, weights)
    # A call of the operator has one dtype on each side, as its gradients have.
    dtypes = [(a.dtype, b.dtype) for a, b in zip(fake, real, strict=True)]
    loss: Tensor | None = None
    for of_call in dict.fromkeys(dtypes):
        pairs = [i for i, of_pair in enumerate(dtypes) if of_pair == of_call]
        for begin in range(0, len(pairs), MOST):
            some = pairs[begin : begin + MOST]
            maps = [_laid_out_alike(fake[i], real[i].detach()) for i in some]
            fakes, reals = [list(side) for side in zip(*maps, strict=True)]
            part = _feature_matching(
                fakes, reals, [float(weights[i]) for i in some], SEGMENT, wants_gradient(*fakes)
            )[0]
            loss = part if loss is None else loss + part
    assert loss is not None
    return loss


def _check(
    fake: Sequence[Tensor], real: Sequence[Tensor], weights: Sequence[float], named: Callable[[str, int], str]
) -> None:
    if not fake or not len(fake) == len(real) == len(weights):
        raise ValueError(
            "fake, real and weights must have as many items, at least one, got "
            f"{len(fake)}, {len(real)} and {len(weights)}"
        )
    for i, (a, b, weight) in enumerate(zip(fake, real, weights, strict=True)):
        if not (is_floating(a) and is_floating(b)):
            check_floating(named("fake", i), a)
            check_floating(named("real", i), b)
        if a.shape != b.shape or a.device != b.device:
            check_alike(named("fake", i), a, named("real", i), b)
        if a.numel() == 0:
            raise ValueError(f"{named('fake', i)} must not be empty, got shape {tuple(a.shape)}")
        if a.device != fake[0].device:
            check_same_device(**{named("fake", 0): fake[0], named("fake", i): a})
        as_finite("weights", weight)


def _laid_out_alike(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    fake = dense(fake)
    if fake.stride() != real.stride():
        real = torch.empty_like(fake, dtype=real.dtype).copy_(real)
    return fake, real


# --- op and fake ----------------------------------------------------------------------------------


def _segments(maps: Sequence[Tensor], segment: int) -> list[int]:
    """How many segments each map has."""
    return [(each.numel() + segment - 1) // segment for each in maps]


# Maps of one dtype on each side; those of a pair have equal strides and are dense.
@declare(
    "feature_matching(Tensor[] fake, Tensor[] real, float[] weights, int segment, bool with_signs) -> "
    "(Tensor loss, Tensor signs, Tensor slopes)"
)
def _feature_matching_fake(fake, real, weights, segment, with_signs):
    dtype = torch.float64 if torch.float64 in (fake[0].dtype, real[0].dtype) else torch.float32
    segments = sum(_segments(fake, segment)) if with_signs else 0
    return (
        fake[0].new_empty((), dtype=dtype),
        fake[0].new_empty((segments, segment), dtype=torch.int8),
        fake[0].new_empty(segments, dtype=dtype),
    )


@declare("feature_matching_backward(Tensor signs, Tensor slopes, Tensor grad, ScalarType dtype) -> Tensor")
def _feature_matching_backward_fake(signs, slopes, grad, dtype):
    return torch.empty_like(signs, dtype=dtype)


# --- batching: a loss per call, call by call ---------------------------------------------------------------


def _calls(fake, real, weights, segment, with_signs):
    maps = [_laid_out_alike(a, b) for a, b in zip(fake, real, strict=True)]
    fakes, reals = [list(side) for side in zip(*maps, strict=True)]
    return _feature_matching(fakes, reals, weights, segment, with_signs or wants_gradient(*fakes))


def _calls_backward(signs, slopes, grad, dtype):
    return _feature_matching_backward(signs, slopes, grad, dtype)


# --- backward -------------------------------------------------------------------------------------


def _save_for_feature_matching(ctx, inputs, output):
    fake, _, _, ctx.segment, with_signs = inputs
    _, signs, slopes = output
    check_saved("feature_matching", "with_signs", with_signs)
    ctx.mark_non_differentiable(signs, slopes)
    ctx.save_for_backward(signs, slopes)
    # The number, too: torch.Size.numel would make symbolic sizes constants.
    layouts = [(each.numel(), each.shape, each.stride()) for each in fake]
    ctx.dtype, ctx.layouts = fake[0].dtype, layouts


def _feature_matching_gradients(ctx, grad, *_):
    signs, slopes = ctx.saved_tensors
    flat = _feature_matching_backward(signs, slopes, grad, ctx.dtype).reshape(-1)
    needed, begin = ctx.needs_input_grad[0], 0
    gradients: list[Tensor | None] = []
    for (count, shape, stride), is_needed in zip(ctx.layouts, needed, strict=True):
        gradients.append(_shaped(flat[begin : begin + count], shape, stride) if is_needed else None)
        begin += (count + ctx.segment - 1) // ctx.segment * ctx.segment
    return gradients, [None] * len(gradients), None, None, None


def _shaped(elements: Tensor, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    """Elements in the order of a dense tensor's memory as a view with its shape and strides."""
    order = sorted(range(len(shape)), key=lambda i: stride[i], reverse=True)
    if order == list(range(len(shape))):
        return elements.view(shape)
    places = sorted(range(len(shape)), key=lambda i: order[i])
    return elements.view([shape[i] for i in order]).permute(places)


_feature_matching = differentiable(
    "feature_matching", _save_for_feature_matching, _feature_matching_gradients, one_by_one(_calls)
)


# --- second order: the gradient is linear in the incoming one, and constant in the features ------------


def _save_for_feature_matching_backward(ctx, inputs, output):
    signs, slopes, *_ = inputs
    ctx.save_for_backward(signs, slopes)


def _feature_matching_backward_gradient(ctx, tangent):
    signs, slopes = ctx.saved_tensors
    exact = torch.where(signs == NAN, torch.nan, signs.to(slopes.dtype))
    return None, None, ((tangent.to(slopes.dtype) * exact).sum(dim=1) * slopes).sum(), None


_feature_matching_backward = differentiable(
    "feature_matching_backward", _save_for_feature_matching_backward, _feature_matching_backward_gradient,
    one_by_one(_calls_backward),
)  # fmt: skip
