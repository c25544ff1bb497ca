"""StarGAN v2's whole runs on images and on latents, and the figures of its evaluation."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch

from fastgan.recipes.starganv2.evaluation import evaluate_translations, train_classifier
from fastgan.recipes.starganv2.recipe import StarGANv2
from fastgan.recipes.starganv2.translator import Translator
from fastgan.training.loop import train
from fastgan.training.processes.runtime import Runtime
from tests.recipes.runs import PROBES, OneAndTwo, assert_resume_is_bit_exact, table
from tests.recipes.starganv2_folders import image_config


def test_r1_is_averaged_over_the_steps_that_compute_it(domains_config):
    penalties = {}
    for interval in (1, 4):
        config = dataclasses.replace(
            domains_config, log_interval=interval, r1_interval=2, exp_name=f"every-{interval}"
        )
        with (train(StarGANv2, config) / "metrics.csv").open(newline="") as file:
            penalties[interval] = [row["r1_penalty"] for row in csv.DictReader(file)]
    assert penalties[1][1::2] == [""] * 2 and all(float(penalty) > 0 for penalty in penalties[1][::2])
    mean = sum(map(float, penalties[1][::2])) / 2
    assert [float(penalty) for penalty in penalties[4]] == pytest.approx([mean], rel=1e-5)


@pytest.mark.parametrize(
    "changes", [{"crop": "random"}, {"updates": "in_turn", "crop": "slight", "ema_warmup": False}]
)
def test_whole_runs_resume_to_the_bit(domains_config, changes):
    assert_resume_is_bit_exact(StarGANv2, dataclasses.replace(domains_config, **changes), at=3, steps=6)


def test_whole_runs_on_latents_resume_to_the_bit(latents_config):
    assert_resume_is_bit_exact(StarGANv2, latents_config, at=3, steps=6)


@pytest.fixture(scope="module")
def one_and_two(image_domains, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    # Half the average of a bound is not the bound of the average: the margin is out of the way.
    # Where a gradient is nearly 0, Adam's first steps follow its rounding errors: these seeds have none such.
    configs = {
        updates: image_config(image_domains, folder, updates=updates, ds_margin=9.0, seed=seed)
        for updates, seed in (("joint", 0), ("in_turn", 5))
    }
    return OneAndTwo(StarGANv2, configs, folder)


@pytest.mark.parametrize("updates", ["joint", "in_turn"])
def test_two_processes_equal_one(one_and_two, updates):
    one_and_two.assert_equal(updates)


@pytest.mark.parametrize("data", ["domains_config", "latents_config"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_runs_on_images_and_on_latents(data, precision, request):
    config = dataclasses.replace(request.getfixturevalue(data), precision=precision)
    folder = train(StarGANv2, config)
    (row,) = table(folder / "evaluation.csv")
    assert row.keys() == {
        "step", "classifier_acc", "translated_acc_latent", "translated_acc_reference", "cycle_l1",
        "pairwise_l1_latent", "pairwise_l1_reference", *PROBES,
    }  # fmt: skip
    assert (folder / "samples" / "rows.txt").read_text().split() == [
        "source", "reference", "by_reference", "by_reference_and_back", "by_latent_1", "by_latent_2",
        "by_latent_3",
    ]  # fmt: skip


def test_the_classifier_is_always_the_same_and_leaves_the_random_state_alone(domains_config):
    config = dataclasses.replace(domains_config, classifier_steps=40)
    recipe = StarGANv2(config, Runtime(config))
    before = torch.get_rng_state()
    first = recipe.classifier
    assert torch.equal(torch.get_rng_state(), before)
    assert first is recipe.classifier
    arguments = (recipe.train_domains, recipe.as_trained, 3, 40, torch.device("cpu"))
    with torch.no_grad():  # as an evaluation is
        repeated = train_classifier(*arguments)
    for a, b in zip(first.parameters(), repeated.parameters(), strict=True):
        assert torch.equal(a, b)
    images = [recipe.held_out(domain, 4) for domain in (0, 1)]
    actual = evaluate_translations(recipe.translator, images, first, domains_config.z_dim, 2)
    assert actual["classifier_acc"] == 1


class Brighter(torch.nn.Module):
    """Adds a number that is the style."""

    def forward(self, image, style):
        return image + style[:, :, None, None]


class Target(torch.nn.Module):
    """The style of domain y is y, and that of its noise too, with the noise's first number beside it."""

    def forward(self, x, domain):
        noise = x[:, :1] if x.dim() == 2 else 0
        return domain[:, None].float() * 2 - 1 + 0.01 * noise


def test_figures_of_translations_that_are_known():
    images = [torch.full((3, 1, 8, 8), -0.5), torch.full((2, 1, 8, 8), 0.5)]

    class Sign(torch.nn.Module):
        def forward(self, x):
            positive = (x.mean((1, 2, 3)) > 0).float()
            return torch.stack([1 - positive, positive], dim=1)

    translator = Translator(Brighter(), Target(), Target())
    actual = evaluate_translations(translator, images, Sign(), z_dim=4, draws=3)
    assert (
        actual["classifier_acc"] == actual["translated_acc_latent"] == actual["translated_acc_reference"] == 1
    )
    assert actual["pairwise_l1_reference"] == 0 and 0 < actual["pairwise_l1_latent"] < 0.05
    # -0.5 + 1 - 1: back at the start, but for the noise.
    assert actual["cycle_l1"] < 0.02
    actual = evaluate_translations(
        translator, images, Sign(), 4, 2, lambda a, b: torch.tensor(0.25, device=a.device)
    )
    assert actual["lpips_latent"] == actual["lpips_reference"] == 0.25
