"""Measures of images, D's ranking, and the probes of an evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastgan.monitor.look import auc, measures_of_images
from fastgan.monitor.probes import (
    ProbeInputs,
    duplicates,
    memorized,
    overfitting,
    probe,
    smallest_stable_rank,
)


def images(count=16, seed=0, size=8):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_ranges_and_deviation():
    measures = measures_of_images(2 * images() - 1, 3 * images(4, 1))
    assert measures["real_lowest"] == pytest.approx(-1, abs=0.01)
    assert measures["real_highest"] == pytest.approx(1, abs=0.01)
    assert measures["fake_lowest"] == pytest.approx(0, abs=0.02)
    assert measures["fake_highest"] == pytest.approx(3, abs=0.02)
    assert measures["real_deviation"] == pytest.approx(2 / 12**0.5, abs=0.02)


def test_spread_is_the_deviation_between_images_not_within_them():
    real = images(64)
    assert measures_of_images(real, images(64, 1))["spread_ratio"] == pytest.approx(1, abs=0.05)
    assert measures_of_images(real, images(1, 1).expand(8, -1, -1, -1))["spread_ratio"] < 1e-6
    near = images(1, 1) + 0.1 * images(64, 2)
    assert measures_of_images(real, near)["spread_ratio"] == pytest.approx(0.1, abs=0.01)
    assert "spread_ratio" not in measures_of_images(real, images(1)), "one image has no spread"


def test_empty_batches_are_named():
    with pytest.raises(ValueError, match=r"fake must hold images, got shape \(0, 3, 8, 8\)"):
        measures_of_images(images(), images()[:0])
    with pytest.raises(TypeError, match="real must be"):
        measures_of_images(images().int(), images())


@pytest.mark.parametrize("shape", [(), (1,), (1, 3, 3)])
@pytest.mark.parametrize("sign", [1, -1])
def test_auc_is_the_chance_of_the_right_order(shape, sign):
    torch.manual_seed(0)
    real, fake = (sign * torch.randn(n, *shape).round(decimals=1) for n in (9, 13))
    pairs = [
        1.0 if sign * r > sign * f else 0.5 if r == f else 0.0
        for r in real.reshape(9, -1).mean(1)
        for f in fake.reshape(13, -1).mean(1)
    ]
    assert auc(real, fake, sign).item() == pytest.approx(sum(pairs) / len(pairs))


def test_auc_of_one_score_for_all_is_that_of_chance():
    assert auc(torch.ones(4, 1), torch.ones(6, 1)).item() == 0.5
    assert auc(torch.ones(4, 1), torch.zeros(6, 1)).item() == 1
    assert auc(torch.ones(4, 1), torch.zeros(6, 1), -1).item() == 0


def test_overfitting_is_0_for_equal_scores_and_1_where_held_out_reals_score_like_fakes():
    train, fake = torch.full((8, 1), 2.0), torch.full((8, 1), -2.0)
    assert overfitting(train, train, fake).item() == 0
    assert overfitting(train, fake, fake).item() == 1
    assert overfitting(train, torch.zeros(8, 1), fake).item() == pytest.approx(0.5)
    assert overfitting(train, fake, train).item() == 0, (
        "a D that does not separate has learned nothing by heart"
    )


def test_memorized_images_are_those_of_the_training_set():
    train, held_out = images(32), images(32, 1)
    assert memorized(images(32, 2), held_out, train) == pytest.approx(0.5, abs=0.3)
    assert memorized(train[:8] + 0.01, held_out, train) == 1


def test_duplicates_are_found_among_many_images():
    real = images(32)
    assert duplicates(images(32, 1), real) == 0
    few = images(4, 1).repeat(8, 1, 1, 1)
    assert duplicates(few + 0.001 * images(32, 2), real) == 1


def test_stable_rank_falls_to_1_where_a_layer_passes_one_direction():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Linear(16, 16))
    assert smallest_stable_rank(network) > 2
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(16, 1) * torch.randn(1, 16))
    assert smallest_stable_rank(network).item() == pytest.approx(1, abs=1e-4)
    assert smallest_stable_rank(nn.BatchNorm2d(3)) is None


@pytest.mark.parametrize("shape", [(5, 7), (7, 5)])
def test_stable_rank_of_known_singular_values(shape):
    values = torch.tensor([2.0, 1.0, 1.0])
    left, right = (torch.linalg.qr(torch.randn(n, 3))[0] for n in shape)
    network = nn.Linear(*shape[::-1])
    with torch.no_grad():
        network.weight.copy_(left * values @ right.T)
    assert smallest_stable_rank(network).item() == pytest.approx((4 + 1 + 1) / 4)
    figures = probe(ProbeInputs(None, images(4), None, images(4, 1)), network)
    assert figures == {"probe_stable_rank": pytest.approx(1.5)}


def test_a_discriminator_that_judges_the_pipeline_is_found_out():
    real = images(16)
    brighter = real + 0.3  # what the pipeline does to a real image
    figures = probe(
        ProbeInputs(lambda x: -x.mean((1, 2, 3)), real, images(16, 1), brighter, (real, brighter))
    )
    assert figures["probe_auc_fake"] == figures["probe_auc_null"] == 1
    same = probe(ProbeInputs(lambda x: -x.mean((1, 2, 3)), real, images(16, 1), brighter, (real, real)))
    assert same["probe_auc_null"] == 0.5


def test_probes_without_inputs_are_left_out():
    figures = probe(ProbeInputs(None, images(), None, images(16, 1)))
    assert figures == {}
    assert "probe_overfitting" not in probe(
        ProbeInputs(lambda x: x.mean((1, 2, 3)), images(), None, images(4, 1))
    )
