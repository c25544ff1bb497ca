"""`fastgan.load`: trained models in Python, from runs, checkpoints and model files; tensors and images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import fastgan
from fastgan.recipes import RECIPES, load_recipe
from fastgan.recipes.dcgan.model import DCGANModel
from fastgan.recipes.stegastamp.message import message_to_bits
from fastgan.recipes.stegastamp.model import StegaStampModel
from fastgan.training.command_line import parse_config
from fastgan.training.image_files import to_tensor
from fastgan.training.loop import train
from fastgan.training.model import Model, to_pil
from fastgan.training.registration import model_class
from tests.recipes.fonts import small_glyphs
from tests.recipes.photographs import write_photographs
from tests.recipes.starganv2_folders import latent_config, write_images, write_latents
from tests.stress.tiny_runs import OWN

MORE = {"stegastamp": "--secret_size 32", "zi2zi": "--self_attention true"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a run of two steps of each recipe, by its name."""
    pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("models")
    write_photographs(folder / "photographs")
    write_images(folder / "domains")
    small_glyphs(folder / "glyphs")
    made = {}
    for name in RECIPES:
        recipe = load_recipe(name)
        options = (
            f"{OWN[name]} --runs_path {{data}}/runs --exp_name {name} {MORE.get(name, '')} --batch_size 2"
        )
        options += " --num_epochs 0 --num_steps 2 --accelerator cpu --workers 1 --ema_decay 0.9"
        words = options.format(data=folder).split()
        made[name] = train(recipe, parse_config(recipe.config_class, recipe.presets, words, "fastgan"))
    return made


def image(size=(40, 56)) -> torch.Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(size[0]))


def used(model: Model) -> torch.Tensor:
    """What a model makes of fixed input, as a tensor in [0, 1]."""
    return {
        "dcgan": lambda: model.generate(3),
        "stegastamp": lambda: model.encode(image()[None], message_to_bits("hi", 32)),
        "enhancenet": lambda: model.upscale(image((9, 11))[None]),
        "starganv2": lambda: model.translate(image((16, 16))[None], "night"),
        "zi2zi": lambda: model.translate(image((32, 32))[:1][None], 1),
    }[model.recipe]()


# --- what is loaded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_runs_checkpoints_and_model_files_give_the_same_model(runs, name, tmp_path):
    run = runs[name]
    (checkpoint,) = (run / "checkpoints").glob("*.safetensors")
    model = fastgan.load(run)
    assert isinstance(model, model_class(name)) and model.recipe == name and not model.training
    assert model.config.exp_name == name and (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert not any(weights.requires_grad for weights in model.parameters())
    expected = used(model)
    assert expected.min() >= 0 and expected.max() <= 1 and expected.std() > 0
    model.save(tmp_path / "saved.safetensors")
    for path in (str(run), checkpoint, run / "model.safetensors", tmp_path / "saved.safetensors"):
        assert torch.equal(used(fastgan.load(path)), expected), path
    # Without checkpoints the run's model.safetensors is enough.
    (tmp_path / "run").mkdir()
    shutil.copy(run / "model.safetensors", tmp_path / "run")
    assert torch.equal(used(model_class(name).load(tmp_path / "run")), expected)


def test_the_averaged_weights_are_taken(runs):
    from fastgan.training.checkpoint import load_checkpoint

    for name in RECIPES:
        checkpoint, model = load_checkpoint(runs[name]), fastgan.load(runs[name])
        for network in model.names:
            actual = model.get_submodule(network).state_dict()
            assert all(torch.equal(actual[key], w) for key, w in checkpoint.averages[network].items())


def test_a_saved_model_has_no_path_of_the_machine(runs, tmp_path):
    for name in RECIPES:
        model = fastgan.load(runs[name])
        assert model.config.train_path
        model.save(tmp_path / f"{name}.safetensors")
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as file:
            metadata = file.metadata()
        assert str(runs[name].parents[1]) not in json.dumps(metadata)
        assert "/fonts/" not in metadata["about"]
    fastgan.load(tmp_path / "zi2zi.safetensors").style_of("cmr10")


def test_the_older_name_of_dcgan_s_generator_is_read(runs, tmp_path):
    from fastgan.training.config import to_plain
    from fastgan.training.weights import write_weights

    model = fastgan.load(runs["dcgan"])
    metadata = {"recipe": "dcgan", "config": json.dumps(to_plain(model.config))}
    write_weights(tmp_path / "generator.safetensors", model.generator.state_dict(), metadata)
    for path in (tmp_path, tmp_path / "generator.safetensors"):
        assert torch.equal(fastgan.load(path).generate(2), model.generate(2))


def test_what_does_not_fit_is_named(runs, tmp_path):
    dcgan = runs["dcgan"]
    (tmp_path / "x.onnx").write_bytes(b"")
    (tmp_path / "text").write_text("none")
    later = tmp_path / "later.safetensors"
    from fastgan.training.weights import write_weights

    write_weights(
        later, {"x": torch.ones(1)}, {"format": "fastgan-model-9", "recipe": "dcgan", "config": "{}"}
    )
    other = tmp_path / "other.safetensors"
    write_weights(other, {"x": torch.ones(1)}, {"format": "fastgan-model-1", "recipe": "pix", "config": "{}"})
    for call, error, message in (
        (lambda: fastgan.load("nowhere"), FileNotFoundError, "no checkpoint at nowhere"),
        (lambda: fastgan.load(3), TypeError, "path must be a str or a Path, got 3"),
        (lambda: fastgan.load(tmp_path / "text"), ValueError, "text is not a readable checkpoint"),
        (lambda: fastgan.load(tmp_path / "x.onnx"), ValueError, "x.onnx is for onnxruntime.InferenceSession"),
        (
            lambda: fastgan.load(later),
            ValueError,
            "another version of fastgan: its format is 'fastgan-model-9'",
        ),
        (lambda: fastgan.load(other), ValueError, "no recipe 'pix' here; there are: dcgan, "),
        (
            lambda: StegaStampModel.load(dcgan),
            ValueError,
            "checkpoint of the recipe 'dcgan', not of 'stegastamp'",
        ),
        (
            lambda: StegaStampModel.load(dcgan / "model.safetensors"),
            ValueError,
            "is a model of the recipe 'dcgan', not of 'stegastamp'",
        ),
        (lambda: fastgan.load(dcgan, device="tpu9"), ValueError, "device 'tpu9' cannot be used"),
        (
            lambda: fastgan.load(dcgan, dtype=torch.int8),
            ValueError,
            "dtype must be one of .*, got torch.int8",
        ),
        (
            lambda: fastgan.load(dcgan).save(tmp_path / "x.pth"),
            ValueError,
            "path must end in .safetensors, got",
        ),
        (
            lambda: fastgan.load(dcgan).save(later),
            FileExistsError,
            "is there already: replace with overwrite=True",
        ),
    ):
        with pytest.raises(error, match=message):
            call()


def test_import_fastgan_stays_light():
    code = "import sys, fastgan; fastgan.load; print([m for m in ('safetensors', 'PIL', 'torchvision', "
    code += "'huggingface_hub', 'fastgan.training', 'fastgan.recipes') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# --- device and dtype -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", RECIPES)
def test_other_dtypes(runs, name, dtype):
    expected = used(fastgan.load(runs[name]))
    model = fastgan.load(runs[name], dtype=dtype)
    assert model.dtype == dtype
    actual = used(model)
    # The dtype of the images that were given; dcgan is given none.
    assert actual.dtype == (dtype if name == "dcgan" else torch.float32)
    assert (actual.float() - expected).abs().mean() < (1e-5 if dtype == torch.float64 else 0.02)
    assert model.to("cpu", torch.float32).dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECIPES)
def test_on_a_gpu(runs, name):
    expected, model = used(fastgan.load(runs[name])), fastgan.load(runs[name], device="cuda")
    if name == "dcgan":
        torch.testing.assert_close(model.generate(3).cpu(), expected, rtol=0, atol=1e-4)
    else:
        with pytest.raises(ValueError, match="images must be on the model's device, cuda:0, got cpu"):
            used(model)


# --- images -----------------------------------------------------------------------------------------------


def test_images_come_back_in_the_kind_that_was_given(runs):
    batch, one = image()[None], image()
    stamp, enhance = fastgan.load(runs["stegastamp"]), fastgan.load(runs["enhancenet"])
    star, zi2zi = fastgan.load(runs["starganv2"]), fastgan.load(runs["zi2zi"])
    glyph = image((32, 32))[:1]
    for make, given, size in (
        (lambda x: stamp.encode(x, "hi"), one, (40, 56)),
        (lambda x: stamp.encode(x, "hi", full_size=False), one, (32, 32)),
        (lambda x: enhance.upscale(x), one, (160, 224)),
        (lambda x: star.translate(x, "night"), image((16, 16)), (16, 16)),
        (lambda x: zi2zi.translate(x, 0), glyph, (32, 32)),
    ):
        single = make(given)
        assert single.shape == (len(given), *size)
        assert torch.equal(make(given[None])[0], single)
        picture = to_pil(given)
        pil = make(picture)
        assert isinstance(pil, Image.Image) and pil.size == size[::-1] and pil.mode == picture.mode
        exact = make(to_tensor(picture.convert("RGB"))[: len(given)])
        if make(given).shape[1:] == size and size != (32, 32):
            assert np.abs(np.array(pil, float) / 255 - np.array(to_pil(exact), float) / 255).max() < 0.005
        listed = make([picture, picture])
        assert isinstance(listed, list) and [each.size for each in listed] == [size[::-1]] * 2
        assert make(given.double()).dtype == torch.float64
    assert batch.shape[0] == 1


def test_pictures_of_several_sizes(runs):
    pictures = [to_pil(image((40, 56))), to_pil(image((33, 36)))]
    stamp, enhance = fastgan.load(runs["stegastamp"]), fastgan.load(runs["enhancenet"])
    assert [each.size for each in stamp.encode(pictures, "hi")] == [(56, 40), (36, 33)]
    assert stamp.decode(pictures, bits=True).shape == (2, 32)
    assert [each.size for each in enhance.upscale(pictures)] == [(224, 160), (144, 132)]
    with pytest.raises(ValueError, match="images must be of one size, got 32x36 and 40x56"):
        fastgan.load(runs["zi2zi"]).taken("images", [pictures[0], to_pil(image((32, 36)))])


def test_transparency_and_other_modes(runs):
    star = fastgan.load(runs["starganv2"])
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert star.taken("images", clear)[0].min() == 1, "over the run's background, white"
    sixteen = Image.fromarray(np.full((16, 16), 65535, np.uint16))
    assert star.taken("images", sixteen)[0].min() == 1
    with pytest.raises(ValueError, match="images cannot be used: its values are floating-point numbers"):
        star.translate(Image.fromarray(np.zeros((16, 16), np.float32)), "night")


@pytest.mark.parametrize(
    "images, error, message",
    [
        (torch.rand(1, 3, 16, 16) * 255, ValueError, "images must lie in .*: divide 8-bit values by 255"),
        (torch.rand(1, 3, 16, 16) * 2 - 1, ValueError, r"give x / 2 \+ 0.5 of images in \[-1, 1\]"),
        (
            torch.full((1, 3, 16, 16), float("nan")),
            ValueError,
            r"images must lie in \[0, 1\], got values in \[nan",
        ),
        (torch.ones(1, 3, 16, 16, dtype=torch.uint8), TypeError, r"give images.float\(\) / 255"),
        (torch.ones(1, 3, 16, 16, dtype=torch.int64), TypeError, "images must be a floating-point tensor"),
        (torch.rand(1, 1, 16, 16), ValueError, r"\(N, 3, H, W\) or \(3, H, W\), got \(1, 1, 16, 16\)"),
        (torch.rand(0, 3, 16, 16), ValueError, r"got \(0, 3, 16, 16\)"),
        (torch.rand(1, 3, 16, 18), ValueError, "images must be 16x16, as in the training, got 16x18"),
        (torch.full((1, 3, 16, 16), 1.005), ValueError, r"got values in \[1.005, 1.005\]$"),
        (torch.full((1, 3, 16, 16), float("inf")), ValueError, r"got values in \[inf, inf\]$"),
        (Image.new("RGB", (0, 5)), ValueError, "images must have pixels, got an image of 0x5"),
        (
            [Image.new("RGB", (16, 16)), torch.rand(3, 16, 16)],
            TypeError,
            r"images must be .* such images, got torch.float32 of shape \(3, 16, 16\) at index 1$",
        ),
        (np.zeros((16, 16, 3)), TypeError, "images must be a tensor, an image of PIL, or a list"),
        ([], TypeError, "images must be a tensor, an image of PIL, or a list"),
        ("photo.png", TypeError, "images must be .*, got str 'photo.png'"),
    ],
)
def test_images_that_do_not_fit_are_named(runs, images, error, message):
    with pytest.raises(error, match=message):
        fastgan.load(runs["starganv2"]).translate(images, "night")


def test_a_list_with_something_else_names_its_place(runs):
    stamp = fastgan.load(runs["stegastamp"])
    given = [to_pil(image()), "photo.png"]
    for use in (lambda: stamp.encode(given, "hi"), lambda: stamp.decode(given)):
        with pytest.raises(TypeError, match="images must be .*, got str 'photo.png' at index 1"):
            use()
    for use in (lambda x: stamp.encode(x, "hi"), stamp.decode, fastgan.load(runs["enhancenet"]).upscale):
        with pytest.raises(ValueError, match="images must have pixels, got an image of 5x0"):
            use(Image.new("RGB", (5, 0)))


# --- each recipe ------------------------------------------------------------------------------------------


def test_dcgan(runs):
    model = fastgan.load(runs["dcgan"])
    images = model.generate(3, seed=1)
    assert images.shape == (3, 3, 32, 32) and torch.equal(images, model.generate(3, 1))
    assert not torch.equal(images, model.generate(3, 2))
    z = model.latents(3, 1)
    assert torch.equal(model.generate(z=z), images)
    assert torch.equal(model.generate(z=z.double()), images.double())
    exact = model.double().generate(z=z.double())
    assert not torch.equal(exact, exact.float().double()), "all digits of float64"
    model.float()
    pictures = model.generate(3, 1, pil=True)
    assert [np.array(p).tolist() for p in pictures] == [np.array(to_pil(i)).tolist() for i in images]
    for arguments, message in (
        ({"num": 0}, "num must be at least 1, got 0"),
        ({"z": torch.rand(2, 5)}, r"z must have shape \(N, 6\), got \(2, 5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(**arguments)
    with pytest.raises(TypeError, match="pil must be"):
        model.generate(pil="yes")


def test_stegastamp(runs):
    model = fastgan.load(runs["stegastamp"])
    bits = message_to_bits("hi", 32)
    last = model.decoder.reader[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.copy_(bits * 2 - 1)
    assert model.decode(image()) == "hi" and model.decode(to_pil(image())) == "hi"
    assert model.decode(image()[None]) == ["hi"] == model.decode([to_pil(image())])
    assert torch.equal(model.decode(image(), bits=True), bits)
    last.bias.neg_()
    assert model.decode(image()) is None
    stamped, residual = model.encode(image(), bits, residual=True)
    assert torch.equal(stamped, model.encode(image(), "hi"))
    assert torch.equal(stamped, (image() + residual).clamp(0, 1))
    two = torch.stack([bits, 1 - bits])
    each = model.encode(image()[None].expand(2, -1, -1, -1), two)
    torch.testing.assert_close(each[1], model.encode(image(), 1 - bits))
    assert len(model.encode([to_pil(image())] * 2, two, residual=True)[1]) == 2
    for message, error, expected in (
        ("too long", ValueError, "takes 8 bytes in UTF-8; a secret of 32 bits holds 2"),
        (3, TypeError, "message must be a str, or a tensor of bits, got int 3"),
        (bits[:5], ValueError, r"message must have 32 bits, shape \(32,\) or \(N, 32\), got \(5,\)"),
        (bits / 2, ValueError, "message must have bits 0 and 1, got 0.5"),
        ("\n", ValueError, r"the message must have printable characters only, got '\\n'"),
        (two, ValueError, "message must be one, or one for each of 1 images, got 2"),
    ):
        with pytest.raises(error, match=expected):
            model.encode(image(), message)


def test_enhancenet(runs):
    model = fastgan.load(runs["enhancenet"])
    assert model.scale == 4
    whole = model.upscale(image((30, 40)))
    torch.testing.assert_close(model.upscale(image((30, 40)), tile=16), whole, atol=0.1, rtol=0)
    assert model.upscale(to_pil(image()).convert("L")).mode == "L"
    for arguments, error, message in (
        ({"tile": 3}, ValueError, "tile must be at least 8, got 3"),
        ({"tile": 32.0}, TypeError, "tile must be a whole number, got float 32.0"),
        ({"tile": "256"}, TypeError, "tile must be a whole number, got str '256'"),
        ({"overlap": 1.5}, TypeError, "overlap must be a whole number, got float 1.5"),
        ({"overlap": 200}, ValueError, r"overlap must lie in \[0, 128\], half of the tile, got 200"),
    ):
        with pytest.raises(error, match=message):
            model.upscale(image(), **arguments)


def test_premultiplied_transparency_is_upscaled_like_plain_one(runs):
    model = fastgan.load(runs["enhancenet"])
    picture = to_pil(image())
    for mode, premultiplied in (("LA", "La"), ("RGBA", "RGBa")):
        plain = picture.convert(mode)
        large = model.upscale(plain.convert(premultiplied))
        assert large.mode == mode and np.array_equal(np.array(large), np.array(model.upscale(plain)))


def test_starganv2(runs):
    model = fastgan.load(runs["starganv2"])
    sources = torch.stack([image((16, 16)), 1 - image((16, 16))])
    by_noise = model.translate(sources, "night", seed=3)
    assert torch.equal(by_noise, model.translate(sources, 1, seed=3))
    assert not torch.equal(by_noise, model.translate(sources, 1, seed=4))
    assert torch.equal(by_noise, model.translate(sources, 1, style=model.random_styles(2, "night", 3)))
    assert torch.equal(by_noise, model.translate(sources, np.int64(1), seed=3))
    for num, error, message in (
        (0, ValueError, "num must be at least 1, got 0"),
        (-1, ValueError, "num must be at least 1, got -1"),
        ("2", TypeError, "num must be a whole number, got str '2'"),
    ):
        with pytest.raises(error, match=message):
            model.random_styles(num, "night")
    reference = image((16, 16)).flip(0)
    style = model.style_of(to_pil(reference), "night")
    assert style.shape == (1, 5)
    assert torch.equal(
        model.translate(sources, 1, reference=to_pil(reference)), model.translate(sources, 1, style=style)
    )
    for arguments, message in (
        ({"domain": "dawn"}, "domain must be one of day, night, got 'dawn'"),
        ({"domain": 2}, r"domain must lie in \[0, 1\], got 2"),
        ({"domain": np.int64(-1)}, r"domain must lie in \[0, 1\], got -1"),
        ({"domain": 1, "reference": sources, "style": style}, "give either reference or style, not both"),
        (
            {"domain": 1, "reference": sources[[0, 0, 0]]},
            "reference must be one, or one for each of 2 images, got 3",
        ),
        ({"domain": 1, "style": torch.rand(3)}, r"style must have shape \(N, 5\) or \(5,\), got \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model.translate(sources, **arguments)


def test_starganv2_on_latents(tmp_path):
    from fastgan.recipes.starganv2.recipe import StarGANv2

    folder = write_latents(tmp_path / "latents")
    model = fastgan.load(train(StarGANv2, latent_config(folder, tmp_path, num_steps=1)))
    latents = 5 * torch.randn(2, 4, 16, 16)
    translated = model.translate(latents, "b", seed=1)
    scaled = model.translator.in_style(latents * 0.18215, model.random_styles(2, "b", 1))
    torch.testing.assert_close(translated, scaled / 0.18215)
    assert model.translate(latents[0], "b").shape == (4, 16, 16)
    with pytest.raises(ValueError, match="images must be latents of 16x16, got 8x8"):
        model.translate(latents[..., :8, :8], "b")
    with pytest.raises(ValueError, match="images of PIL need a VAE, whose folder is the attribute vae"):
        model.translate(to_pil(image()), "b")


def test_zi2zi(runs):
    model = fastgan.load(runs["zi2zi"])
    assert model.categories == ["DejaVuSerif-Bold", "cmr10"]
    text = model.render("A b")
    drawn = model.translate(text, "cmr10")
    assert drawn.shape == (3, 1, 32, 32) and (drawn[1] == 1).all() and drawn[0].std() > 0
    assert torch.equal(drawn, model.translate(text, 1))
    between = torch.lerp(model.style_of(0), model.style_of(1), 0.5)
    assert not torch.equal(model.translate(text, between), drawn)
    model.style_of(1).zero_()
    assert torch.equal(model.translate(text, 1), drawn), "a copy of the network's"
    for arguments, message in (
        ((b"A",), "text must be a str, got bytes b'A'"),
        (("A", 3), "font must be a str or a Path, got int 3"),
    ):
        with pytest.raises(TypeError, match=message):
            model.render(*arguments)
    styles = torch.stack([model.style_of(1)] * 3)
    assert torch.equal(model.translate(text, styles), drawn)
    for category, message in (
        ("Arial", "there is no category 'Arial': they are 0 to 1, 0 DejaVuSerif-Bold, 1 cmr10"),
        (2, "there is no category '2'"),
        (-1, "there is no category '-1'"),
        (styles[:2], "category must be one, or one for each of 3 images, got 2"),
        (torch.rand(4), r"a name, a number, or of shape \(N, 6\) or \(6,\), got \(4,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model.translate(text, category)


def test_the_class_of_a_recipe_is_typed(runs):
    assert type(DCGANModel.load(runs["dcgan"])) is DCGANModel
    assert type(Model.load(runs["dcgan"])) is DCGANModel
