"""EnhanceNet's step: each variant's losses against their formulas, who learns when, what is logged."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fastgan.losses import _backbones, perceptual
from fastgan.losses.perceptual import gram_matrix, layer_index
from fastgan.models.enhancenet import bicubic_upscale, low_resolution
from fastgan.recipes.enhancenet import EnhanceNet
from fastgan.recipes.enhancenet_config import DEMO, PAPER, EnhanceNetConfig
from fastgan.recipes.enhancenet_evaluation import evaluate_upscaling, fixed_cuts, read_held_out
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.loop import train
from fastgan.training.runtime import Runtime
from tests.losses.backbones import install_backbone
from tests.recipes.runs import assert_resume_is_bit_exact, assert_two_processes_equal_one
from tests.training.test_loop import HostReads

LOSSES = {
    "E": {"mse_loss"},
    "P": {"perceptual_loss"},
    "PA": {"perceptual_loss", "G_loss"},
    "PAT": {"perceptual_loss", "texture_loss", "G_loss"},
}


@pytest.fixture(scope="module")
def vgg_weights():
    """Random weights of VGG19's convolutions."""
    features = perceptual._features("vgg19", 37, None, 3)
    return {f"features.{name}": value for name, value in features.state_dict().items()}


@pytest.fixture
def vgg(monkeypatch, vgg_weights):
    monkeypatch.setattr(perceptual, "load_weights", lambda network, loss: vgg_weights)


@pytest.fixture
def tiny(photo_folder, tmp_path):
    return EnhanceNetConfig(
        train_path=str(photo_folder), runs_path=str(tmp_path / "runs"), crop=64, width=4, blocks=2,
        d_channels=(4, 8, 8), d_dense=8, batch_size=2, num_steps=4, log_interval=2, sample_interval=4,
        eval_interval=4, checkpoint_interval=4, val_images=2, accelerator="cpu", lr=0.001, lr_d=0.001,
        ema_decay=0.9,
    )  # fmt: skip


def make(config, **changes):
    config = dataclasses.replace(config, **changes)
    torch.manual_seed(0)
    return EnhanceNet(config, Runtime(config))


def one_batch(recipe):
    return next(recipe.batches(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weights_of(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def moved(before, network):
    return {n for n, p in network.named_parameters() if not torch.equal(before[n], p)}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- losses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", LOSSES)
def test_every_variant_has_its_losses_with_their_weights(tiny, vgg, variant):
    recipe = make(tiny, variant=variant)
    terms = recipe.train_step(one_batch(recipe), 0, generator())
    assert {name for name in terms if name.endswith("_loss")} - {"D_loss"} == LOSSES[variant]
    for name in LOSSES[variant]:
        expected = {"PA": 1.0, "PAT": 2.0}[variant] if name == "G_loss" else 1.0
        assert terms[f"{name}_weight"] == expected
    assert ("D_loss" in terms) == (variant in ("PA", "PAT")) == ("discriminator" in recipe.networks)


def test_e_is_the_mean_squared_error_of_what_was_upscaled(tiny):
    recipe = make(tiny)
    original = one_batch(recipe)
    terms = recipe.train_step(original, 0, generator())
    # Before the first step G gives the bicubic image.
    error = F.mse_loss(bicubic_upscale(low_resolution(original, 4), 4), original)
    assert terms["mse_loss"].item() == pytest.approx(error.item(), rel=1e-5)
    assert terms["psnr"].item() == pytest.approx(-10 * error.log10().item(), rel=1e-5)


@pytest.mark.parametrize("normalized", [False, True])
def test_pat_is_the_papers_formula(tiny, vgg, normalized):
    recipe = make(tiny, variant="PAT", normalize_features=normalized)
    original = one_batch(recipe)
    upscaled = recipe.upscale(original).detach()
    terms = recipe.generator_step(original, upscaled)
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
            # Gram matrices that nothing is divided by, as the paper has them.
            grams = []
            for image in (upscaled, original):
                found = features(image, layer)
                grams.append(gram_matrix(found, 16) * found.shape[1] * 16 * 16)
            t = t + weight * F.mse_loss(*grams)
    assert terms["perceptual_loss"].item() == pytest.approx(p.item(), rel=1e-3)
    assert terms["texture_loss"].item() == pytest.approx(t.item(), rel=2e-3)
    logits = recipe.discriminator(upscaled)
    assert terms["G_loss"].item() == pytest.approx(F.softplus(-logits).mean().item(), rel=1e-5)


@pytest.mark.parametrize("adversarial", ["bce", "lsgan"])
def test_d_minimizes_its_loss_times_a_factor(tiny, vgg, adversarial):
    recipe = make(tiny, variant="PA", adversarial=adversarial, balance="every_step", d_loss_weight=3.0)
    losses = []
    recipe.update = lambda name, loss, applies=None: losses.append((name, loss.item()))
    original = one_batch(recipe)
    upscaled = recipe.upscale(original).detach()
    terms = recipe.discriminator_step(original, upscaled, 0)
    with torch.no_grad():
        real, fake = recipe.discriminator(original), recipe.discriminator(upscaled)
    if adversarial == "bce":
        expected = F.softplus(-real).mean() + F.softplus(fake).mean()
    else:
        expected = ((real - 1).square().mean() + fake.square().mean()) / 2
    assert terms["D_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses == [("discriminator", pytest.approx(3 * expected.item(), rel=1e-5))]


def test_crops_are_turned_in_all_eight_ways(tiny):
    recipe = make(tiny, turn=True)
    image = torch.rand(1, 3, 8, 8)
    turned = recipe.turned(image.expand(64, -1, -1, -1), generator())
    ways = [torch.rot90(image, k, (2, 3)) for k in range(4)]
    ways += [way.flip(3) for way in ways]
    found = {k for one in turned for k, way in enumerate(ways) if torch.equal(one, way[0])}
    assert len(found) == 4, "the other four are the mirrored ones of the data"
    assert all(any(torch.equal(one, way[0]) for way in ways) for one in turned)
    assert torch.equal(turned, recipe.turned(image.expand(64, -1, -1, -1), generator()))


# --- who learns -------------------------------------------------------------------------------------------


def test_each_step_moves_its_own_network_and_no_other(tiny, vgg):
    recipe = make(tiny, variant="PAT", balance="every_step")
    original = one_batch(recipe)
    upscaled = recipe.upscale(original)
    g, d = weights_of(recipe.generator), weights_of(recipe.discriminator)
    recipe.discriminator_step(original, upscaled.detach(), 0)
    assert moved(d, recipe.discriminator) == d.keys() and not moved(g, recipe.generator)
    d = weights_of(recipe.discriminator)
    gradients = [p.grad.clone() for p in recipe.discriminator.parameters()]
    recipe.generator_step(original, upscaled)
    # The last layer starts at zero, and what is behind it feels nothing until it has moved.
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
    terms = recipe.train_step(one_batch(recipe), 0, generator())
    assert bool(moved(before, recipe.discriminator)) is moves
    assert terms["D_updated"] == float(moves)


def test_ratio_trains_each_in_its_steps_and_logs_the_same_terms(tiny, vgg):
    recipe = make(tiny, variant="PA", balance="ratio", balance_ratio=(1, 2))
    original, names = one_batch(recipe), set()
    found = {"generator": "", "discriminator": ""}
    for step in range(4):
        before = {name: weights_of(recipe.networks[name]) for name in found}
        names.add(frozenset(recipe.train_step(original, step, generator(step))))
        for name in found:
            found[name] += str(int(bool(moved(before[name], recipe.networks[name]))))
    assert found == {"generator": "1111", "discriminator": "1010"} and len(names) == 1
    recipe = make(tiny, variant="PA", balance="ratio", balance_ratio=(2, 1))
    before = weights_of(recipe.generator)
    terms = recipe.train_step(original, 1, generator())
    assert not moved(before, recipe.generator) and terms["G_loss"].isfinite()


def test_what_d_says_is_logged_before_and_after_its_step(tiny, vgg):
    recipe = make(tiny, variant="PA", balance="every_step")
    original = one_batch(recipe)
    with torch.no_grad():
        upscaled = recipe.upscale(original)
        before = [recipe.discriminator(x).mean().item() for x in (original, upscaled)]
    terms = recipe.train_step(original, 0, generator())
    with torch.no_grad():
        after = [recipe.discriminator(x) for x in (original, upscaled)]
    for name, values in (("real", after[0]), ("fake", after[1])):
        assert terms[f"D_{name}_after"].item() == pytest.approx(values.mean().item(), rel=1e-4)
        probability = values.sigmoid().mean().item()
        assert terms[f"D_probability_{name}_after"].item() == pytest.approx(probability, rel=1e-4)
    assert [terms["D_real"].item(), terms["D_fake"].item()] == pytest.approx(before, rel=1e-4)
    assert terms["D_real_after"] - terms["D_fake_after"] > terms["D_real"] - terms["D_fake"]
    quiet = make(tiny, variant="PA", log_d_after=False)
    assert not any("after" in name for name in quiet.train_step(original, 0, generator()))


def test_learning_rates_stay_and_fall_to_a_hundredth(tiny, vgg):
    recipe = make(tiny, variant="PA", lr=0.4, lr_d=0.2, num_steps=100, lr_decay_steps=40)
    for step, factor in ((0, 1), (60, 1), (80, 0.505), (100, 0.01)):
        recipe._set_learning_rates(step)
        found = [recipe.optimizers[name].param_groups[0]["lr"] for name in ("generator", "discriminator")]
        assert found == pytest.approx([0.4 * factor, 0.2 * factor])


def test_a_step_never_waits_for_the_device(tiny, vgg):
    for changes in ({}, {"variant": "PAT"}, {"variant": "PA", "balance": "adaptive", "adversarial": "lsgan"}):
        recipe = make(tiny, **changes)
        if recipe.perceptual is not None:
            recipe.perceptual._range_check.left = 0  # looks at its first images, on a GPU without waiting
        for name in recipe.optimizers:  # Adam reads its step counter on the CPU
            recipe.optimizers[name] = torch.optim.SGD(recipe.networks[name].parameters(), lr=1e-4)
        original = one_batch(recipe)
        recipe.update = lambda name, loss, applies=None: loss.backward()
        with HostReads() as reads:
            for step in range(2):
                recipe.train_step(original, step, generator())
        assert reads.names == []


# --- whole runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4])
def test_a_run_logs_evaluates_and_shows(tiny, scale):
    folder = train(EnhanceNet, dataclasses.replace(tiny, scale=scale))
    assert set(rows(folder / "metrics.csv")[0]) == {
        "step", "mse_loss", "mse_loss_weight", "psnr", "lr", "images_per_second", "seconds_per_step",
    }  # fmt: skip
    (figures,) = rows(folder / "evaluation.csv")
    assert list(figures) == ["step", "psnr_y", "psnr_y_bicubic", "ssim_y", "ssim_y_bicubic"]
    assert (folder / "samples" / "rows.txt").read_text().split() == ["bicubic", "upscaled", "original"]
    assert Image.open(folder / "samples" / "step-00000004.png").height > 3 * 64
    assert set(load_checkpoint(folder).averages) == {"generator"}


def test_lpips_takes_part_where_its_weights_are(tiny, tmp_path, monkeypatch):
    install_backbone(monkeypatch, tmp_path / "hub", "alexnet")
    figures = make(tiny).evaluate()
    assert list(figures)[-2:] == ["lpips", "lpips_bicubic"]
    assert figures["lpips"] == pytest.approx(figures["lpips_bicubic"], rel=0.01)


def test_training_on_the_squared_error_beats_bicubic(tiny):
    recipe = make(tiny, width=8, lr=0.003, ema_decay=0.0, batch_size=4)
    stream = recipe.batches(0)
    for step in range(60):
        recipe.train_step(next(stream), step, generator())
    stream.close()
    recipe.generator.eval()
    figures = recipe.evaluate()
    assert figures["psnr_y"] > figures["psnr_y_bicubic"] + 0.05


@pytest.mark.parametrize("variant", ["E", "PAT"])
def test_resume_is_bit_exact(tiny, vgg, variant):
    assert_resume_is_bit_exact(EnhanceNet, dataclasses.replace(tiny, variant=variant), at=2, steps=4)


def test_two_processes_equal_one(tiny, tmp_path):
    assert_two_processes_equal_one(EnhanceNet, dataclasses.replace(tiny, batch_size=4, turn=True), tmp_path)


def test_bf16_trains(tiny, vgg):
    folder = train(EnhanceNet, dataclasses.replace(tiny, variant="PAT", precision="bf16-mixed", num_steps=2))
    assert load_checkpoint(folder).networks["generator"]["first.weight"].dtype == torch.float32
    assert load_checkpoint(folder).networks.keys() == {"generator", "discriminator"}


@pytest.mark.parametrize("preset", [PAPER, DEMO])
def test_presets_run(tiny, vgg, preset):
    small = {
        name: getattr(tiny, name)
        for name in ("train_path", "val_path", "runs_path", "width", "blocks", "d_channels", "d_dense",
                     "batch_size", "val_images", "accelerator", "workers")
    }  # fmt: skip
    changes = small | {"crop": 64, "num_steps": 1, "lr_decay_steps": 0}
    assert rows(train(EnhanceNet, dataclasses.replace(preset, **changes)) / "evaluation.csv")


def test_paper_preset_is_the_papers():
    assert (PAPER.variant, PAPER.scale, PAPER.crop, PAPER.width, PAPER.blocks) == ("PAT", 4, 128, 64, 10)
    assert (PAPER.perceptual_layers, PAPER.perceptual_weights) == (("pool2", "pool5"), (0.2, 0.02))
    assert (PAPER.lr, PAPER.lr_d, PAPER.G_loss_weight, PAPER.texture_patch) == (1e-4, 1e-4, 2.0, 16)
    for weight, of_paper, channels in zip(
        PAPER.texture_weights, (3e-7, 1e-6, 1e-6), (64, 128, 256), strict=True
    ):
        assert weight == pytest.approx(of_paper * (channels * 256) ** 2, rel=1e-3)
    assert [layer_index(layer, "vgg19") for layer in PAPER.texture_layers] == [1, 6, 11]


# --- evaluation -------------------------------------------------------------------------------------------


def test_held_out_photographs_are_whole_but_for_a_multiple_of_the_scale(photo_folder, tmp_path):
    files = sorted(photo_folder.rglob("*.jpg"))
    assert [tuple(x.shape) for x in read_held_out(files, 2, 4, 0)] == [(3, 80, 96)] * 2
    assert [tuple(x.shape) for x in read_held_out(files, 1, 4, 50)] == [(3, 48, 48)]
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (12, 90)).save(tmp_path / "small.png")
    odd = [tmp_path / "broken.png", tmp_path / "small.png"]
    with pytest.warns(UserWarning, match="broken.png|small.png .*90x12, is too small"):
        assert len(read_held_out([*odd, *files], 3, 4, 0)) == 3
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of the 2 held-out images"):
        read_held_out(odd, 3, 4, 0)


def test_figures_of_bicubic_are_in_the_same_table(tiny):
    recipe = make(tiny)
    figures = evaluate_upscaling(recipe.generator.eval(), recipe.held_out)
    for name in ("psnr_y", "ssim_y"):
        assert figures[name] == figures[f"{name}_bicubic"], "before training they are the same"


def test_sample_cuts_are_fixed_and_fit_the_smallest_photograph():
    images = [torch.rand(3, 40, 64), torch.rand(3, 30, 90)]
    cuts = fixed_cuts(images, 5, 192, 4)
    assert cuts.shape == (5, 3, 28, 28) and torch.equal(cuts, fixed_cuts(images, 5, 192, 4))


def test_held_out_images_are_never_trained_on(tiny, photo_folder):
    recipe = make(tiny)
    assert len(recipe.train_images.files) == 10 and len(recipe.held_out) == 2
    with pytest.raises(ValueError, match="val_path must not lie in train_path"):
        make(tiny, val_path=str(photo_folder / "coffee"))


# --- what is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_path": ""}, "train_path must name a folder"),
        ({"scale": 3}, "scale must be 2 or 4, got 3"),
        ({"variant": "PT"}, "variant must be one of E, P, PA, PAT, got 'PT'"),
        ({"adversarial": "wgan"}, "adversarial must be one of bce, .*, got 'wgan'"),
        ({"crop": 66}, "crop must be a multiple of scale = 4, at least twice that, got 66"),
        ({"crop": 4}, "at least twice that, got 4"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"val_images": 0}, "val_images must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"beta1": 1.0}, r"beta1 must lie in \[0, 1\), got 1.0"),
        ({"lr_decay_steps": -1}, "lr_decay_steps must not be negative, got -1"),
        ({"adversarial_weight": -1.0}, "adversarial_weight must not be negative, got -1.0"),
        ({"variant": "P", "perceptual_weights": (1.0,)}, r"one for each of perceptual_layers.*\(1.0,\)"),
        ({"variant": "P", "perceptual_layers": ("pool6", "pool2")}, "got 'pool6'"),
        ({"variant": "P", "crop": 28}, "crop must be at least 32 for pool5, got 28"),
        ({"variant": "PAT", "crop": 60}, "crop must be at least 64 for relu3_1, got 60"),
        ({"variant": "PAT", "texture_weights": (1.0, -1.0, 1.0)}, "texture_weights must not be negative"),
        ({"variant": "PA", "d_channels": (4,) * 7}, "needs at least 128 pixels on each side, got 64"),
        ({"balance": "thresh"}, "balance"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_with_their_value(tiny, vgg, changes, message):
    with pytest.raises(ValueError, match=message):
        make(tiny, **changes)


def test_photographs_smaller_than_the_crop_are_named(tiny):
    with (
        pytest.warns(UserWarning, match="80x96, is smaller than the crop, 128x128"),
        pytest.raises(ValueError, match="none of the 10 images can be used"),
    ):
        train(EnhanceNet, dataclasses.replace(tiny, crop=128))


def test_vgg_without_weights_stops_before_training(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match="download https://.*vgg19") as error:
        train(EnhanceNet, dataclasses.replace(tiny, variant="P"))
    assert str(tmp_path / "hub" / "checkpoints" / _backbones.FILES["vgg19"]) in str(error.value)
    assert "--variant E" in str(error.value)
    assert not (tiny.folder / "metrics.csv").exists()


@pytest.mark.slow
def test_vgg_with_weights_takes_part(tiny, tmp_path, monkeypatch):
    install_backbone(monkeypatch, tmp_path / "hub", "vgg19")
    folder = train(EnhanceNet, dataclasses.replace(tiny, variant="PAT", num_steps=1))
    assert float(rows(folder / "metrics.csv")[0]["texture_loss"]) > 0


@pytest.mark.gpu
def test_a_step_never_waits_for_the_gpu(tiny, vgg):
    recipe = make(tiny, accelerator="cuda", variant="PAT")
    original = one_batch(recipe)
    draws = torch.Generator("cuda").manual_seed(0)
    for step in range(2):  # first calls may set up libraries
        recipe.train_step(original, step, draws)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        recipe.train_step(original, 2, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
