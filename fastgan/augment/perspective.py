"""StegaStamp's perspective jitter: the encoder gets a warped image, and its output is warped back.

Nothing here synchronizes: corners are drawn and homographies solved on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops._checks import (
    as_finite,
    as_whole_number,
    check_floating,
    check_image,
    check_instance,
    check_one_of,
    check_same_device,
    check_same_shape,
)
from fastgan.ops.perspective_warp import warp_by

BORDERS = ("no_edge", "black", "white", "random", "randomrgb", "image")


def random_perspective(
    batch: int,
    height: int,
    width: int,
    displacement: float | Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Homographies that move each corner by up to `displacement` pixels along each axis.

    Returns:
        (warp, unwarp), each (batch, 3, 3) float32 on the generator's device, for
        :func:`fastgan.ops.perspective_warp`; each is the other's inverse.

    Raises:
        TypeError, ValueError: sizes that are not positive integers, a displacement that is not finite or
            does not expand to (batch, 4, 2), or an invalid generator.
    """
    check_instance("generator", generator, torch.Generator, "a torch.Generator")
    batch, height, width = (
        as_whole_number(name, value)
        for name, value in (("batch", batch), ("height", height), ("width", width))
    )
    if isinstance(displacement, Tensor):
        _check_displacement(displacement, batch, generator.device)
    else:
        displacement = as_finite("displacement", displacement)
    device = generator.device
    corners = torch.zeros(4, 2, dtype=torch.float64, device=device)
    corners[1:3, 0] = width  # clockwise from the top left; filled in place, since a copy would synchronize
    corners[2:, 1] = height
    jitter = torch.rand(batch, 4, 2, generator=generator, device=device, dtype=torch.float64)
    moved = corners + (2 * jitter - 1) * displacement
    unwarp = _homography(corners.expand(batch, -1, -1), moved)
    warp = torch.linalg.inv_ex(unwarp).inverse
    return (warp / warp[:, 2:, 2:]).float(), unwarp.float()


def _check_displacement(displacement: Tensor, batch: int, device: torch.device) -> None:
    check_floating("displacement", displacement)
    if displacement.dim() and displacement.device != device:
        raise ValueError(f"displacement must be on the generator's {device}, got {displacement.device}")
    sizes = (1,) * (3 - displacement.dim()) + tuple(displacement.shape)
    pairs = zip(sizes, (batch, 4, 2), strict=False)
    if displacement.dim() > 3 or any(size not in (1, full) for size, full in pairs):
        raise ValueError(f"displacement must expand to ({batch}, 4, 2), got {tuple(displacement.shape)}")


def _homography(source: Tensor, target: Tensor) -> Tensor:
    """The homographies (N, 3, 3) that map four points (N, 4, 2) to four others."""
    x, y = source.unbind(-1)
    u, v = target.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    system = torch.cat([rows_u, rows_v], dim=1)
    right = torch.cat([u, v], dim=1).unsqueeze(-1)
    solution = torch.linalg.solve_ex(system, right).result.squeeze(-1)
    return torch.cat([solution, one[:, :1]], dim=1).unflatten(1, (3, 3))


def warp_for_encoder(image: Tensor, warp: Tensor) -> Tensor:
    """The warped image, filled with the unwarped one where the warp reads outside of it.

    Args:
        image: N C H W.
        warp: N 3 3, from :func:`random_perspective`.

    Raises:
        TypeError, ValueError: as :func:`fastgan.ops.perspective_warp`.
    """
    return warp_by("warp", image, warp, fill=image)


def place_encoded(
    image: Tensor,
    input_warped: Tensor,
    residual_warped: Tensor,
    unwarp: Tensor,
    borders: str,
    generator: torch.Generator,
) -> Tensor:
    """Warps the encoded image back to the input's geometry, and fills the borders.

    Args:
        image: the input, N 3 H W.
        input_warped: the warped input, as given to the encoder.
        residual_warped: the encoder's residual, in the same geometry.
        unwarp: N 3 3, from :func:`random_perspective`.
        borders: "no_edge" (only the residual is warped back and added to the input: no border),
            "black", "white", "random" (one grey value), "randomrgb" (one colour), or "image" (the
            batch's neighbouring input).
        generator: draws the random fill.

    Raises:
        TypeError, ValueError: invalid images or matrices, images of unequal shapes, an invalid generator, or
            unknown `borders`.
    """
    check_one_of("borders", borders, BORDERS)
    warped = {"image": image, "input_warped": input_warped, "residual_warped": residual_warped}
    for name, tensor in warped.items():
        check_image(name, tensor)
    check_same_shape(**warped)
    check_same_device(**warped)
    check_instance("generator", generator, torch.Generator, "a torch.Generator")
    if borders == "no_edge":
        return image + warp_by("unwarp", residual_warped, unwarp)
    fill: float | Tensor = 0.0
    if borders == "white":
        fill = 1.0
    elif borders == "image":
        fill = image.roll(1, dims=0)
    elif borders != "black":
        channels = 3 if borders == "randomrgb" else 1
        fill = torch.rand(1, channels, 1, 1, generator=generator, device=image.device)
    return warp_by("unwarp", input_warped + residual_warped, unwarp, fill)
