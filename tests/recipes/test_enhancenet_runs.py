"""EnhanceNet's whole runs, its evaluation, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from fastgan.losses import _backbones
from fastgan.losses.perceptual import layer_index
from fastgan.recipes.enhancenet.config import DEMO, PAPER
from fastgan.recipes.enhancenet.evaluation import evaluate_upscaling, fixed_cuts, read_held_out
from fastgan.recipes.enhancenet.recipe import EnhanceNet
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.loop import train
from tests.losses.backbones import install_backbone
from tests.recipes.enhancenet_steps import make, rows
from tests.recipes.runs import MEASURES_OF_IMAGES, OneAndTwo, assert_resume_is_bit_exact, measures_of
from tests.recipes.steps import generator, one_batch

# --- whole runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4])
def test_a_run_logs_evaluates_and_shows(tiny, scale):
    folder = train(EnhanceNet, dataclasses.replace(tiny, scale=scale))
    assert set(rows(folder / "metrics.csv")[0]) == {
        "step", "mse_loss", "mse_loss_weight", "share_mse_loss", "psnr", "lr", "images_per_second",
        "seconds_per_step", *MEASURES_OF_IMAGES, *measures_of("G"),
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
    config = dataclasses.replace(tiny, batch_size=4, turn=True)
    OneAndTwo(EnhanceNet, {"E": config}, tmp_path).assert_equal("E")


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
        ({"scale": 3}, "scale must be one of 2, 4, got 3"),
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
        # Threads read: another one may find a seventh meanwhile.
        pytest.raises(ValueError, match=r"([6-9]|10) of 10 images cannot be used, and --max_unusable 0\.5"),
    ):
        train(EnhanceNet, dataclasses.replace(tiny, crop=128))


def test_vgg_without_weights_stops_before_training(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match="download https://.*vgg19") as error:
        train(EnhanceNet, dataclasses.replace(tiny, variant="P"))
    assert str(tmp_path / "hub" / "checkpoints" / _backbones.FILES["vgg19"]) in str(error.value)
    assert str(error.value).startswith("--variant P: PerceptualLoss needs")
    assert str(error.value).endswith("; or train on the squared error: --variant E")
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
