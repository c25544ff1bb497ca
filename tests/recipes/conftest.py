"""A folder of real photographs, and recipes small enough for tests."""

from __future__ import annotations

import pytest

from fastgan.losses import _backbones
from fastgan.recipes import load_recipe
from fastgan.recipes.enhancenet.config import EnhanceNetConfig
from fastgan.recipes.stegastamp.config import StegaStampConfig
from fastgan.training.command_line import parse_config
from tests.recipes.fonts import small_glyphs
from tests.recipes.photographs import write_photographs
from tests.recipes.starganv2_folders import image_config, latent_config, write_images, write_latents
from tests.stress.tiny_runs import OWN


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory):
    """Twelve crops of real photographs, 80x96, in nested folders."""
    pytest.importorskip("skimage.data")
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture
def small(photo_folder, tmp_path):
    """32x32, 20 bits, without the phase no_im_loss; everything else is on."""
    return StegaStampConfig(
        train_path=str(photo_folder), runs_path=str(tmp_path / "runs"), image_size=32, secret_size=20,
        batch_size=2, num_steps=4, log_interval=2, sample_interval=4, eval_interval=4, val_images=2,
        checkpoint_interval=4, accelerator="cpu", lpips_loss_scale=0, no_im_loss_steps=0, rnd_trans_ramp=0,
        lr=0.001, l2_loss_ramp=0, G_loss_ramp=0, lr_d=0.001,
    )  # fmt: skip


@pytest.fixture(scope="session")
def vgg_weights():
    """Random weights of VGG19's convolutions."""
    features = _backbones.load_features("vgg19", "PerceptualLoss", weights=None, seed=3)
    return {f"features.{name}": value for name, value in features.state_dict().items()}


@pytest.fixture
def vgg(monkeypatch, vgg_weights):
    """VGG19 with these weights, as if its file (half a gigabyte) were installed."""
    load = _backbones._load_weights
    monkeypatch.setattr(
        _backbones, "_load_weights", lambda name, *rest: vgg_weights if name == "vgg19" else load(name, *rest)
    )


@pytest.fixture
def tiny(photo_folder, tmp_path):
    """EnhanceNet-E with few channels, and a small discriminator for the other variants."""
    return EnhanceNetConfig(
        train_path=str(photo_folder), runs_path=str(tmp_path / "runs"), crop=64, width=4, blocks=2,
        d_channels=(4, 8, 8), d_dense=8, batch_size=2, num_steps=4, log_interval=2, sample_interval=4,
        eval_interval=4, checkpoint_interval=4, val_images=2, accelerator="cpu", lr=0.001, lr_d=0.001,
        ema_decay=0.9,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data_of_all(tmp_path_factory):
    """Small data for every recipe: photographs, domains, glyphs."""
    pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("data")
    write_photographs(folder / "photographs")
    write_images(folder / "domains")
    small_glyphs(folder / "glyphs")
    return folder


@pytest.fixture
def config_of(data_of_all, tmp_path, vgg):
    """Makes a small configuration of a recipe from its name and options of the command line."""

    def configured(name, options=""):
        recipe = load_recipe(name)
        common = f"--runs_path {tmp_path} --batch_size 2 --accelerator cpu --workers 1 --num_epochs 0"
        arguments = [*OWN[name].format(data=data_of_all).split(), *common.split(), *options.split()]
        return parse_config(recipe.config_class, recipe.presets, arguments, "fastgan")

    return configured


@pytest.fixture(scope="session")
def image_domains(tmp_path_factory):
    """Two domains of twelve images, 16x16."""
    return write_images(tmp_path_factory.mktemp("image_domains"))


@pytest.fixture(scope="session")
def latent_domains(tmp_path_factory):
    """Two domains of twelve latents, 4x16x16."""
    return write_latents(tmp_path_factory.mktemp("latent_domains"))


@pytest.fixture
def domains_config(image_domains, tmp_path):
    """A StarGAN v2 on images small enough for tests."""
    return image_config(image_domains, tmp_path / "runs")


@pytest.fixture
def latents_config(latent_domains, tmp_path):
    """A StarGAN v2 on latents small enough for tests."""
    return latent_config(latent_domains, tmp_path / "runs")
