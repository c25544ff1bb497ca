"""StarGAN v2's step against its formulas, its schedules, whole runs on images and on latents."""

from __future__ import annotations

import csv
import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from fastgan.losses import r1_penalty_of
from fastgan.recipes import load_recipe
from fastgan.recipes.starganv2 import StarGANv2
from fastgan.recipes.starganv2_config import DEMO, LATENTS, PAPER, PRESETS
from fastgan.recipes.starganv2_evaluation import evaluate_translations, train_classifier
from fastgan.recipes.starganv2_translator import Translator
from fastgan.training.loop import train
from fastgan.training.runtime import Runtime
from tests.recipes.runs import assert_resume_is_bit_exact, assert_two_processes_equal_one, table
from tests.recipes.starganv2_folders import image_config, latent_config, write_images, write_latents
from tests.training.test_loop import HostReads

TRANSLATING = ("generator", "mapping_network", "style_encoder")


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("domains"))


@pytest.fixture(scope="module")
def latent_folder(tmp_path_factory):
    return write_latents(tmp_path_factory.mktemp("latents"))


@pytest.fixture
def small(image_folder, tmp_path):
    return image_config(image_folder, tmp_path / "runs")


@pytest.fixture
def small_latents(latent_folder, tmp_path):
    return latent_config(latent_folder, tmp_path / "runs")


def make(config, **changes):
    config = dataclasses.replace(config, **changes)
    torch.manual_seed(0)
    return StarGANv2(config, Runtime(config))


def one_batch(recipe):
    return next(recipe.batches(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weights_of(recipe, *names):
    return {
        f"{name}.{key}": p.detach().clone()
        for name in names
        for key, p in recipe.networks[name].named_parameters()
    }


def moved(recipe, before):
    after = weights_of(recipe, *{name.split(".")[0] for name in before})
    return {name for name in before if not torch.equal(before[name], after[name])}


def translated(recipe, batch):
    return recipe.translate(batch.x_src, batch.x_ref, recipe.noise(generator()), batch.y_trg)


@pytest.mark.parametrize("adversarial", ["hinge", "nonsaturating", "bce", "lsgan"])
def test_each_step_moves_its_own_networks_and_no_other(small, adversarial):
    recipe = make(small, adversarial=adversarial)
    batch = one_batch(recipe)
    styles, fakes = translated(recipe, batch)
    before, before_d = weights_of(recipe, *TRANSLATING), weights_of(recipe, "discriminator")
    recipe.discriminator_step(batch, fakes.detach(), 0)
    # Within the margins the hinge loss pulls reals up as hard as fakes down: the last bias stays.
    assert moved(recipe, before_d) >= before_d.keys() - {"discriminator.heads.bias"}
    assert not moved(recipe, before)
    assert all(p.grad is None for name in TRANSLATING for p in recipe.networks[name].parameters())
    before_d = weights_of(recipe, "discriminator")
    gradients = [p.grad.clone() for p in recipe.discriminator.parameters()]
    recipe.generator_step(batch, styles, fakes, recipe.noise(generator(1)), 0)
    assert moved(recipe, before) == before.keys()
    assert not moved(recipe, before_d)
    for parameter, gradient in zip(recipe.discriminator.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient), "G's step reached D"


def test_the_mapping_network_has_its_own_learning_rate(small):
    # Adam's first step is as large as its learning rate, whatever the gradient.
    recipe = make(small, lr=0.01, lr_mapping=0.0001, weight_decay=0.0)
    before = weights_of(recipe, *TRANSLATING)
    recipe.train_step(one_batch(recipe), 0, generator())
    after = weights_of(recipe, *TRANSLATING)
    largest = {
        name: max((after[k] - before[k]).abs().max().item() for k in before if k.startswith(name))
        for name in TRANSLATING
    }
    wanted = {"generator": 0.01, "mapping_network": 0.0001, "style_encoder": 0.01}
    assert largest == pytest.approx(wanted, rel=1e-2)


@pytest.mark.parametrize("step", [0, 1])
def test_discriminator_s_loss_is_its_formula(small, step):
    recipe, twin = make(small, r1_weight=0.7), make(small)
    batch = one_batch(recipe)
    fakes = translated(recipe, batch)[1].detach()
    discriminator = twin.discriminator
    real = discriminator(batch.x_src, batch.y_src)
    by_reference, by_latent = (discriminator(fake, batch.y_trg) for fake in fakes.chunk(2))
    half_real = F.relu(1 - real).mean()
    of_ref = half_real + F.relu(1 + by_reference).mean()
    of_lat = half_real + F.relu(1 + by_latent).mean()
    penalty = r1_penalty_of(discriminator, batch.x_src, batch.y_src)
    total = 0.5 * (of_ref + of_lat) + (0.7 * 2 * penalty if step == 0 else 0)
    total.backward()
    terms = recipe.discriminator_step(batch, fakes, step)
    for parameter, expected in zip(
        recipe.discriminator.parameters(), discriminator.parameters(), strict=True
    ):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms["D_loss"], (0.5 * (of_ref + of_lat)).detach())
    torch.testing.assert_close(terms["D_ref_loss"], of_ref.detach())
    torch.testing.assert_close(terms["D_lat_loss"], of_lat.detach())
    torch.testing.assert_close(terms["D_fake"], torch.cat([by_reference, by_latent]).mean().detach())
    raw = penalty.detach() if step == 0 else torch.zeros(())
    torch.testing.assert_close(terms["r1_penalty_mean_all_steps"], raw)
    assert terms["r1_penalty_mean_computed_steps"].count == (step == 0)


@pytest.mark.parametrize("w_id, ds_margin", [(0.4, 0.3), (0.0, 0.0)])
def test_generator_s_loss_is_its_formula(small, w_id, ds_margin):
    weights = {"w_adv": 0.9, "w_sty": 1.1, "w_cyc": 1.2, "w_id": w_id, "w_ds": 0.5}
    recipe, twin = make(small, ds_margin=ds_margin, **weights), make(small)
    batch = one_batch(recipe)
    z2 = recipe.noise(generator(1))
    styles, fakes = translated(recipe, batch)

    x, y, target = batch.x_src, batch.y_src, batch.y_trg
    g, f, e, d = (twin.networks[name] for name in (*TRANSLATING, "discriminator"))
    given = {"ref": e(batch.x_ref, target), "lat": f(twin.noise(generator()), target)}
    others = {"ref": e(batch.x_ref2, target), "lat": f(z2, target)}
    expected = {}
    for kind, style in given.items():
        fake, other = g(x, style), g(x, others[kind]).detach()
        difference = (fake - other).abs().mean()
        expected |= {
            f"adv_{kind}_loss": -d(fake, target).mean(),
            f"sty_{kind}_loss": (style - e(fake, target)).abs().mean(),
            f"cyc_{kind}_loss": (g(fake, e(x, y)) - x).abs().mean(),
            f"ds_{kind}_loss": difference.clamp(max=ds_margin) if ds_margin else difference,
        }
    if w_id:
        expected["id_loss"] = (g(x, e(x, y)) - x).abs().mean()
    if ds_margin:
        assert expected["ds_lat_loss"] <= ds_margin
    of_kind = {"adv": 0.9, "sty": 1.1, "cyc": 1.2, "ds": -0.5, "id": w_id}
    sum(of_kind[name.split("_")[0]] * term for name, term in expected.items()).backward()

    terms = recipe.generator_step(batch, styles, fakes, z2, 0)
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term.detach(), rtol=1e-4, atol=1e-5)
        assert terms[f"{name}_weight"] == of_kind[name.split("_")[0]]
    assert ("id_loss" in terms) == bool(w_id)
    for name in TRANSLATING:
        pairs = zip(recipe.networks[name].parameters(), twin.networks[name].parameters(), strict=True)
        for parameter, wanted in pairs:
            torch.testing.assert_close(parameter.grad, wanted.grad, rtol=1e-3, atol=1e-6)


def test_lambda_ds_falls_with_the_epochs(small):
    recipe = make(small, w_ds=2.0, ds_decay_epochs=4.0)
    per_epoch = recipe.steps_per_epoch
    assert (recipe.images_per_epoch, per_epoch) == (20, 5), "every tenth of each domain's 12 is held out: 2"
    found = [recipe.lambda_ds((epoch - 1) * per_epoch) for epoch in (1, 2, 3, 5, 9)]
    assert found == pytest.approx([2.0, 1.5, 1.0, 0.0, 0.0])
    assert recipe.lambda_ds(per_epoch - 1) == 2.0, "constant within an epoch"
    assert recipe.train_step(one_batch(recipe), 2 * per_epoch, generator())["lambda_ds"] == pytest.approx(1)
    whole = make(small, num_epochs=10)
    assert whole.lambda_ds(5 * per_epoch) == pytest.approx(0.5)
    assert whole.lambda_ds(whole.num_steps) == 0


def test_no_difference_is_asked_for_when_lambda_ds_is_zero(small):
    of_zero, without = make(small, ds_decay_epochs=1.0), make(small, w_ds=0.0)
    for recipe in (of_zero, without):
        recipe.train_step(one_batch(recipe), recipe.steps_per_epoch, generator())
    for a, b in zip(of_zero.generator.parameters(), without.generator.parameters(), strict=True):
        assert torch.equal(a, b)


def test_terms_are_the_same_at_every_step(small):
    for changes in ({}, {"balance": "threshold"}, {"balance": "ratio", "balance_ratio": (1, 3)}):
        recipe = make(small, **changes)
        names = {tuple(recipe.train_step(one_batch(recipe), step, generator(step))) for step in range(4)}
        assert len(names) == 1


def test_r1_is_averaged_over_all_steps_and_over_those_that_computed_it(small):
    folder = train(StarGANv2, dataclasses.replace(small, log_interval=4))
    with (folder / "metrics.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    all_steps, computed = (float(row[f"r1_penalty_mean_{kind}_steps"]) for kind in ("all", "computed"))
    assert computed == pytest.approx(2 * all_steps) and computed > 0


@pytest.mark.parametrize("balance, d_moves, g_moves", [("ratio", False, True), ("threshold", False, True)])
def test_balance_holds_the_discriminator_back(small, balance, d_moves, g_moves):
    recipe = make(small, balance=balance, balance_threshold=1e9, balance_ratio=(1, 2))
    step = 1  # the second of a cycle is G's alone
    before, before_d = weights_of(recipe, *TRANSLATING), weights_of(recipe, "discriminator")
    terms = recipe.train_step(one_batch(recipe), step, generator())
    assert terms["D_updated"] == 0
    assert bool(moved(recipe, before_d)) == d_moves and bool(moved(recipe, before)) == g_moves


def test_an_update_of_d_counts_where_one_of_its_halves_does(small, monkeypatch):
    recipe = make(small, balance="threshold", balance_threshold=0.0)
    judge, seen = recipe.balance.discriminator_loss, []

    def only_the_second(*args):
        judged = judge(*args)
        seen.append(judged)
        return judged._replace(applies=torch.tensor(len(seen) == 2))

    monkeypatch.setattr(recipe.balance, "discriminator_loss", only_the_second)
    before = weights_of(recipe, "discriminator")
    assert recipe.train_step(one_batch(recipe), 0, generator())["D_updated"] == 1
    assert len(seen) == 2 and moved(recipe, before)


def test_the_generator_waits_for_its_turn(small):
    recipe = make(small, balance="ratio", balance_ratio=(2, 1))
    before = weights_of(recipe, *TRANSLATING)
    recipe.train_step(one_batch(recipe), 1, generator())
    assert not moved(recipe, before)


@pytest.mark.parametrize("data", ["small", "small_latents"])
def test_nothing_reads_the_device_in_a_step(data, request):
    recipe = make(request.getfixturevalue(data), balance="adaptive")
    batch = one_batch(recipe)
    recipe.train_step(batch, 0, generator())
    with HostReads() as mode:
        recipe.train_step(batch, 2, generator())
    assert not mode.names


def test_whole_runs_resume_to_the_bit(small):
    assert_resume_is_bit_exact(StarGANv2, dataclasses.replace(small, crop="random"), at=3, steps=6)


def test_whole_runs_on_latents_resume_to_the_bit(small_latents):
    assert_resume_is_bit_exact(StarGANv2, small_latents, at=3, steps=6)


def test_two_processes_equal_one(small, tmp_path):
    # Half the average of a bound is not the bound of the average: the margin is out of the way.
    assert_two_processes_equal_one(StarGANv2, dataclasses.replace(small, ds_margin=9.0), tmp_path)


@pytest.mark.parametrize("data", ["small", "small_latents"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_runs_on_images_and_on_latents(data, precision, request):
    config = dataclasses.replace(request.getfixturevalue(data), precision=precision)
    folder = train(StarGANv2, config)
    (row,) = table(folder / "evaluation.csv")
    assert row.keys() == {
        "step", "classifier_acc", "translated_acc_latent", "translated_acc_reference", "cycle_l1",
        "pairwise_l1_latent", "pairwise_l1_reference",
    }  # fmt: skip
    assert (folder / "samples" / "rows.txt").read_text().split() == [
        "source", "reference", "by_reference", "by_reference_and_back", "by_latent_1", "by_latent_2",
        "by_latent_3",
    ]  # fmt: skip


@pytest.mark.parametrize("preset", [PAPER, LATENTS, DEMO])
def test_every_preset_s_options_run(small, preset, tmp_path):
    names = ("train_path", "val_path", "runs_path", "accelerator", "base_width", "max_width", "batch_size")
    changes = {name: getattr(small, name) for name in (*names, "mapping_width")}
    latents = preset.data == "latents"
    size = 32 if latents else 16
    if latents:
        changes["train_path"] = str(tmp_path / "latents")
        for name in ("a", "b"):
            (tmp_path / "latents" / name).mkdir(parents=True)
            for index in range(3):
                torch.save(torch.randn(4, 32, 32), tmp_path / "latents" / name / f"{index}.pt")
    recipe = make(preset, image_size=size, num_epochs=0, **changes)
    for step in (0, 1):
        for name, term in recipe.train_step(one_batch(recipe), step, generator(step)).items():
            assert math.isfinite(float(getattr(term, "total", term))), name


def test_presets_are_registered():
    recipe = load_recipe("starganv2")
    assert recipe is StarGANv2 and set(PRESETS) == {"paper", "latents", "demo"}
    assert (LATENTS.shape, PAPER.shape) == ((4, 32, 32), (3, 256, 256))


def test_the_classifier_is_always_the_same_and_leaves_the_random_state_alone(small):
    recipe = make(small, classifier_steps=40)
    before = torch.get_rng_state()
    first = recipe.classifier
    assert torch.equal(torch.get_rng_state(), before)
    assert first is recipe.classifier
    arguments = (recipe.train_domains, recipe.as_trained, 3, 40, torch.device("cpu"))
    with torch.no_grad():  # as an evaluation is
        again = train_classifier(*arguments)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    images = [recipe.held_out(domain, 4) for domain in (0, 1)]
    found = evaluate_translations(recipe.translator, images, first, small.z_dim, 2)
    assert found["classifier_acc"] == 1


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
    found = evaluate_translations(translator, images, Sign(), z_dim=4, draws=3)
    assert found["classifier_acc"] == found["translated_acc_latent"] == found["translated_acc_reference"] == 1
    assert found["pairwise_l1_reference"] == 0 and 0 < found["pairwise_l1_latent"] < 0.05
    # -0.5 + 1 - 1: back at the start, but for the noise.
    assert found["cycle_l1"] < 0.02
    found = evaluate_translations(
        translator, images, Sign(), 4, 2, lambda a, b: torch.tensor(0.25, device=a.device)
    )
    assert found["lpips_latent"] == found["lpips_reference"] == 0.25
