"""StegaStamp's chain of distortions: nothing at strength zero, within range, the same for the same seed."""

import pytest
import torch

from fastgan.augment import Distortions, random_blur_kernels

NONE = {
    "rnd_bri": 0.0, "rnd_sat": 0.0, "rnd_hue": 0.0, "rnd_noise": 0.0, "contrast_low": 1.0,
    "contrast_high": 1.0, "no_jpeg": True, "blur_probabilities": (0.0, 0.0),
}  # fmt: skip
PARTS = [
    {"rnd_bri": 0.3}, {"rnd_sat": 1.0}, {"rnd_hue": 0.1}, {"rnd_noise": 0.02}, {"contrast_low": 0.5},
    {"contrast_high": 1.5}, {"no_jpeg": False}, {"blur_probabilities": (1.0, 0.0)},
    {"blur_probabilities": (0.0, 1.0)},
]  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_strength_zero_changes_nothing(photographs):
    assert torch.allclose(Distortions(**NONE)(photographs, 10_000, generator()), photographs, atol=1e-6)


def test_at_step_zero_ramps_leave_only_blur_and_jpeg_of_quality_100(photographs):
    image = photographs[:, :, :64, :64]
    distorted = Distortions(blur_probabilities=(0.0, 0.0))(image, 0, generator())
    assert (distorted - image).abs().mean() < 0.02


@pytest.mark.parametrize("part", PARTS, ids=lambda part: "-".join(part))
def test_each_part_acts_alone_differentiably_and_within_range(photographs, part):
    image = photographs[:, :, :64, :64].clone().requires_grad_()
    distortions = Distortions(**NONE | part)
    distorted = distortions(image, 10_000, generator())
    assert (distorted - image).abs().mean() > 1e-4
    assert distorted.min() >= 0 and distorted.max() <= 1 + 1e-6
    distorted.mean().backward()
    assert image.grad.isfinite().all() and image.grad.abs().sum() > 0
    assert torch.equal(distorted, distortions(image, 10_000, generator()))
    assert not torch.equal(distorted, distortions(image, 10_000, generator(1)))


def test_each_image_is_distorted_differently():
    image = torch.rand(1, 3, 32, 32).expand(4, -1, -1, -1)
    distorted = Distortions(no_jpeg=True)(image, 10_000, generator())
    differences = [(distorted[0] - distorted[i]).abs().mean() for i in (1, 2, 3)]
    assert min(differences) > 1e-3


def test_blur_kernels_are_normalized_and_have_the_given_probabilities():
    kernels = random_blur_kernels(4000, generator())
    assert kernels.shape == (4000, 7, 7) and kernels.min() >= 0
    assert torch.allclose(kernels.sum(dim=(1, 2)), torch.ones(4000), atol=1e-5)
    is_identity = kernels[:, 3, 3] == 1
    assert is_identity.float().mean().item() == pytest.approx(0.5, abs=0.03)
    is_gaussian = kernels[~is_identity][:, 0, 0] > 0  # kernels of lines are zero in the corners
    assert is_gaussian.float().mean().item() == pytest.approx(0.5, abs=0.05)
