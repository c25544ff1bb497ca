"""zi2zi's step, schedules and complete runs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from fastgan.losses import PerceptualLoss, _backbones
from fastgan.recipes.zi2zi.config import DEMO, PAPER, PRESETS
from fastgan.recipes.zi2zi.recipe import Zi2Zi
from fastgan.training.batch_norm import BatchNorm2d
from fastgan.training.loop import train
from fastgan.training.processes.runtime import Runtime
from tests.losses.backbones import install_backbone
from tests.recipes.fonts import CHARACTERS, small_config, small_glyphs
from tests.recipes.runs import OneAndTwo, assert_resume_is_bit_exact
from tests.recipes.steps import count_updates, moved, one_batch, reports_of, terms_of, weights_of
from tests.training.test_loop import HostReads


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    return small_glyphs(tmp_path_factory.mktemp("glyphs") / "pairs")


@pytest.fixture
def small(glyphs, tmp_path):
    return small_config(glyphs, tmp_path / "runs")


def make(config, **changes):
    config = dataclasses.replace(config, **changes)
    torch.manual_seed(0)
    return Zi2Zi(config, Runtime(config))


def no_generator():
    return torch.Generator()


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("const_of", ["real", "fake"])
def test_each_step_moves_its_own_network_and_no_other(small, norm, spectral, const_of):
    recipe = make(small, norm=norm, d_spectral_norm=spectral, const_of=const_of, self_attention=True)
    batch = one_batch(recipe)
    before_g, before_d = weights_of(recipe.generator), weights_of(recipe.discriminator)
    fake, feature = recipe.translate(batch)
    recipe.discriminator_step(batch, fake.detach())
    assert moved(before_d, recipe.discriminator) == before_d.keys()
    assert not moved(before_g, recipe.generator)
    before_d = weights_of(recipe.discriminator)
    gradients = [p.grad.clone() for p in recipe.discriminator.parameters()]
    recipe.generator_step(batch, fake, feature, recipe.weights(0), 0)
    # Attention's gamma starts at 0, so nothing behind it has a gradient.
    expected = {name for name in before_g if name not in ("attention.project.weight", "attention.out.weight")}
    assert moved(before_g, recipe.generator) == expected
    assert not moved(before_d, recipe.discriminator)
    for parameter, gradient in zip(recipe.discriminator.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient), "G's step reached D"


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


@pytest.mark.parametrize("const_of", ["real", "fake"])
def test_losses_are_the_formulas(small, const_of, monkeypatch):
    recipe = make(small, const_of=const_of, norm="instance", category_weight=0.7, l1_weight=3.0)
    batch, (g, d) = one_batch(recipe), (recipe.generator, recipe.discriminator)
    losses = []
    monkeypatch.setattr(recipe, "update", lambda name, loss, applies=None: losses.append((name, loss.item())))
    terms = terms_of(recipe.train_step, batch, 0, no_generator())
    with torch.no_grad():
        fake = g(batch.source, batch.category)
        one_hot = F.one_hot(batch.category, 2).float()
        (real_logits, of_real), (fake_logits, of_fake) = d(batch.source, batch.target), d(batch.source, fake)
        category_real = F.binary_cross_entropy_with_logits(of_real, one_hot)
        category_fake = F.binary_cross_entropy_with_logits(of_fake, one_hot)
        seen_again = batch.target if const_of == "real" else fake
        expected = {
            "D_loss": bce(real_logits, 1.0) + bce(fake_logits, 0.0),
            "D_category_loss": (category_real + category_fake) / 2,
            "G_loss": bce(fake_logits, 1.0),
            "category_loss": category_fake,
            "l1_loss": (fake - batch.target).abs().mean(),
            "const_loss": (g.encode(batch.source) - g.encode(seen_again)).square().mean(),
        }
    g_terms = ("G_loss", "category_loss", "l1_loss", "const_loss")
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=lambda m, n=name: f"{n}: {m}")
    for name in ("category_loss_weight", "D_category_loss_weight"):
        assert terms[name].item() == pytest.approx(0.7)
    assert (terms["l1_loss_weight"], terms["const_loss_weight"], terms["G_loss_weight"]) == (3.0, 5.0, 1.0)
    total_d = expected["D_loss"] + 0.7 * expected["D_category_loss"]
    total_g = sum(terms[f"{name}_weight"] * expected[name] for name in g_terms)
    assert [name for name, _ in losses] == ["discriminator", "generator"]
    assert [value for _, value in losses] == pytest.approx([total_d.item(), total_g.item()], rel=1e-5)


def test_perceptual_loss_is_vgg_s_first_two_stages(small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
        with pytest.raises(
            FileNotFoundError,
            match="^--perceptual_weight 0.02: .*vgg16.*; or train without it: --perceptual_weight 0",
        ):
            make(small, perceptual_weight=0.02)
    install_backbone(monkeypatch, tmp_path, "vgg16")
    recipe = make(small, perceptual_weight=0.02, batch_size=2)
    assert _backbones.FILES["vgg16"].startswith("vgg16-")
    batch = one_batch(recipe)
    fake, feature = recipe.translate(batch)
    terms = terms_of(recipe.generator_step, batch, fake, feature, recipe.weights(0), 0)
    expected = PerceptualLoss(("relu1_2", "relu2_2"))(fake, batch.target)
    torch.testing.assert_close(terms["perceptual_loss"], expected.detach())
    assert recipe.weights(0)["perceptual_loss"] == 0.02


def test_running_statistics_are_of_sources(small):
    recipe = make(small)
    batch = one_batch(recipe)
    twin = make(small)
    twin.translate(batch)
    fake, _ = recipe.translate(batch)
    recipe.target_features(batch, fake)
    for name, buffer in twin.generator.named_buffers():
        if "running" in name:
            assert torch.equal(recipe.generator.get_buffer(name), buffer)
    assert any(isinstance(module, BatchNorm2d) for module in recipe.generator.modules())


def rate_at(recipe, step):
    recipe._set_learning_rate(step)
    (rate,) = {optimizer.param_groups[0]["lr"] for optimizer in recipe.optimizers.values()}
    return rate


def test_schedules(small):
    recipe = make(
        small, lr=0.008, schedule=2, lr_floor=0.001, l1_ramp_epochs=2.0, const_ramp_epochs=4.0, batch_size=6
    )
    per_epoch = recipe.steps_per_epoch
    assert per_epoch == len(recipe.train_pairs) // 6
    rates = [rate_at(recipe, epoch * per_epoch) for epoch in range(9)]
    assert rates == [0.008, 0.008, 0.004, 0.004, 0.002, 0.002, 0.001, 0.001, 0.001]
    actual = [recipe.weights(epoch * per_epoch) for epoch in (0, 1, 2, 4, 5)]
    assert [w["l1_loss"] for w in actual] == [0, 50, 100, 100, 100]
    assert [w["const_loss"] for w in actual] == [0, 1.25, 2.5, 5, 5]
    recipe = make(small, schedule=0)
    assert rate_at(recipe, 10**6) == small.lr


def test_second_update_of_the_generator(small):
    recipe = make(small, g_updates=2)
    first, second = reports_of(recipe.train_step, one_batch(recipe), 0, no_generator())["l1_loss"]
    assert second < first, "the second begins where the first ended"


@pytest.mark.parametrize("ratio, d_updates, g_updates", [((2, 1), 4, 2), ((1, 2), 2, 4)])
def test_balance_by_ratio(small, ratio, d_updates, g_updates):
    recipe = make(small, balance="ratio", balance_ratio=ratio)
    updates = count_updates(recipe, 4, no_generator)
    assert updates == {"D_updated": d_updates, "G_loss": g_updates}


def test_nothing_reads_the_device_in_a_step(small, monkeypatch):
    # On the CPU, where checks do not synchronize, the labels are checked.
    monkeypatch.setattr("fastgan.compat._labels.may_look_at", lambda tensor: False)
    recipe = make(small, balance="adaptive", dropout=0.5, g_updates=2, self_attention=True)
    batch = one_batch(recipe)
    recipe.train_step(batch, 0, no_generator())
    with HostReads() as mode:
        recipe.train_step(batch, 1, no_generator())
    assert not mode.names


def test_it_learns_a_style(small):
    recipe = make(small, batch_size=8, lr=0.002, width=8)
    recipe.generator.eval()
    first = recipe.evaluate()
    recipe.generator.train()
    with torch.enable_grad():
        for step, batch in zip(range(60), recipe.batches(0), strict=False):
            recipe.train_step(batch, step, no_generator())
    recipe.averages["generator"].eval()
    with torch.no_grad():
        figures = recipe.evaluate()
    assert figures["l1_of_source"] == first["l1_of_source"] > 0.05
    assert (
        figures["l1"] < 0.5 * first["l1"] and figures["l1_ratio"] == figures["l1"] / figures["l1_of_source"]
    )


def test_held_out_characters_are_evaluated(small):
    recipe = make(small, held_out=0.2)
    recipe.generator.eval()
    recipe.averages["generator"].eval()
    trained, held_out = ({path.stem.split("_")[1] for path in pairs.files} for pairs in (
        recipe.train_pairs, recipe.held_out_pairs
    ))  # fmt: skip
    assert not trained & held_out and len(trained | held_out) == len(CHARACTERS) and len(held_out) == 5
    rows = recipe.samples(0)
    assert [*rows] == ["source", "generated", "target"] and len(rows["source"]) == 10
    figures = recipe.evaluate()
    batch = recipe.held_out(100)
    ratios = [
        F.l1_loss(recipe.draw(batch)[batch.category == k], batch.target[batch.category == k])
        / F.l1_loss(batch.source[batch.category == k], batch.target[batch.category == k])
        for k in (0, 1)
    ]
    assert figures["l1_ratio_worst"] == pytest.approx(max(ratios).item(), rel=1e-5)
    assert min(ratios) <= figures["l1_ratio"] <= max(ratios)
    assert min(row.min() for row in rows.values()) >= 0 and max(row.max() for row in rows.values()) <= 1


def test_whole_runs_resume_to_the_bit(small):
    config = dataclasses.replace(small, dropout=0.5, augment=0.2, g_updates=2, schedule=1, l1_ramp_epochs=0.5)
    assert_resume_is_bit_exact(Zi2Zi, config, at=3, steps=6)


@pytest.fixture(scope="module")
def one_and_two(glyphs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    small = small_config(glyphs, folder)
    batch = dataclasses.replace(small, batch_size=8, d_spectral_norm=True, const_of="fake")
    return OneAndTwo(Zi2Zi, {"instance": dataclasses.replace(small, norm="instance"), "batch": batch}, folder)


def test_two_processes_equal_one(one_and_two):
    one_and_two.assert_equal("instance")


def test_two_processes_equal_one_with_batch_normalization(one_and_two):
    one_and_two.assert_equal("batch")


def test_bad_input(small):
    for changes, message in (
        ({"image_size": 100}, "image_size must be a multiple of 8, got 100"),
        ({"image_size": 16}, "image_size must be at least 32, got 16"),
        ({"downs": 6}, "got downs 6"),
        ({"channels": 2}, "channels must be one of 1, 3, got 2"),
        ({"norm": "layer"}, "norm must be one of batch, instance, got 'layer'"),
        ({"const_of": "source"}, "const_of must be one of real, fake"),
        ({"source_side": "top"}, "source_side must be one of left, right"),
        ({"held_out": 1.0}, r"held_out must lie in \(0, 1\), got 1.0"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"lr_floor": 1.0}, "lr_floor must lie in .*got 1.0"),
        ({"l1_weight": -1.0}, "l1_weight must not be negative, got -1.0"),
        ({"g_updates": 0}, "g_updates must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(small, **changes)
    with pytest.raises(ValueError, match="category_num must be at least 2, .*got 1"):
        make(small, category_num=1)


def test_presets(glyphs, tmp_path):
    assert set(PRESETS) == {"paper", "demo"}
    assert (PAPER.const_weight, PAPER.const_of, PAPER.g_updates, PAPER.category_num) == (15, "fake", 2, 40)
    assert DEMO.train_path == "builtin:glyphs"
    for preset in PRESETS.values():
        config = dataclasses.replace(
            preset, train_path=str(glyphs), runs_path=str(tmp_path), image_size=32, width=2, d_width=2,
            batch_size=8, num_epochs=1, accelerator="cpu",
        )  # fmt: skip
        folder = train(Zi2Zi, config)
        assert (folder / "glyphs.json").exists()
