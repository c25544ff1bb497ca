"""StarGAN v2's step against its formulas, its schedules, its presets."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from fastgan.losses import r1_penalty_of
from fastgan.recipes import load_recipe
from fastgan.recipes.starganv2.config import DEMO, LATENTS, PAPER, PRESETS
from fastgan.recipes.starganv2.recipe import StarGANv2
from fastgan.training.processes.runtime import Runtime
from tests.recipes.steps import generator, one_batch, terms_of
from tests.training.test_loop import HostReads

TRANSLATING = ("generator", "mapping_network", "style_encoder")


def make(config, **changes):
    config = dataclasses.replace(config, **changes)
    torch.manual_seed(0)
    return StarGANv2(config, Runtime(config))


def weights_of(recipe, *names):
    return {
        f"{name}.{key}": p.detach().clone()
        for name in names
        for key, p in recipe.networks[name].named_parameters()
    }


def moved(recipe, before):
    after = weights_of(recipe, *{name.split(".")[0] for name in before})
    return {name for name in before if not torch.equal(before[name], after[name])}


def guides_of(recipe, batch):
    """The guides of a step whose draws come from :func:`generator`."""
    draws = generator()
    return {"ref": (batch.x_ref, batch.x_ref2), "lat": (recipe.noise(draws), recipe.noise(draws))}


@pytest.mark.parametrize("adversarial", ["hinge", "nonsaturating", "bce", "lsgan"])
def test_each_step_moves_its_own_networks_and_no_other(domains_config, adversarial):
    recipe = make(domains_config, adversarial=adversarial)
    batch = one_batch(recipe)
    guides = guides_of(recipe, batch)
    styles, fakes = recipe.translate(batch, guides)
    before, before_d = weights_of(recipe, *TRANSLATING), weights_of(recipe, "discriminator")
    recipe.discriminator_step(batch, guides, fakes.detach(), 0)
    # Within the margins the hinge loss pulls reals up as hard as fakes down: the last bias stays.
    assert moved(recipe, before_d) >= before_d.keys() - {"discriminator.heads.bias"}
    assert not moved(recipe, before)
    assert all(p.grad is None for name in TRANSLATING for p in recipe.networks[name].parameters())
    before_d = weights_of(recipe, "discriminator")
    gradients = [p.grad.clone() for p in recipe.discriminator.parameters()]
    recipe.generator_step(batch, guides, styles, fakes, 0)
    assert moved(recipe, before) == before.keys()
    assert not moved(recipe, before_d)
    for parameter, gradient in zip(recipe.discriminator.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient), "G's step reached D"


def test_the_mapping_network_has_its_own_learning_rate(domains_config):
    # Adam's first step is as large as its learning rate, whatever the gradient.
    recipe = make(domains_config, lr=0.01, lr_mapping=0.0001, weight_decay=0.0)
    before = weights_of(recipe, *TRANSLATING)
    recipe.train_step(one_batch(recipe), 0, generator())
    after = weights_of(recipe, *TRANSLATING)
    largest = {
        name: max((after[k] - before[k]).abs().max().item() for k in before if k.startswith(name))
        for name in TRANSLATING
    }
    expected = {"generator": 0.01, "mapping_network": 0.0001, "style_encoder": 0.01}
    assert largest == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("step", [0, 1])
def test_discriminator_s_loss_is_its_formula(domains_config, step):
    recipe, twin = make(domains_config, r1_weight=0.7), make(domains_config)
    batch = one_batch(recipe)
    guides = guides_of(recipe, batch)
    fakes = recipe.translate(batch, guides)[1].detach()
    discriminator = twin.discriminator
    real = discriminator(batch.x_src, batch.y_src)
    by_reference, by_latent = (discriminator(fake, batch.y_trg) for fake in fakes.chunk(2))
    half_real = F.relu(1 - real).mean()
    ref_loss = half_real + F.relu(1 + by_reference).mean()
    lat_loss = half_real + F.relu(1 + by_latent).mean()
    penalty = r1_penalty_of(discriminator, batch.x_src, batch.y_src)
    total = 0.5 * (ref_loss + lat_loss) + (0.7 * 2 * penalty if step == 0 else 0)
    total.backward()
    terms = terms_of(recipe.discriminator_step, batch, guides, fakes, step)
    for parameter, expected in zip(
        recipe.discriminator.parameters(), discriminator.parameters(), strict=True
    ):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms["D_loss"], (0.5 * (ref_loss + lat_loss)).detach())
    torch.testing.assert_close(terms["D_ref_loss"], ref_loss.detach())
    torch.testing.assert_close(terms["D_lat_loss"], lat_loss.detach())
    torch.testing.assert_close(terms["D_fake"], torch.cat([by_reference, by_latent]).mean().detach())
    assert ("r1_penalty" in terms) == (step == 0)
    if step == 0:
        torch.testing.assert_close(terms["r1_penalty"], penalty.detach())


@pytest.mark.parametrize("w_id, ds_margin", [(0.4, 0.3), (0.0, 0.0)])
def test_generator_s_loss_is_its_formula(domains_config, w_id, ds_margin):
    weights = {"w_adv": 0.9, "w_sty": 1.1, "w_cyc": 1.2, "w_id": w_id, "w_ds": 0.5}
    recipe, twin = make(domains_config, ds_margin=ds_margin, **weights), make(domains_config)
    batch = one_batch(recipe)
    guides = guides_of(recipe, batch)
    s_trg, fakes = recipe.translate(batch, guides)

    x, y, target = batch.x_src, batch.y_src, batch.y_trg
    g, f, e, d = (twin.networks[name] for name in (*TRANSLATING, "discriminator"))
    styles = {"ref": e(batch.x_ref, target), "lat": f(guides["lat"][0], target)}
    others = {"ref": e(batch.x_ref2, target), "lat": f(guides["lat"][1], target)}
    expected = {}
    for kind, style in styles.items():
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
    weights_by_term = {"adv": 0.9, "sty": 1.1, "cyc": 1.2, "ds": -0.5, "id": w_id}
    sum(weights_by_term[name.split("_")[0]] * term for name, term in expected.items()).backward()

    terms = terms_of(recipe.generator_step, batch, guides, s_trg, fakes, 0)
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term.detach(), rtol=1e-4, atol=1e-5)
        assert terms[f"{name}_weight"].item() == pytest.approx(weights_by_term[name.split("_")[0]])
    assert ("id_loss" in terms) == bool(w_id)
    for name in TRANSLATING:
        pairs = zip(recipe.networks[name].parameters(), twin.networks[name].parameters(), strict=True)
        for parameter, required in pairs:
            torch.testing.assert_close(parameter.grad, required.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("w_id", [0.0, 0.4])
def test_in_turn_d_and_g_learn_from_noise_and_then_from_references_alone(domains_config, w_id):
    recipe, twin = (
        make(
            domains_config, updates="in_turn", adversarial="nonsaturating", w_id=w_id, ds_margin=0.0,
            r1_weight=0.5, r1_interval=1, lr=0.1, lr_mapping=0.05, weight_decay=0.01, ema_warmup=False,
        )
        for _ in range(2)
    )  # fmt: skip
    for optimizer in recipe.optimizers.values():
        for group in optimizer.param_groups:
            group["eps"] = 1.0  # so that rounding errors of small gradients stay small
    batch = one_batch(recipe)
    terms = terms_of(recipe.train_step, batch, 0, generator())

    g, f, e, d = (twin.networks[name] for name in (*TRANSLATING, "discriminator"))
    before = weights_of(twin, *TRANSLATING)
    optimizers = {
        network: torch.optim.Adam(
            network.parameters(), 0.05 if network is f else 0.1, (0.0, 0.99), eps=1.0, weight_decay=0.01
        )
        for network in (g, f, e, d)
    }

    def descend(loss, *networks):
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        for network in networks:
            optimizers[network].step()

    x, y, target = batch.x_src, batch.y_src, batch.y_trg
    guides, style_of = guides_of(twin, batch), {"lat": f, "ref": e}
    expected = {}
    for kind in ("lat", "ref"):
        fake = g(x, style_of[kind](guides[kind][0], target)).detach()
        loss = F.softplus(-d(x, y)).mean() + F.softplus(d(fake, target)).mean()
        penalty = r1_penalty_of(d, x, y)
        descend(loss + 0.5 * penalty, d)
        expected |= {f"D_{kind}_loss": loss, f"penalty_{kind}": penalty}
    for kind in ("lat", "ref"):
        style, other = (style_of[kind](guide, target) for guide in guides[kind])
        fake = g(x, style)
        kind_terms = {
            f"adv_{kind}_loss": F.softplus(-d(fake, target)).mean(),
            f"sty_{kind}_loss": (style - e(fake, target)).abs().mean(),
            f"cyc_{kind}_loss": (g(fake, e(x, y)) - x).abs().mean(),
            f"ds_{kind}_loss": (fake - g(x, other).detach()).abs().mean(),
        }
        if w_id and kind == "lat":
            kind_terms["id_loss"] = (g(x, e(x, y)) - x).abs().mean()
        signs = {"ds": -1.0, "id": w_id}
        loss = sum(signs.get(name.split("_")[0], 1.0) * term for name, term in kind_terms.items())
        descend(loss, g, f, e) if kind == "lat" else descend(loss, g)
        expected |= kind_terms

    expected["D_loss"] = (expected["D_lat_loss"] + expected["D_ref_loss"]) / 2
    penalty = (expected.pop("penalty_lat") + expected.pop("penalty_ref")) / 2
    expected["r1_penalty"] = penalty
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term.detach(), rtol=1e-4, atol=1e-5, msg=name)
    after = weights_of(twin, *TRANSLATING, "discriminator")
    actual = weights_of(recipe, *TRANSLATING, "discriminator")
    for name in after:
        torch.testing.assert_close(actual[name], after[name], rtol=1e-4, atol=1e-5, msg=name)
    for name, old in before.items():
        network, key = name.split(".", 1)
        average = dict(recipe.averages[network].named_parameters())[key]
        # One step of the average for two updates of G.
        torch.testing.assert_close(average, old.lerp(after[name], 0.1), rtol=1e-4, atol=1e-5, msg=name)
    assert [ema.num_updates for ema in recipe.emas] == [1]


def test_lambda_ds_falls_with_the_epochs(domains_config):
    recipe = make(domains_config, w_ds=2.0, ds_decay_epochs=4.0)
    per_epoch = recipe.steps_per_epoch
    assert (recipe.images_per_epoch, per_epoch) == (20, 5), "every tenth of each domain's 12 is held out: 2"
    actual = [recipe.lambda_ds((epoch - 1) * per_epoch) for epoch in (1, 2, 3, 5, 9)]
    assert actual == pytest.approx([2.0, 1.5, 1.0, 0.0, 0.0])
    assert recipe.lambda_ds(per_epoch - 1) == 2.0, "constant within an epoch"
    terms = terms_of(recipe.train_step, one_batch(recipe), 2 * per_epoch, generator())
    assert terms["lambda_ds"].item() == pytest.approx(1)
    full = make(domains_config, num_epochs=10)
    assert full.lambda_ds(5 * per_epoch) == pytest.approx(0.5)
    assert full.lambda_ds(full.num_steps) == 0


def test_no_difference_is_asked_for_when_lambda_ds_is_zero(domains_config):
    fixed, without = make(domains_config, ds_decay_epochs=1.0), make(domains_config, w_ds=0.0)
    for recipe in (fixed, without):
        recipe.train_step(one_batch(recipe), recipe.steps_per_epoch, generator())
    for a, b in zip(fixed.generator.parameters(), without.generator.parameters(), strict=True):
        assert torch.equal(a, b)


def test_terms_are_the_same_in_both_orders_of_updates_and_only_of_what_trains(domains_config):
    names = set()
    for updates in ("joint", "in_turn"):
        for changes in ({}, {"balance": "threshold"}, {"balance": "ratio", "balance_ratio": (1, 3)}):
            recipe = make(domains_config, updates=updates, r1_interval=1, budget_interval=1, **changes)
            terms = terms_of(recipe.train_step, one_batch(recipe), 0, generator())
            names.add(frozenset(terms))
            later = terms_of(recipe.train_step, one_batch(recipe), 2, generator())
            d_terms = {name for name in terms if name.startswith("D_")} | {"r1_penalty"}
            assert set(terms) - set(later) == (d_terms if "balance_ratio" in changes else set())
    assert len(names) == 1


@pytest.mark.parametrize("updates", ["joint", "in_turn"])
@pytest.mark.parametrize("balance, d_moves, g_moves", [("ratio", False, True), ("threshold", False, True)])
def test_balance_holds_the_discriminator_back(domains_config, updates, balance, d_moves, g_moves):
    recipe = make(
        domains_config, updates=updates, balance=balance, balance_threshold=1e9, balance_ratio=(1, 2)
    )
    step = 1  # in the second step of a cycle only G trains
    before, before_d = weights_of(recipe, *TRANSLATING), weights_of(recipe, "discriminator")
    terms = terms_of(recipe.train_step, one_batch(recipe), step, generator())
    assert ("D_updated" in terms) == (balance == "threshold") and terms.get("D_updated", 0) == 0
    assert bool(moved(recipe, before_d)) == d_moves and bool(moved(recipe, before)) == g_moves


def test_an_update_of_d_counts_where_one_of_its_halves_does(domains_config, monkeypatch):
    recipe = make(domains_config, balance="threshold", balance_threshold=0.0)
    discriminator_loss, decisions = recipe.balance.discriminator_loss, []

    def only_the_second(*args):
        decision = discriminator_loss(*args)
        decisions.append(decision)
        return decision._replace(applies=torch.tensor(len(decisions) == 2))

    monkeypatch.setattr(recipe.balance, "discriminator_loss", only_the_second)
    before = weights_of(recipe, "discriminator")
    assert terms_of(recipe.train_step, one_batch(recipe), 0, generator())["D_updated"] == 1
    assert len(decisions) == 2 and moved(recipe, before)


@pytest.mark.parametrize("updates", ["joint", "in_turn"])
def test_the_generator_waits_for_its_turn(domains_config, updates):
    recipe = make(domains_config, updates=updates, balance="ratio", balance_ratio=(2, 1))
    before = weights_of(recipe, *TRANSLATING)
    recipe.train_step(one_batch(recipe), 1, generator())
    assert not moved(recipe, before)
    assert recipe.emas[0].num_updates == 0


@pytest.mark.parametrize("updates", ["joint", "in_turn"])
@pytest.mark.parametrize("data", ["domains_config", "latents_config"])
def test_nothing_reads_the_device_in_a_step(data, updates, request):
    recipe = make(request.getfixturevalue(data), updates=updates, balance="adaptive")
    batch = one_batch(recipe)
    recipe.train_step(batch, 0, generator())
    with HostReads() as mode:
        recipe.train_step(batch, 2, generator())
    assert not mode.names


@pytest.mark.parametrize("preset", [PAPER, LATENTS, DEMO])
def test_every_preset_s_options_run(domains_config, preset, tmp_path):
    names = ("train_path", "val_path", "runs_path", "accelerator", "base_width", "max_width", "batch_size")
    changes = {name: getattr(domains_config, name) for name in (*names, "mapping_width")}
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
        for name, term in terms_of(recipe.train_step, one_batch(recipe), step, generator(step)).items():
            assert term.isfinite(), name


def test_the_paper_s_preset_is_that_for_afhq():
    assert (PAPER.updates, PAPER.crop) == ("in_turn", "slight")
    assert PAPER.ema_decay == 0.999 and not PAPER.ema_warmup
    assert (PAPER.w_ds, PAPER.w_sty, PAPER.w_cyc, PAPER.w_id, PAPER.ds_margin) == (2, 1, 1, 0, 0)
    assert (PAPER.adversarial, PAPER.r1_weight, PAPER.r1_interval) == ("nonsaturating", 0.5, 1)


def test_presets_are_registered():
    recipe = load_recipe("starganv2")
    assert recipe is StarGANv2 and set(PRESETS) == {"paper", "latents", "demo"}
    assert (LATENTS.shape, PAPER.shape) == ((4, 32, 32), (3, 256, 256))
