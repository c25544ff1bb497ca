"""Feature matching against the formulas of pix2pixHD, SPADE and StudioGAN, and its errors."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.compat import pix2pix, studiogan
from fastgan.losses import feature_matching_loss


@pytest.fixture
def scales():
    """Features and logits of two discriminators of three layers, of fake and of real images."""
    torch.manual_seed(0)
    sides = []
    for _ in range(2):
        sides.append(
            [
                [
                    *(torch.randn(2, c, size >> i, size >> i) for i, c in enumerate((4, 8, 16, 16))),
                    torch.randn(2, 1, 3, 3),
                ]
                for size in (33, 17)
            ]
        )
    fake, real = sides
    return [[each.requires_grad_() for each in scale] for scale in fake], real


def leaves_of(scales):
    return [each for scale in scales for each in scale[:-1]]


def inline(fake, real, weight):
    """As trainers write it, layer by layer."""
    loss = 0
    for of_fake, of_real in zip(fake, real, strict=True):
        for a, b in zip(of_fake[:-1], of_real[:-1], strict=True):
            loss = loss + weight / len(fake) * F.l1_loss(a, b.detach()) * 10.0
    return loss


@pytest.mark.parametrize(
    ("call", "weight"),
    [
        (feature_matching_loss, 4 / 4),
        (lambda fake, real: feature_matching_loss(fake, real, layer_weights=1.0), 1.0),
        (lambda fake, real: pix2pix.feature_matching_loss(fake, real, 3, 2), 4 / 4),
        (lambda fake, real: pix2pix.feature_matching_loss(fake, real, 4, 2, 10.0), 4 / 5),
    ],
    ids=["default", "SPADE", "pix2pixHD", "of four layers"],
)
def test_values_and_gradients_are_those_of_the_trainers(scales, call, weight):
    fake, real = scales
    value, expected = call(fake, real), inline(fake, real, weight)
    assert_close(value, expected)
    leaves = leaves_of(fake)
    for ours, theirs in zip(
        torch.autograd.grad(value, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        assert_close(ours, theirs)


def test_one_discriminator_may_be_a_flat_list(scales):
    fake, real = (side[0] for side in scales)
    assert_close(feature_matching_loss(fake, real), inline([fake], [real], 1.0))
    every = feature_matching_loss(fake, real, 2.0, with_logits=False, layer_weights=[1, 0, 0, 0, 3])
    assert_close(every, 2 * F.l1_loss(fake[0], real[0]) + 6 * F.l1_loss(fake[4], real[4]))
    assert_close(
        feature_matching_loss(fake[:1], real[:1], 1.0, with_logits=False), 4 * F.l1_loss(fake[0], real[0])
    )


def test_scales_may_have_different_numbers_of_layers(scales):
    fake, real = scales[0], scales[1]
    value = feature_matching_loss([fake[0], fake[1][2:]], [real[0], real[1][2:]], 1.0)
    expected = [F.l1_loss(a, b) for a, b in zip(fake[0][:-1], real[0][:-1], strict=True)]
    expected += [2 * F.l1_loss(a, b) for a, b in zip(fake[1][2:-1], real[1][2:-1], strict=True)]
    assert_close(value, sum(expected) / 2)


def test_means_over_the_batch_are_studiogans(scales):
    fake, real = torch.randn(5, 7, requires_grad=True), torch.randn(3, 7, requires_grad=True)
    expected = (fake.mean(0) - real.mean(0)).abs().mean()
    assert_close(studiogan.feature_matching_loss(real, fake), expected)
    gradients = torch.autograd.grad(expected, (fake, real))
    assert_close(torch.autograd.grad(studiogan.feature_matching_loss(real, fake), (fake, real)), gradients)
    value = feature_matching_loss([fake], [real], 1.0, layer_weights=1.0, with_logits=False, of_means=True)
    assert_close(value, expected)
    assert_close(torch.autograd.grad(value, fake)[0], gradients[0])
    half = feature_matching_loss(
        [fake.bfloat16()], [real], 1.0, layer_weights=1.0, with_logits=False, of_means=True
    )
    assert half.dtype == torch.float32
    assert_close(half, expected, rtol=0.05, atol=0.01)


X, Y = torch.rand(2, 3), torch.rand(2, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            (X, Y),
            {},
            TypeError,
            "fake_features must be a list of a discriminator's features, .* got torch.float32",
        ),
        (([], []), {}, ValueError, "fake_features must be .*, got an empty list"),
        (([X, X], [X]), {}, ValueError, r"as many scales and layers, got \[2\] and \[1\] tensors"),
        (([X, [X]], [X, [X]]), {}, TypeError, "fake_features must be .*, got both tensors and lists"),
        (([[X], []], [[X], []]), {}, ValueError, r"fake_features\[1\] must have features, got an empty list"),
        (
            ([[X, 3]], [[X, Y]]),
            {},
            TypeError,
            r"fake_features\[0\]\[1\] must be a floating-point tensor, got int 3",
        ),
        (([X], [Y]), {}, ValueError, "fake_features has nothing but logits to compare"),
        (([[X, X], [X]], [[X, X], [Y]]), {}, ValueError, "scale 1 of fake_features has nothing but logits"),
        (
            ([[X, X], [X, X]], [[X, X], [X[:1], X]]),
            {},
            ValueError,
            r"fake_features\[1\]\[0\] and real_features\[1\]\[0\]",
        ),
        (
            ([X, X], [Y, Y]),
            {"layer_weights": [1, 2]},
            ValueError,
            "layer_weights must be a number, or 1, one for",
        ),
        (
            ([X, X], [Y, Y]),
            {"layer_weights": "1"},
            TypeError,
            "layer_weights must be a number, or 1, .* got str",
        ),
        (([X, X], [Y, Y], float("inf")), {}, ValueError, "lambda_feat must be finite, got inf"),
        (([X, X], [Y, Y]), {"of_means": 2}, TypeError, "of_means must be True or False, got int 2"),
        (([X[:0]], [Y[:0]]), {"with_logits": False}, ValueError, r"fake_features\[0\] must not be empty"),
        (
            ([X[0, 0]], [Y]),
            {"with_logits": False, "of_means": True},
            ValueError,
            r"fake_features\[0\] must have samples",
        ),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        feature_matching_loss(*arguments, **options)


def test_errors_of_the_drop_ins(scales):
    with pytest.raises(
        ValueError, match="pred_fake must have a list for each of num_D=3 scales, got a list of 2"
    ):
        pix2pix.feature_matching_loss(*scales, num_D=3)
    with pytest.raises(ValueError, match=r"samples of one shape, got \(2, 3\) and \(2, 4\)"):
        studiogan.feature_matching_loss(X, torch.rand(2, 4))
