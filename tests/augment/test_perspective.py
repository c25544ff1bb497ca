"""Perspective jitter: exact for the identity, invertible, and filled where there is no source pixel."""

import pytest
import torch

from fastgan.augment import BORDERS, place_encoded, random_perspective, warp_for_encoder
from fastgan.ops import perspective_warp

IDENTITY = torch.eye(3).expand(2, 3, 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_no_displacement_is_the_identity():
    warp, unwarp = random_perspective(2, 40, 56, 0.0, generator())
    assert torch.allclose(warp, IDENTITY, atol=1e-6) and torch.allclose(unwarp, IDENTITY, atol=1e-6)
    image = torch.rand(2, 3, 40, 56)
    assert torch.allclose(perspective_warp(image, warp), image, atol=1e-4)


def test_corners_move_by_at_most_the_displacement():
    warp, unwarp = random_perspective(64, 40, 56, 6.0, generator())
    corners = torch.tensor([[0.0, 0, 1], [56, 0, 1], [56, 40, 1], [0, 40, 1]])
    moved = corners @ unwarp.mT
    moved = moved[..., :2] / moved[..., 2:]
    shift = (moved - corners[:, :2]).abs()
    assert shift.max() <= 6.001 and shift.max() > 5
    product = warp @ unwarp
    assert torch.allclose(product / product[:, 2:, 2:], torch.eye(3), atol=1e-3)


def test_a_translation_moves_by_whole_pixels():
    image = torch.rand(1, 3, 8, 9)
    matrix = torch.tensor(
        [[[1.0, 0, 2], [0, 1, 3], [0, 0, 1]]]
    )  # output pixel (x, y) samples input pixel (x + 2, y + 3)
    warped = perspective_warp(image, matrix)
    assert torch.allclose(warped[:, :, :5, :7], image[:, :, 3:, 2:], atol=1e-5)
    assert warped[:, :, 5:].abs().max() < 1e-5


def test_unwarping_undoes_the_warp():
    image = torch.linspace(0, 1, 64).expand(2, 3, 48, 64).contiguous()
    warp, unwarp = random_perspective(2, 48, 64, 5.0, generator())
    restored = perspective_warp(perspective_warp(image, warp), unwarp)
    assert (restored - image)[:, :, 12:-12, 12:-12].abs().max() < 0.01


def test_warp_for_encoder_keeps_the_image_where_the_warp_samples_outside():
    image = torch.full((2, 3, 32, 32), 0.7)
    warp, _ = random_perspective(2, 32, 32, 8.0, generator())
    assert torch.allclose(warp_for_encoder(image, warp), image, atol=1e-5)


@pytest.mark.parametrize("borders", BORDERS)
def test_borders_agree_inside_and_differ_outside(borders):
    image = torch.rand(2, 3, 48, 48, generator=generator(5))
    warp, unwarp = random_perspective(2, 48, 48, 10.0, generator(1))
    warped = warp_for_encoder(image, warp)
    placed = place_encoded(image, warped, torch.zeros_like(image), unwarp, borders, generator(2))
    black = place_encoded(image, warped, torch.zeros_like(image), unwarp, "black", generator(2))
    mask = perspective_warp(torch.ones(2, 1, 48, 48), unwarp).expand_as(image)
    outside = mask == 0
    assert outside.any()
    if borders == "no_edge":
        assert torch.equal(placed, image)
        return
    assert torch.allclose(placed[mask == 1], black[mask == 1], atol=1e-6)
    fill = placed[outside]
    if borders == "black":
        assert fill.max() == 0
    elif borders == "white":
        assert fill.min() == 1
    elif borders == "random":
        assert fill.std() < 1e-6 and 0 < fill.mean() < 1
    elif borders == "randomrgb":
        assert len(set(fill.mul(1e5).round().tolist())) == 3
    else:
        assert torch.equal(fill, image.roll(1, dims=0)[outside])


def test_unknown_borders_are_named():
    image = torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match="borders must be one of .*, got 'grey'"):
        place_encoded(image, image, image, IDENTITY, "grey", generator())


def test_gradients_reach_the_residual_through_the_warp():
    image = torch.rand(2, 3, 32, 32)
    residual = torch.zeros(2, 3, 32, 32, requires_grad=True)
    warp, unwarp = random_perspective(2, 32, 32, 3.0, generator())
    placed = place_encoded(image, warp_for_encoder(image, warp), residual, unwarp, "white", generator())
    placed.sum().backward()
    assert residual.grad.abs().sum() > 0.8 * residual.numel()
