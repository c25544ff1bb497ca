"""`fastgan data encode-latents` and `fastgan sample starganv2` on tiny trained runs, with a tiny VAE."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fastgan.cli import main
from fastgan.recipes.starganv2.commands import Inputs
from fastgan.recipes.starganv2.data import read_latent
from fastgan.recipes.starganv2.latents import Pictures, encode, load_vae
from fastgan.recipes.starganv2.model import StarGANv2Model
from fastgan.recipes.starganv2.recipe import StarGANv2
from fastgan.training.image_files import read_image, to_tensor
from fastgan.training.loop import train
from tests.recipes.starganv2_folders import image_config, latent_config, write_images, write_latents


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    """Randomly initialized: 3x32x32 to 4x16x16, as Stable Diffusion's but for depth and width."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4, 4), norm_num_groups=2, layers_per_block=1, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.5,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "vae"
    vae.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def image_run(image_folder, tmp_path_factory):
    return train(StarGANv2, image_config(image_folder, tmp_path_factory.mktemp("runs"), num_steps=2))


@pytest.fixture(scope="module")
def latent_run(tmp_path_factory):
    folder = write_latents(tmp_path_factory.mktemp("latents"))
    return train(StarGANv2, latent_config(folder, tmp_path_factory.mktemp("runs"), num_steps=2))


def encoded(images, latents, vae, *more):
    arguments = ["data", "encode-latents", "--vae", str(vae), str(images), str(latents)]
    return main([*arguments, "--image_size", "32", *more])


def test_encoding_keeps_the_tree_and_goes_on_where_it_stopped(image_folder, vae_folder, tmp_path, capsys):
    assert encoded(image_folder, tmp_path, vae_folder) == 0
    assert "24 images encoded, 0 were there already" in (output := capsys.readouterr().out)
    assert "--latent_scale 0.5" in output
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert [path.relative_to(tmp_path).as_posix() for path in files[:1]] == ["day/0.png.safetensors"]
    image = read_image(image_folder / "day" / "0.png").resize((32, 32), Image.Resampling.BICUBIC)
    vae = load_vae(vae_folder)
    latent = read_latent(files[0], (4, 16, 16))
    torch.testing.assert_close(latent, encode(vae, to_tensor(image)[None])[0])
    (tmp_path / "night" / "3.png.safetensors").unlink()
    written = files[0].stat().st_mtime_ns
    assert encoded(image_folder, tmp_path, vae_folder) == 0
    assert "1 images encoded, 23 were there already, 0 could not be read" in capsys.readouterr().out
    assert files[0].stat().st_mtime_ns == written
    # Other settings are refused, not mixed.
    assert encoded(image_folder, tmp_path, vae_folder, "--sample_seed", "1") == 1
    assert "was made with posterior mode, not sample 1" in capsys.readouterr().err


def test_sampled_latents_are_a_function_of_image_and_seed(image_folder, vae_folder, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert encoded(image_folder / "day", tmp_path / name, vae_folder, "--sample_seed", seed) == 0
    a, b, c = (load_file(tmp_path / name / "1.png.safetensors")["latent"] for name in "abc")
    assert torch.equal(a, b) and not torch.allclose(a, c)


def test_unreadable_images_are_named(image_folder, vae_folder, tmp_path, capsys):
    write_images(tmp_path / "images", count=2)
    broken = tmp_path / "images" / "day" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    assert encoded(tmp_path / "images", tmp_path / "latents", vae_folder) == 1
    output = capsys.readouterr().out
    assert f"left out {broken}" in output and "3 images encoded, 0 were there already, 1 could not" in output


def test_a_run_on_encoded_latents_shows_decoded_pictures(image_folder, vae_folder, tmp_path):
    assert encoded(image_folder, tmp_path / "latents", vae_folder) == 0
    config = latent_config(tmp_path / "latents", tmp_path, vae=str(vae_folder), num_steps=2, latent_scale=0.5)
    folder = train(StarGANv2, config)
    grid = Image.open(folder / "samples" / "step-00000002.png")
    assert grid.size == (8 * 34 + 2, 7 * (32 + 4)), "pictures of 32x32, where latents have 16x16"
    output = tmp_path / "grid.png"
    arguments = ["sample", "starganv2", "--checkpoint", str(folder), "--target_domain", "night"]
    for source in (tmp_path / "latents" / "day", image_folder / "day"):  # images are encoded first
        assert (
            main([*arguments, "--source", str(source), "--num", "2", "--output", str(output), "--overwrite"])
            == 0
        )
        assert Image.open(output).size == (8 * 34 + 2, 3 * 34 + 2)


def test_latents_without_a_vae_have_a_preview():
    latents = torch.zeros(2, 4, 8, 8)
    latents[0, 1] = 1
    preview = Pictures("latents", 0.18215, "")(latents)
    assert preview.shape == (2, 3, 8, 8) and preview[1].unique().tolist() == [0.5]
    red, green, blue = preview[0].mean((1, 2)).tolist()
    assert red > 0.5 > green == blue
    assert Pictures("latents", 1.0, "")(torch.randn(1, 6, 8, 8)).shape == (1, 3, 8, 8)
    torch.testing.assert_close(
        Pictures("images", 1.0, "")(2 * torch.ones(1, 3, 2, 2)), torch.ones(1, 3, 2, 2)
    )


def test_grids_by_noise_and_by_reference(image_run, image_folder, tmp_path, capsys):
    arguments = ["sample", "starganv2", "--checkpoint", str(image_run), "--target_domain", "night"]
    arguments += ["--source", str(image_folder / "day"), "--overwrite"]
    by_noise = tmp_path / "out" / "noise.png"
    assert main([*arguments, "--num", "3", "--output", str(by_noise)]) == 0
    assert "has 12 files: the first 8 are taken" in capsys.readouterr().out
    assert Image.open(by_noise).size == (8 * 18 + 2, 4 * 18 + 2)
    first = by_noise.read_bytes()
    assert main([*arguments, "--num", "3", "--output", str(by_noise)]) == 0 and by_noise.read_bytes() == first
    assert main([*arguments, "--num", "3", "--seed", "1", "--output", str(by_noise)]) == 0
    assert by_noise.read_bytes() != first

    by_reference = tmp_path / "reference.png"
    reference = image_folder / "night" / "0.png"
    assert main([*arguments, "--reference", str(reference), "--output", str(by_reference)]) == 0
    grid = to_tensor(read_image(by_reference))
    assert grid.shape == (3, 2 * 18 + 2, 9 * 18 + 2)
    torch.testing.assert_close(grid[:, 20:36, 2:18], to_tensor(read_image(reference)), atol=0.005, rtol=0)
    source = to_tensor(read_image(image_folder / "day" / "0.png"))
    torch.testing.assert_close(grid[:, 2:18, 20:36], source, atol=0.005, rtol=0)
    model = StarGANv2Model.load(image_run)
    inputs = Inputs(model, model.config.reading)
    one = inputs.read(str(image_folder / "day" / "0.png"), 1)
    style = model.translator.style_of(inputs.read(str(reference), 1), 1)
    expected = model.pictures(model.translator.in_style(one, style))[0]
    torch.testing.assert_close(grid[:, 20:36, 20:36], expected, atol=0.005, rtol=0)


def test_a_run_on_latents_translates_latents(latent_run, image_folder, vae_folder, tmp_path, capsys):
    folder = StarGANv2Model.load(latent_run).config.train_path
    output = tmp_path / "grid.png"
    arguments = ["sample", "starganv2", "--checkpoint", str(latent_run), "--target_domain", "b"]
    arguments += ["--output", str(output), "--overwrite"]
    assert main([*arguments, "--source", f"{folder}/a", "--reference", f"{folder}/b"]) == 0
    assert Image.open(output).size == (9 * 18 + 2, 9 * 18 + 2)
    assert main([*arguments, "--source", f"{folder}/a/00.pt", "--vae", str(vae_folder)]) == 0
    assert Image.open(output).size == (34 + 2, 5 * 34 + 2)
    assert main([*arguments, "--source", str(image_folder / "day" / "0.png")]) == 1
    assert "is no latent (.safetensors, .pt, .pth, .npy, .npz): images need --vae" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"--target_domain": "dawn"}, "--target_domain must be one of day, night, got 'dawn'"),
        ({"--source": "nowhere"}, "no such file or folder: nowhere"),
        ({"--checkpoint": "nowhere"}, "no checkpoint at nowhere"),
        ({"--num": "0"}, "--num must be at least 1, got 0"),
        ({"--vae": "nowhere"}, "--vae is for runs on latents"),
    ],
)
def test_bad_arguments_of_sample(image_run, image_folder, tmp_path, changes, message, capsys):
    options = {
        "--checkpoint": str(image_run), "--source": str(image_folder / "day"), "--target_domain": "night",
        "--output": str(tmp_path / "grid.png"),
    } | changes  # fmt: skip
    assert main(["sample", "starganv2", *(word for pair in options.items() for word in pair)]) == 1
    assert message in capsys.readouterr().err


def test_bad_vaes_and_images_are_named(image_folder, vae_folder, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="no VAE at .*: there must be a config.json"):
        load_vae(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="holds a UNet2DModel, not an AutoencoderKL"):
        load_vae(tmp_path)
    (tmp_path / "config.json").write_text((vae_folder / "config.json").read_text())
    with pytest.raises(ValueError, match="is no complete AutoencoderKL"):
        load_vae(tmp_path)
    assert load_vae(vae_folder.parent).config.latent_channels == 4, "a pipeline's folder has it at vae/"
    assert encoded(tmp_path / "none", tmp_path / "out", vae_folder) == 1
    assert "no such folder" in capsys.readouterr().err
    config = latent_config(tmp_path, tmp_path, vae=str(tmp_path / "none"))
    folder = write_latents(tmp_path / "latents", count=3)
    with pytest.raises(FileNotFoundError, match="no VAE at"):
        train(StarGANv2, dataclasses.replace(config, train_path=str(folder)))


def test_without_diffusers_the_extra_is_named(image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert encoded(image_folder, tmp_path, tmp_path) == 1
    assert "needs diffusers, which is not installed: pip install '.[vae]'" in capsys.readouterr().err
