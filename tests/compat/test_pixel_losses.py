"""Pixel losses of BasicSR and traiNNer against their formulas in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.compat import basicsr, trainner
from tests.ops.layouts import image

FORMULAS = {
    "L1Loss": lambda x, y: (x - y).abs(),
    "MSELoss": lambda x, y: (x - y) ** 2,
    "CharbonnierLoss": lambda x, y: torch.sqrt((x - y) ** 2 + 1e-12),
}


def reduced(loss, weight, reduction):
    """As BasicSR does: weights are summed as they are, those of one channel times the number of channels."""
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss
    if weight is None or reduction == "sum":
        return loss.mean() if reduction == "mean" else loss.sum()
    return loss.sum() / (weight.sum() * (1 if weight.size(1) > 1 else loss.size(1)))


def assert_same(ours, expected, *leaves):
    assert_close(ours, expected)
    direction = torch.linspace(1, 2, expected.numel()).view(expected.shape)
    gradients = [torch.autograd.grad((loss * direction).sum(), leaves) for loss in (ours, expected)]
    assert_close(*gradients, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "weight", [None, (2, 1, 9, 11), (2, 3, 9, 11), (1, 1, 9, 11), (2, 3, 1, 1), (1, 3, 1, 11)]
)
@pytest.mark.parametrize("name", FORMULAS)
def test_basicsrs_losses_with_weights(name, weight, reduction):
    x, y = image((2, 9, 11)), image((2, 9, 11))
    weight = None if weight is None else torch.rand(weight)
    ours = getattr(basicsr, name)(0.5, reduction)(x, y, weight)
    assert_same(ours, 0.5 * reduced(FORMULAS[name](x, y), weight, reduction), x, y)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", [(7,), (5, 4), (3, 4, 5), (2, 3, 3, 4, 5), (2, 2, 3, 3, 4, 5)], ids=str)
def test_basicsrs_losses_take_any_number_of_dimensions(shape, reduction):
    x, y = (torch.rand(shape, requires_grad=True) for _ in range(2))
    weights = [None]
    if len(shape) > 1:  # of videos, whose second dimension is time
        weights += [torch.rand(shape), torch.rand(shape[0], 1, *shape[2:])]
    for weight in weights:
        ours = basicsr.L1Loss(reduction=reduction)(x, y, weight, ignored=1)
        assert_same(ours, reduced((x - y).abs(), weight, reduction), x, y)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weight", [None, (2, 1, 9, 11), (2, 3, 9, 11), (1, 1, 9, 11), (1, 3, 9, 11)])
def test_basicsrs_total_variation(weight, reduction):
    x = image((2, 9, 11))
    weight = None if weight is None else torch.rand(weight)
    loss = basicsr.WeightedTVLoss(0.5, reduction)
    down, right = (None, None) if weight is None else (weight[:, :, :-1], weight[..., :-1])
    expected = reduced(x.diff(dim=2).abs(), down, reduction) + reduced(x.diff(dim=3).abs(), right, reduction)
    assert isinstance(loss, basicsr.L1Loss)
    assert_same(loss(x, weight), 0.5 * expected, x)


def test_basicsrs_weights_get_a_gradient_if_they_require_one():
    x, y, weight = image((2, 9, 11)), image((2, 9, 11)), torch.rand(2, 1, 9, 11, requires_grad=True)
    assert_same(basicsr.L1Loss()(x, y, weight), reduced((x - y).abs(), weight, "mean"), x, weight)
    expected = sum(
        reduced(x.diff(dim=dim).abs(), weight.narrow(dim, 0, x.shape[dim] - 1), "mean") for dim in (2, 3)
    )
    assert_same(basicsr.WeightedTVLoss()(x, weight), expected, x, weight)


def test_basicsrs_losses_name_what_is_wrong():
    x = torch.rand(2, 3, 4, 5)
    for call, message in (
        (lambda: basicsr.L1Loss(reduction="max"), "reduction must be one of mean, sum, none, got 'max'"),
        (lambda: basicsr.WeightedTVLoss(reduction="none"), "reduction must be one of mean, sum, got 'none'"),
        (lambda: basicsr.CharbonnierLoss(eps=0), "eps must be at least 1.18e-38"),
        (lambda: basicsr.MSELoss()(x, x[:1]), r"pred and target must have the same shape"),
        (lambda: basicsr.MSELoss()(x[:0], x[:0]), r"pred must not be empty, got shape \(0, 3, 4, 5\)"),
        (
            lambda: basicsr.MSELoss()(x, x, x[0]),
            r"weight must broadcast to \(2, 3, 4, 5\), got shape \(3, 4, 5\)",
        ),
        (
            lambda: basicsr.L1Loss()(x[0, 0, 0], x[0, 0, 0], weight=x[0, 0, 0]),
            r"with a weight, pred must have two dimensions or more, got \(5,\)",
        ),
        (lambda: basicsr.WeightedTVLoss()(x[0]), r"pred must have shape \(N, C, H, W\), got \(3, 4, 5\)"),
        (lambda: basicsr.WeightedTVLoss()(x, x[..., 1:]), r"weight must broadcast to \(2, 3, 4, 5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("out_norm", ["bci", "b", "ci", ""])
@pytest.mark.parametrize("shape", [(3, 9, 11), (2, 3, 9, 11)])
def test_trainners_charbonnier(shape, out_norm):
    x, y = (torch.rand(shape, requires_grad=True) for _ in range(2))
    sizes = {"b": shape[0], "c": 3, "i": 99}
    expected = torch.sqrt((x - y) ** 2 + 1e-6).sum()
    for letter in out_norm:
        expected = expected / sizes[letter]
    assert_same(trainner.CharbonnierLoss(eps=1e-3, out_norm=out_norm)(x, y), expected, x, y)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("out_norm", ["b", "ci", ""])
@pytest.mark.parametrize(("p", "beta"), [(1, 2), ("l2", 2), (2, 1.5)])
@pytest.mark.parametrize("shape", [(3, 9, 11), (2, 3, 9, 11)])
def test_trainners_total_variation(shape, p, beta, out_norm, reduction):
    x = torch.rand(shape, requires_grad=True)
    power, axes = 1 if p == 1 else 2, (-3, -2, -1)
    # Differences beyond the last row and column are 0, and counted.
    down, right = F.pad(x.diff(dim=-2), (0, 0, 0, 1)), F.pad(x.diff(dim=-1), (0, 1))
    of_images = sum(getattr(each.abs() ** power, reduction)(dim=axes) for each in (down, right))
    expected = (of_images.sum() if "b" in out_norm else of_images.mean()) ** (beta / 2)
    sizes = {"b": shape[0], "c": 3, "i": 99}
    for letter in out_norm:
        expected = expected / sizes[letter]
    loss = trainner.TVLoss(p=p, reduction=reduction, out_norm=out_norm, beta=beta)
    assert_same(loss(x), expected, x)


@pytest.mark.parametrize("loss", [trainner.CharbonnierLoss(1e-3), trainner.TVLoss(p=1, out_norm="bci")])
def test_trainners_losses_compile(loss):
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((2, 9, 11), (3, 8, 10)):
        images = (image(size), image(size))[: 1 if isinstance(loss, trainner.TVLoss) else 2]
        assert_close(compiled(*images), loss(*images))


def test_trainners_losses_name_what_is_wrong():
    with pytest.raises(NotImplementedError, match="tv_type must be one of tv, got 'dtv'"):
        trainner.TVLoss("dtv")
    for call, message in (
        (lambda: trainner.TVLoss(p=3), "p must be one of 1, 2, got 3"),
        (lambda: trainner.TVLoss(out_norm="x"), "out_norm must be made of b, c and i, got 'x'"),
        (lambda: trainner.CharbonnierLoss(eps=0.0), "the square of eps must be at least 1.18e-38"),
        (
            lambda: trainner.CharbonnierLoss()(*torch.rand(2, 2, 3, 0, 5)),
            r"x must not be empty, got shape \(2, 3, 0, 5\)",
        ),
        (
            lambda: trainner.TVLoss()(torch.rand(2, 2)),
            r"x must have shape \(N, C, H, W\) or \(C, H, W\), got \(2, 2\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
