"""DiffAugment: its effects on images, and gradients through it."""

from __future__ import annotations

import pytest
import torch

from fastgan.augment import DiffAugment
from fastgan.losses import r1_penalty


def augment(policy, image, seed=0):
    augmentation = DiffAugment(policy)
    return augmentation(image, augmentation.draw(len(image), torch.Generator().manual_seed(seed)))


@pytest.fixture
def image():
    return torch.rand(64, 3, 24, 16) + 0.1  # without zeros, which mark pixels that were cut or shifted in


def test_no_policy_changes_nothing(image):
    assert torch.equal(augment((), image), image)


def test_translation_moves_by_whole_pixels_within_an_eighth(image):
    shifts = set()
    for before, after in zip(image, augment(("translation",), image), strict=True):
        matches = []
        for dy in range(-3, 4):
            for dx in range(-2, 3):
                moved = torch.zeros_like(before)
                moved[:, max(dy, 0) : 24 + min(dy, 0), max(dx, 0) : 16 + min(dx, 0)] = before[
                    :, max(-dy, 0) : 24 + min(-dy, 0), max(-dx, 0) : 16 + min(-dx, 0)
                ]
                if torch.allclose(moved, after, atol=1e-6):
                    matches.append((dy, dx))
        assert len(matches) == 1
        shifts.update(matches)
    assert len(shifts) > 20


def test_cutout_removes_a_square_of_half_the_side(image):
    is_cut = (augment(("cutout",), image) == 0).all(1)
    rows, columns = is_cut.any(2).sum(1), is_cut.any(1).sum(1)
    assert torch.equal(is_cut.flatten(1).sum(1), rows * columns), "not one rectangle"
    assert rows.max() == 12 and columns.max() == 8
    assert rows.min() >= 6 and columns.min() >= 4
    assert is_cut.any(0).all(), "some pixels are never cut"


def test_colour_keeps_grey_images_grey(image):
    coloured = augment(("color",), image)
    shift = coloured.mean((1, 2, 3)) - image.mean((1, 2, 3))
    assert shift.abs().max() <= 0.5 and shift.std() > 0.2
    # Saturation leaves grey images grey; brightness and contrast are linear.
    grey = augment(("color",), image.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey[:, 0], grey[:, 1])
    spread = grey.std((1, 2, 3)) / image.mean(1, keepdim=True).expand(-1, 3, -1, -1).std((1, 2, 3))
    assert spread.min() >= 0.5 and spread.max() <= 1.5 and spread.std() > 0.2


def test_each_image_has_its_own_random_numbers(image):
    same = image[:1].expand(8, -1, -1, -1)
    for policy in ("color", "translation", "cutout"):
        assert len({tuple(one.flatten().tolist()) for one in augment((policy,), same)}) > 5, policy


def test_gradients_of_both_orders():
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    augmentation = DiffAugment()
    random_numbers = augmentation.draw(2, torch.Generator().manual_seed(3))

    def augmented(image):
        return augmentation(image, random_numbers)

    assert torch.autograd.gradcheck(augmented, (x,))
    assert torch.autograd.gradgradcheck(augmented, (x,))


def test_r1_through_it():
    layer = torch.nn.Conv2d(3, 1, 3)
    x = torch.rand(4, 3, 16, 16, requires_grad=True)
    r1_penalty(layer(augment(("color", "translation", "cutout"), x)).square().sum((1, 2, 3)), x).backward()
    assert layer.weight.grad.abs().sum() > 0


def test_bad_input(image):
    with pytest.raises(ValueError, match="color, translation, cutout, got 'flip'"):
        DiffAugment(("flip",))
    augmentation = DiffAugment(("color",))
    with pytest.raises(ValueError, match=r"drawn must have shape \(64, 3\), got \(2, 3\)"):
        augmentation(image, torch.rand(2, 3))
    with pytest.raises(TypeError):
        augmentation(image.to(torch.uint8), torch.rand(64, 3))


@pytest.mark.parametrize(("side", "positions"), [(8, 9), (7, 8), (6, 6), (5, 5), (1, 1)])
def test_the_centre_of_the_cutout_lies_in_the_image(side, positions):
    """The authors' code draws side + (1 - length % 2) positions of a square of length int(side / 2 + 0.5)."""
    image, length = torch.ones(400, 1, side, side), int(side / 2 + 0.5)
    random_numbers = torch.linspace(0, 1, 401)[:-1, None].expand(-1, 2)
    is_cut = DiffAugment(("cutout",))(image, random_numbers)[:, 0] == 0
    actual = {tuple(rows.tolist()) for rows in is_cut.any(2)}
    expected = set()
    for centre in range(positions):
        begin = centre - length // 2
        expected.add(tuple(begin <= row < begin + length for row in range(side)))
    assert actual == expected
    assert is_cut.flatten(1).any(1).all()


def test_cutout_removes_nan():
    image = torch.full((1, 3, 8, 8), torch.nan)
    cut = DiffAugment(("cutout",))(image, torch.tensor([[0.5, 0.5]]))
    assert (cut[:, :, 2:6, 2:6] == 0).all() and cut.isnan().sum() == 3 * 48
