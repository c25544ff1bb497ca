"""EnhanceNet's step: each variant's losses against their formulas, schedules, logged terms."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fastgan.losses import perceptual
from fastgan.losses.perceptual import gram_matrix
from fastgan.recipes.enhancenet.networks import bicubic_upscale, low_resolution
from tests.recipes.enhancenet_steps import make
from tests.recipes.steps import generator, moved, one_batch, reports_of, terms_of, weights_of
from tests.training.test_loop import HostReads

LOSSES = {
    "E": {"mse_loss"},
    "P": {"perceptual_loss"},
    "PA": {"perceptual_loss", "G_loss"},
    "PAT": {"perceptual_loss", "texture_loss", "G_loss"},
}


# --- losses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", LOSSES)
def test_every_variant_has_its_losses_with_their_weights(tiny, vgg, variant):
    recipe = make(tiny, variant=variant)
    terms = terms_of(recipe.train_step, one_batch(recipe), 0, generator())
    losses = {name for name in terms if name.endswith("_loss") and not name.startswith(("share_", "cosine_"))}
    assert losses - {"D_loss"} == LOSSES[variant]
    assert {name for name in terms if name.startswith("share_")} == {f"share_{n}" for n in LOSSES[variant]}
    for name in LOSSES[variant]:
        expected = {"PA": 1.0, "PAT": 2.0}[variant] if name == "G_loss" else 1.0
        assert terms[f"{name}_weight"] == expected
    assert ("D_loss" in terms) == (variant in ("PA", "PAT")) == ("discriminator" in recipe.networks)


def test_e_is_the_mean_squared_error_of_what_was_upscaled(tiny):
    recipe = make(tiny)
    original = one_batch(recipe)
    terms = terms_of(recipe.train_step, original, 0, generator())
    # Before the first step G gives the bicubic image.
    error = F.mse_loss(bicubic_upscale(low_resolution(original, 4), 4), original)
    assert terms["mse_loss"].item() == pytest.approx(error.item(), rel=1e-5)
    assert terms["psnr"].item() == pytest.approx(-10 * error.log10().item(), rel=1e-5)


@pytest.mark.parametrize("normalized", [False, True])
def test_pat_is_the_papers_formula(tiny, vgg, normalized):
    recipe = make(tiny, variant="PAT", normalize_features=normalized)
    original = one_batch(recipe)
    upscaled = recipe.upscale(original)
    terms = terms_of(recipe.generator_step, original, upscaled)
    upscaled = upscaled.detach()
    samples = torch.stack([torch.from_numpy(recipe.train_images.sample(k)) for k in range(16)])
    samples = samples.permute(0, 3, 1, 2).float() / 255

    def features(image, layer):
        loss = perceptual.PerceptualLoss([layer], network="vgg19", value_range=(0, 1))
        mean = next(loss.feature_maps(samples)).mean() if normalized else 1
        return next(loss.feature_maps(image)) / mean

    with torch.no_grad():
        p = sum(
            weight * F.mse_loss(features(upscaled, layer), features(original, layer))
            for layer, weight in (("pool2", 0.2), ("pool5", 0.02))
        )
        t = 0
        for layer, weight in (("relu1_1", 3e-7), ("relu2_1", 1e-6), ("relu3_1", 1e-6)):
            # Gram matrices without normalization, as in the paper.
            grams = []
            for image in (upscaled, original):
                maps = features(image, layer)
                grams.append(gram_matrix(maps, 16) * maps.shape[1] * 16 * 16)
            t = t + weight * F.mse_loss(*grams)
    assert terms["perceptual_loss"].item() == pytest.approx(p.item(), rel=1e-3)
    assert terms["texture_loss"].item() == pytest.approx(t.item(), rel=2e-3)
    logits = recipe.discriminator(upscaled)
    assert terms["G_loss"].item() == pytest.approx(F.softplus(-logits).mean().item(), rel=1e-5)


@pytest.mark.parametrize("adversarial", ["bce", "lsgan"])
@pytest.mark.parametrize("changes, factor", [({}, 1), ({"d_loss_weight": 3.0}, 3)])
def test_d_minimizes_its_loss_times_a_factor(tiny, vgg, adversarial, changes, factor):
    recipe = make(tiny, variant="PA", adversarial=adversarial, balance="every_step", **changes)
    losses = []
    recipe.update = lambda name, loss, applies=None: losses.append((name, loss.item()))
    original = one_batch(recipe)
    upscaled = recipe.upscale(original).detach()
    terms = terms_of(recipe.discriminator_step, original, upscaled)
    with torch.no_grad():
        real, fake = recipe.discriminator(original), recipe.discriminator(upscaled)
    if adversarial == "bce":
        expected = F.softplus(-real).mean() + F.softplus(fake).mean()
    else:
        expected = ((real - 1).square().mean() + fake.square().mean()) / 2
    assert terms["D_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses == [("discriminator", pytest.approx(factor * expected.item(), rel=1e-5))]


def test_crops_are_turned_in_all_eight_ways(tiny):
    recipe = make(tiny, turn=True)
    image = torch.rand(1, 3, 8, 8)
    turned = recipe.turned(image.expand(64, -1, -1, -1), generator())
    orientations = [torch.rot90(image, k, (2, 3)) for k in range(4)]
    orientations += [orientation.flip(3) for orientation in orientations]
    drawn = {
        k for one in turned for k, orientation in enumerate(orientations) if torch.equal(one, orientation[0])
    }
    assert len(drawn) == 4, "the other four are the mirrored ones of the data"
    assert all(any(torch.equal(one, orientation[0]) for orientation in orientations) for one in turned)
    assert torch.equal(turned, recipe.turned(image.expand(64, -1, -1, -1), generator()))


# --- who learns -------------------------------------------------------------------------------------------


def test_each_step_moves_its_own_network_and_no_other(tiny, vgg):
    recipe = make(tiny, variant="PAT", balance="every_step")
    original = one_batch(recipe)
    upscaled = recipe.upscale(original)
    g, d = weights_of(recipe.generator), weights_of(recipe.discriminator)
    recipe.discriminator_step(original, upscaled.detach())
    assert moved(d, recipe.discriminator) == d.keys() and not moved(g, recipe.generator)
    d = weights_of(recipe.discriminator)
    gradients = [p.grad.clone() for p in recipe.discriminator.parameters()]
    recipe.generator_step(original, upscaled)
    # The last layer starts at zero: the layers before it have no gradient until it has changed.
    assert moved(g, recipe.generator) == {"residual.weight", "residual.bias"}
    assert not moved(d, recipe.discriminator)
    for parameter, gradient in zip(recipe.discriminator.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient), "G's step reached D"
    recipe.train_step(original, 1, generator())
    assert moved(g, recipe.generator) == g.keys()
    assert all(p.grad is None for p in recipe.perceptual.parameters())


@pytest.mark.parametrize(("threshold", "moves"), [(0.0, True), (100.0, False)])
def test_threshold_is_the_default_and_stops_a_discriminator_that_wins(tiny, vgg, threshold, moves):
    recipe = make(tiny, variant="PA", balance_threshold=threshold)
    assert (recipe.config.balance, tiny.balance_threshold) == ("threshold", 0.3)
    before = weights_of(recipe.discriminator)
    terms = terms_of(recipe.train_step, one_batch(recipe), 0, generator())
    assert bool(moved(before, recipe.discriminator)) is moves
    assert terms["D_updated"] == float(moves)


def test_ratio_trains_each_in_its_steps_and_reports_those_alone(tiny, vgg):
    recipe = make(tiny, variant="PA", balance="ratio", balance_ratio=(1, 2))
    original = one_batch(recipe)
    updates = {"generator": "", "discriminator": ""}
    for step in range(4):
        before = {name: weights_of(recipe.networks[name]) for name in updates}
        terms = terms_of(recipe.train_step, original, step, generator(step))
        assert "G_loss" in terms and ("D_loss" in terms) == (step % 2 == 0)
        for name in updates:
            updates[name] += str(int(bool(moved(before[name], recipe.networks[name]))))
    assert updates == {"generator": "1111", "discriminator": "1010"}
    recipe = make(tiny, variant="PA", balance="ratio", balance_ratio=(2, 1))
    before = weights_of(recipe.generator)
    terms = terms_of(recipe.train_step, original, 1, generator())
    assert not moved(before, recipe.generator) and "G_loss" not in terms and terms["D_loss"].isfinite()


def test_what_d_says_is_logged_before_and_after_its_step(tiny, vgg):
    recipe = make(tiny, variant="PA", balance="every_step")
    original = one_batch(recipe)
    with torch.no_grad():
        upscaled = recipe.upscale(original)
        before = [recipe.discriminator(x).mean().item() for x in (original, upscaled)]
    terms = terms_of(recipe.train_step, original, 0, generator())
    with torch.no_grad():
        after = [recipe.discriminator(x) for x in (original, upscaled)]
    for name, values in (("real", after[0]), ("fake", after[1])):
        assert terms[f"D_{name}_after"].item() == pytest.approx(values.mean().item(), rel=1e-4)
        probability = values.sigmoid().mean().item()
        assert terms[f"D_probability_{name}_after"].item() == pytest.approx(probability, rel=1e-4)
    assert [terms["D_real"].item(), terms["D_fake"].item()] == pytest.approx(before, rel=1e-4)
    assert terms["D_real_after"] - terms["D_fake_after"] > terms["D_real"] - terms["D_fake"]
    quiet = make(tiny, variant="PA", log_d_after=False)
    assert not any("after" in name for name in reports_of(quiet.train_step, original, 0, generator()))


def test_learning_rates_stay_and_fall_to_a_hundredth(tiny, vgg):
    recipe = make(tiny, variant="PA", lr=0.4, lr_d=0.2, num_steps=100, lr_decay_steps=40)
    for step, factor in ((0, 1), (60, 1), (80, 0.505), (100, 0.01)):
        recipe._set_learning_rates(step)
        actual = [recipe.optimizers[name].param_groups[0]["lr"] for name in ("generator", "discriminator")]
        assert actual == pytest.approx([0.4 * factor, 0.2 * factor])


def test_a_step_never_waits_for_the_device(tiny, vgg):
    for changes in ({}, {"variant": "PAT"}, {"variant": "PA", "balance": "adaptive", "adversarial": "lsgan"}):
        recipe = make(tiny, **changes)
        if recipe.perceptual is not None:
            recipe.perceptual._range_check._decided = (
                True  # it looks at its first images, on a GPU without waiting
            )
        original = one_batch(recipe)
        # Without the optimizers, which read their step counters on the CPU.
        recipe.update = lambda name, loss, applies=None: loss.backward()
        with HostReads() as reads:
            for step in range(2):
                recipe.train_step(original, step, generator())
        assert reads.names == []
