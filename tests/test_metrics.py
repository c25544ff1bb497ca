"""The figures of evaluation: against their formulas, and named for what they are."""

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("torchmetrics")

from fastgan.metrics import INCEPTION, FrechetDistance, bit_accuracy, psnr, ssim


def test_psnr_is_the_mean_over_images():
    x, y = torch.rand(2, 2, 3, 16, 16)
    error = (x - y).square().mean(dim=(1, 2, 3))
    assert_close(psnr(x, y), (-10 * error.log10()).mean())
    assert_close(psnr(255 * x, 255 * y, data_range=255.0), psnr(x, y))


def test_ssim_of_equal_images_is_one():
    x = torch.rand(2, 3, 32, 32)
    assert_close(ssim(x, x), torch.tensor(1.0))
    assert ssim(x, 1 - x) < 0.5


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


def test_missing_inception_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="download https://.*torch-fidelity.*inception") as error:
        FrechetDistance()
    assert str(tmp_path / "checkpoints" / INCEPTION) in str(error.value)
