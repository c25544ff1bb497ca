r"""StegaStamp's photometric distortions, which imitate the effects of print, light and camera on colours.

.. math::
    u = \operatorname{clamp}(x + \sigma n), \quad v = \operatorname{clamp}(c\, u + o), \quad
    z = (1 - s)\, v + s\, (0.3, 0.6, 0.1) \cdot v

with standard normal noise n and, per image, its strength sigma, a contrast c, an offset o for each channel
and a desaturation s. Between the clamps' bounds it is linear:

.. math::
    \frac{\partial L}{\partial x} = c\, m\, ((1 - s)\, g + s\, (0.3, 0.6, 0.1) \textstyle\sum g), \qquad
    g = \frac{\partial L}{\partial z}

The mask m, whether the channel passed both clamps, is one bit, and whether it is NaN another; only a byte per
pixel is saved, neither the image nor the noise.

The noise is a function of a seed and the pixel's index (Philox), so the same seed gives the same noise on
every device, in kernels and reference, for any number of threads.
"""

from __future__ import annotations

import math
import numbers

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import check_saved, differentiable, wants_gradient
from fastgan.ops._batching import fold, one_by_one, unfold
from fastgan.ops._checks import (
    FLOATING,
    as_flag,
    as_number,
    check_generator,
    check_image,
    check_same_device,
    check_tensor,
    described,
    is_finite,
    may_look_at,
)
from fastgan.ops._declare import declare
from fastgan.ops._value_range import GrossRangeCheck
from fastgan.reference import photometric as reference

_range_check = GrossRangeCheck("photometric", ("image",))


def photometric(
    image: Tensor,
    *,
    noise: float | Tensor = 0.0,
    contrast: float | Tensor = 1.0,
    offset: float | Tensor = 0.0,
    desaturation: float | Tensor = 0.0,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str | None = None,
    check_range: bool = True,
) -> Tensor:
    """Adds noise, changes contrast, brightness and hue, and desaturates, with clamps to [0, 1] in between.

    Args:
        image: N 3 H W, RGB in [0, 1]; float32, bfloat16, float16 or float64; any strides. NaN in one
            channel makes the pixel NaN, and that channel's gradient.
        noise: standard deviation of the normal noise that is added first, before a clamp to [0, 1]; at least
            0. A number, or a tensor, 0-d or (N,).
        contrast: factor; as `noise`, any sign.
        offset: added after the contrast, before the second clamp: brightness, or with (N, 3) brightness and
            a colour cast. A number, or a tensor, 0-d, (N,) or (N, 3).
        desaturation: in [0, 1]; 1 leaves only the luminance 0.3 R + 0.6 G + 0.1 B. As `noise`.
        seed: of the noise: a number, or a 0-d int64 tensor on the image's device. Default: drawn, unless
            `noise` is the number 0.
        generator: draws the seed, on the generator's device, which must be the image's. Default: torch's own.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.
        check_range: whether to check the process's first images and to issue a RuntimeWarning, once, for
            8-bit values or images in [-1, 1]. Never synchronizes with a GPU.

    Returns:
        The distorted image, N 3 H W in [0, 1], in the image's dtype and memory format. Computed in float32
        (float64 for float64).

    Gradients with respect to the image are exact to every order (zero where a clamp acted) and save one byte
    per pixel. The other arguments get gradients only from ``backend="reference"``.

    Raises:
        TypeError, ValueError: an argument that is not such an image, or is of another kind or shape, not
            finite, out of its range (names it and its index in the batch), or requires grad. On a GPU, where
            reading a tensor's values would synchronize, they are not checked.

    Source: `transform_net` of the code of Tancik, Mildenhall and Ng, "StegaStamp: Invisible Hyperlinks in
    Physical Photographs", CVPR 2020. There noise and desaturation are drawn once per batch.
    """
    check_image("image", image)
    parameters = _parameters(image, noise=noise, contrast=contrast, offset=offset, desaturation=desaturation)
    if as_flag("check_range", check_range):
        _range_check.look((0, 1), image)
    if seed is None and generator is None and not isinstance(noise, Tensor) and noise == 0:
        seed = 0  # no noise needs none, and torch.vmap would refuse to draw one
    seed = _seed(image, seed, generator)
    if _dispatch.choose("photometric", (image,), backend) == "reference":
        return _reference(image, parameters, seed)
    if parameters.requires_grad:
        raise ValueError(
            "photometric's kernel has gradients for the image alone, but noise, contrast, offset or "
            "desaturation requires grad: detach it, or ask for backend='reference'"
        )
    return _distort(image, parameters, seed)[0]


def _reference(image: Tensor, parameters: Tensor, seed: Tensor) -> Tensor:
    batch, _, height, width = image.shape
    normal = reference.normal_noise(seed, batch, height, width, parameters.dtype)
    strength, contrast, desaturation = parameters[:, 0], parameters[:, 1], parameters[:, 5]
    distorted = reference.photometric(
        image.to(parameters.dtype), strength[:, None, None, None] * normal, contrast, parameters[:, 2:5],
        desaturation,
    )  # fmt: skip
    return distorted.to(image.dtype)


RANGES = {
    "noise": (0.0, math.inf),
    "contrast": (-math.inf, math.inf),
    "offset": (-math.inf, math.inf),
    "desaturation": (0.0, 1.0),
}


def _parameters(image: Tensor, **values: float | Tensor) -> Tensor:
    """(N, 6): the noise's standard deviation, contrast, three offsets, desaturation."""
    batch = image.shape[0]
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    columns = []
    for name, value in values.items():
        width = 3 if name == "offset" else 1
        if isinstance(value, Tensor):
            column = _checked_tensor(name, value, image, batch, width).to(dtype)
        else:
            number = as_number(name, value, "a number or a tensor")
            _check_range(name, number)
            column = torch.full((1, 1), number, dtype=dtype, device=image.device)
        columns.append(column.expand(batch, width))
    return torch.cat(columns, dim=1)


def _checked_tensor(name: str, value: Tensor, image: Tensor, batch: int, width: int) -> Tensor:
    """The tensor as (N or 1, width or 1)."""
    check_tensor(name, value)
    shapes = [(), (batch,)] + ([(batch, 3)] if width == 3 else [])
    if value.shape not in shapes or value.dtype not in FLOATING:
        listed = ", ".join(str(shape) for shape in shapes[1:])
        raise ValueError(
            f"{name} must be 0-d or have shape {listed}, of floating point, got {tuple(value.shape)}, "
            f"{value.dtype}"
        )
    check_same_device(**{"image": image, name: value})
    if may_look_at(value):
        for index, number in enumerate(value.detach().reshape(-1).tolist()):
            place = f" at batch index {index * value.shape[0] // value.numel()}" if value.dim() else ""
            _check_range(name, number, place)
    return value.reshape(1, 1) if value.dim() == 0 else value.reshape(batch, -1)


def _check_range(name: str, number: float, place: str = "") -> None:
    low, high = RANGES[name]
    if not (low <= number <= high and is_finite(number)):
        wanted = f"lie in [{low:g}, {high:g}]" if low == 0 else "be finite"
        raise ValueError(f"{name} must {wanted}, got {number}{place}")


def _seed(image: Tensor, seed: int | Tensor | None, generator: torch.Generator | None) -> Tensor:
    if seed is None:
        check_generator("generator", generator)
        return torch.randint(2**63 - 1, (), generator=generator, device=image.device)
    if generator is not None:
        raise ValueError(
            f"give a seed or a generator, not both; got {described(seed)}, {described(generator)}"
        )
    if isinstance(seed, Tensor):
        check_tensor("seed", seed)
        if seed.dim() != 0 or seed.dtype != torch.int64:
            raise ValueError(f"seed must be 0-d int64, got shape {tuple(seed.shape)}, {seed.dtype}")
        check_same_device(image=image, seed=seed)
        return seed
    if isinstance(seed, bool) or not isinstance(seed, (int, numbers.Integral)):
        raise TypeError(f"seed must be an integer or a tensor, got {described(seed)}")
    seed = int(seed)
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must fit in 64 bits, got {seed}")
    return torch.full((), seed, dtype=torch.int64, device=image.device)


# --- op and fake ----------------------------------------------------------------------------------


@declare(
    "photometric(Tensor image, Tensor parameters, Tensor seed, bool with_masks) "
    "-> (Tensor distorted, Tensor masks)"
)
def _photometric_fake(image, parameters, seed, with_masks):
    batch, _, height, width = image.shape
    shape = (batch, height, width) if with_masks else (0,)
    return torch.empty_like(image), image.new_empty(shape, dtype=torch.uint8)


@declare("photometric_backward(Tensor grad, Tensor parameters, Tensor masks) -> Tensor")
def _photometric_backward_fake(grad, parameters, masks):
    return torch.empty_like(grad)


# --- batching -------------------------------------------------------------------------------------


def _distort(image, parameters, seed, with_masks=False):
    return _photometric(image, parameters, seed, with_masks or wants_gradient(image))


def _photometric_backwards(size, batched, *tensors):
    grad, parameters, masks = (fold(tensor, own, size) for tensor, own in zip(tensors, batched, strict=True))
    return unfold(_photometric_backward(grad, parameters, masks), size)


# --- backward -------------------------------------------------------------------------------------


def _save_for_photometric(ctx, inputs, output):
    _, parameters, _, with_masks = inputs
    _, masks = output
    check_saved("photometric", "with_masks", with_masks)
    ctx.mark_non_differentiable(masks)
    ctx.save_for_backward(parameters, masks)


def _photometric_gradients(ctx, grad, _grad_masks):
    if ctx.needs_input_grad[1]:  # where the check of the arguments did not run, as in a recorded graph
        raise NotImplementedError(
            "photometric has no gradient with respect to its parameters: pass them detached"
        )
    parameters, masks = ctx.saved_tensors
    return _photometric_backward(grad, parameters, masks), None, None, None


# One by one, since the noise of a pixel depends on its image's index in the call.
_photometric = differentiable(
    "photometric", _save_for_photometric, _photometric_gradients, one_by_one(_distort)
)


# --- second order: backward is linear in the incoming gradient; its transpose is the tangent ------------


def _save_for_photometric_backward(ctx, inputs, output):
    _, parameters, masks = inputs
    ctx.save_for_backward(parameters, masks)


def _photometric_backward_gradients(ctx, tangent):
    parameters, masks = ctx.saved_tensors
    return reference.photometric_tangent(tangent, parameters.to(tangent.dtype), masks), None, None


_photometric_backward = differentiable(
    "photometric_backward", _save_for_photometric_backward, _photometric_backward_gradients,
    _photometric_backwards,
)  # fmt: skip
