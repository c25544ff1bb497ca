"""Metrics against their formulas, and their names."""

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("torchmetrics")

from fastgan._sets_of_images import INCEPTION
from fastgan.metrics import (
    FrechetDistance,
    bit_accuracy,
    luma,
    nearness,
    precision_recall,
    psnr,
    psnr_y,
    ssim,
    ssim_y,
)


def test_psnr_is_the_mean_over_images():
    x, y = torch.rand(2, 2, 3, 16, 16)
    error = (x - y).square().mean(dim=(1, 2, 3))
    assert_close(psnr(x, y), (-10 * error.log10()).mean())
    assert_close(psnr(255 * x, 255 * y, data_range=255.0), psnr(x, y))


def test_ssim_of_equal_images_is_one():
    x = torch.rand(2, 3, 32, 32)
    assert_close(ssim(x, x), torch.tensor(1.0))
    assert ssim(x, 1 - x) < 0.5


def test_luma_is_matlabs():
    # rgb2ycbcr of black, white and the primaries, before it rounds.
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    expected = torch.tensor([16, 235, 81.481, 144.553, 40.966], dtype=torch.float64)
    assert_close(luma(colours.view(5, 3, 1, 1)).flatten(), expected)
    skimage = pytest.importorskip("skimage.color")
    x = torch.rand(1, 3, 8, 9, dtype=torch.float64)
    known = torch.from_numpy(skimage.rgb2ycbcr(x[0].permute(1, 2, 0).numpy())[..., 0])
    assert_close(luma(x)[0, 0], known)
    assert_close(luma(x, border=2)[0, 0], known[2:-2, 2:-2])


def test_psnr_and_ssim_on_luma_are_those_of_skimage():
    metrics = pytest.importorskip("skimage.metrics")
    x, y = torch.rand(2, 1, 3, 32, 40, dtype=torch.float64)
    a, b = (luma(z, 4)[0, 0].numpy() for z in (x, y))
    assert psnr_y(x, y, border=4).item() == pytest.approx(
        metrics.peak_signal_noise_ratio(b, a, data_range=255), rel=1e-6
    )
    known = metrics.structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim_y(x, y, border=4).item() == pytest.approx(known, rel=1e-5)


def test_luma_names_what_it_cannot_take():
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\), got \(2, 1, 8, 8\)"):
        luma(torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueError, match="leave something of 8x9, got 4"):
        luma(torch.rand(1, 3, 8, 9), border=4)
    with pytest.raises(ValueError, match="at least 11x11 pixels of images, got 12x10"):
        ssim_y(*torch.rand(2, 1, 3, 16, 14), border=2)


def test_bit_accuracy():
    assert (
        bit_accuracy(torch.tensor([[1.0, -2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])) == 0.75
    )
    with pytest.raises(ValueError, match=r"one shape, got \(2,\), \(3,\)"):
        bit_accuracy(torch.ones(2), torch.ones(3))


def test_a_random_network_gives_no_fid():
    torch.manual_seed(0)
    far, near = FrechetDistance(weights=None), FrechetDistance(weights=None)
    assert far.name == near.name == "frechet_distance_of_random_features"
    real = torch.rand(160, 3, 24, 24)
    for metric, other in ((far, real.square()), (near, torch.rand(160, 3, 24, 24))):
        metric.update(real, real=True)
        metric.update(other, real=False)
    assert 0 <= near.compute() < 0.2 * far.compute()


def test_frechet_distance_is_that_of_normal_distributions():
    linalg = pytest.importorskip("scipy.linalg")
    metric = FrechetDistance(weights=None)
    images = torch.rand(300, 3, 24, 24), torch.rand(200, 3, 24, 24) * 0.9
    means, covariances = [], []
    for real, part in zip((True, False), images, strict=True):
        metric.update(part, real=real)
        with torch.no_grad():
            features = metric._metric.inception((part * 255).byte()).double()
        assert features.std() > 0.05, "features that say nothing of the images"
        means.append(features.mean(0))
        covariances.append(features.T.cov())
    root = linalg.sqrtm((covariances[0] @ covariances[1]).numpy()).real.trace()
    expected = (means[0] - means[1]).square().sum() + (covariances[0] + covariances[1]).trace() - 2 * root
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-3)
    metric.reset()
    metric.update(images[0], real=True)
    metric.update(images[0], real=False)
    assert metric.compute().item() == pytest.approx(0, abs=1e-3)


def test_nearness_tells_a_collapse():
    images = torch.rand(40, 3, 8, 8)
    apart, nearest = nearness(images)
    pairs = [(a - b).square().mean().sqrt() for i, a in enumerate(images) for b in images[:i]]
    assert_close(apart, torch.stack(pairs).mean())
    assert 0.5 * apart < nearest < apart
    twins = torch.cat([images[:20], images[:20]])
    assert nearness(twins)[1] == 0 and nearness(twins)[0] > 0.9 * apart
    assert nearness(images * 0.01 + 0.5)[0] < 0.02 * apart
    with pytest.raises(ValueError, match=r"at least two, N C H W, got shape \(1, 3, 8, 8\)"):
        nearness(images[:1])


def test_precision_falls_with_fidelity_and_recall_with_diversity():
    torch.manual_seed(0)
    real, same = torch.randn(300, 4), torch.randn(200, 4)
    values = {
        "same": precision_recall(real, same),
        "one_mode": precision_recall(real, 0.2 * torch.randn(200, 4)),
        "far": precision_recall(real, torch.randn(200, 4) + 20),
    }
    for name, expected in {
        "same": {"precision": (0.7, 1), "recall": (0.7, 1), "density": (0.8, 1.2), "coverage": (0.85, 1)},
        "one_mode": {"precision": (0.99, 1), "recall": (0, 0.3), "density": (1.2, 50), "coverage": (0, 0.5)},
        "far": {"precision": (0, 0), "recall": (0, 0), "density": (0, 0), "coverage": (0, 0)},
    }.items():
        for figure, (low, high) in expected.items():
            assert low <= values[name][figure] <= high, (name, figure, values[name][figure])


def test_precision_and_recall_are_their_definitions():
    torch.manual_seed(1)
    real, fake, k = torch.randn(12, 3), torch.randn(9, 3) * 0.8, 3

    def radius(x, i):
        return sorted((x[i] - y).norm().item() for j, y in enumerate(x) if j != i)[k - 1]

    inside = [[(r - f).norm().item() < radius(real, i) for f in fake] for i, r in enumerate(real)]
    covered = [[(r - f).norm().item() < radius(fake, j) for j, f in enumerate(fake)] for r in real]
    found = precision_recall(real, fake, k)
    assert found["precision"].item() == pytest.approx(sum(map(any, zip(*inside, strict=True))) / 9)
    assert found["recall"].item() == pytest.approx(sum(map(any, covered)) / 12)
    assert found["density"].item() == pytest.approx(sum(map(sum, inside)) / (9 * k))
    assert found["coverage"].item() == pytest.approx(sum(map(any, inside)) / 12)
    with pytest.raises(
        ValueError, match=r"fake must be \(N, C\) with more than neighbors=9 rows, got .*\(9, 3"
    ):
        precision_recall(real, fake, 9)
    with pytest.raises(ValueError, match="one width, got 3, 2"):
        precision_recall(real, fake[:, :2], k)


def test_features_are_kept_if_asked_for():
    metric = FrechetDistance(weights=None, keep_features=True)
    for real, count in ((True, 6), (False, 4), (True, 2)):
        metric.update(torch.rand(count, 3, 24, 24), real=real)
    assert [x.shape for x in metric.features] == [(8, 128), (4, 128)]
    metric.reset()
    assert [len(x) for x in metric.features] == [0, 0]
    metric = FrechetDistance(weights=None)
    metric.update(torch.rand(2, 3, 24, 24), real=True)
    assert len(metric.features[0]) == 0


def test_missing_inception_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="download https://.*torch-fidelity.*inception") as error:
        FrechetDistance()
    assert str(tmp_path / "checkpoints" / INCEPTION) in str(error.value)
