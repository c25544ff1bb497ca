"""Label losses and translation terms against their formulas, and their errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan import losses


def test_cross_entropies():
    logits, bits = torch.randn(4, 7), torch.randint(0, 2, (4, 7))
    for target in (0, 1):
        expected = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
        assert_close(losses.adv_loss(logits, target), expected)
        assert_close(losses.BinaryLoss(bool(target))(logits), expected)
    assert_close(
        losses.bce_secret_loss(logits, bits), F.binary_cross_entropy_with_logits(logits, bits.float())
    )
    assert_close(
        losses.CategoryLoss(7)(logits, torch.tensor([6, 0, 3, 3])),
        F.binary_cross_entropy_with_logits(logits, F.one_hot(torch.tensor([6, 0, 3, 3]), 7).float()),
    )


def test_the_one_hot_table_cannot_be_trained():
    network = nn.Sequential(nn.Linear(3, 4), nn.Module())
    network[1].loss = losses.CategoryLoss(4)
    assert len(list(network.parameters())) == 2


def test_label_losses_name_what_is_wrong():
    loss = losses.CategoryLoss(5)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 5\), got 5"):
        loss(torch.rand(2, 5), torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 5\), got -1"):
        loss(torch.rand(2, 5), torch.tensor([-1, 5]))
    with pytest.raises(ValueError, match=r"shape \(N, 5\), got \(2, 4\)"):
        loss(torch.rand(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), got \(3,\)"):
        loss(torch.rand(2, 5), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="category_num must be at least 1, got 0"):
        losses.CategoryLoss(0)
    with pytest.raises(ValueError, match=r"target must be 1 \(real\) or 0 \(fake\), got 0.5"):
        losses.adv_loss(torch.rand(2), 0.5)
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(2, 4\)"):
        losses.bce_secret_loss(torch.rand(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize(
    "name",
    ["style_reconstruction_loss", "cycle_consistency_loss", "identity_loss", "diversity_sensitive_loss"],
)
def test_mean_absolute_differences(name):
    first, second = torch.rand(2, 3, 4, 5, 6)
    second.requires_grad_()
    loss = getattr(losses, name)(first, second)
    assert_close(loss, (first - second).abs().mean())
    (gradient,) = torch.autograd.grad(loss, second)
    assert_close(gradient, (second - first).sign() / first.numel())
    with pytest.raises(ValueError, match=r"must have the same shape, got \(3, 4, 5, 6\) and \(3, 4, 5, 1\)"):
        getattr(losses, name)(first, second[..., :1])


def test_diversity_is_not_rewarded_beyond_its_margin():
    first, second = torch.zeros(2, 3), torch.ones(2, 3, requires_grad=True)
    loss = losses.diversity_sensitive_loss(first, second, margin=0.5)
    assert loss.item() == 0.5
    assert not torch.autograd.grad(loss, second)[0].any()
    assert losses.diversity_sensitive_loss(first, second, margin=2.0).item() == 1.0
    with pytest.raises(ValueError, match="margin must be positive, got 0"):
        losses.diversity_sensitive_loss(first, second, margin=0)
