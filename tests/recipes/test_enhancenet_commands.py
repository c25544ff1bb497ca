"""`fastgan train enhancenet` and `fastgan upscale` as a user runs them; tiles without seams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.cli import main
from fastgan.recipes.enhancenet.model import EnhanceNetModel, enlarge
from fastgan.recipes.enhancenet.networks import EnhanceNetGenerator, bicubic_upscale
from fastgan.recipes.enhancenet.tiles import exact_overlap, upscale
from fastgan.training.image_files import to_tensor
from fastgan.training.loop import train
from tests.training.toy import Toy, ToyConfig


@pytest.fixture(scope="module")
def run(photo_folder, tmp_path_factory):
    """The folder of a run of one step, made by the command."""
    base = tmp_path_factory.mktemp("command")
    explicit = dict(
        train_path=photo_folder, runs_path=base, exp_name="tiny", crop=32, width=4, blocks=2, batch_size=2,
        num_steps=1, val_images=1, accelerator="cpu", lr=0.01,
    )  # fmt: skip
    arguments = [str(part) for name, value in explicit.items() for part in (f"--{name}", value)]
    assert main(["train", "enhancenet", *arguments]) == 0
    return base / "tiny"


@pytest.fixture
def photograph(tmp_path):
    data = pytest.importorskip("skimage.data")
    path = tmp_path / "cat.png"
    Image.fromarray(data.chelsea()[40:71, 100:143]).save(path)
    return path


def trained(scale=4, blocks=2):
    """A generator whose output is far from the bicubic image, as seams would show."""
    torch.manual_seed(0)
    generator = EnhanceNetGenerator(scale, 4, blocks).eval()
    torch.nn.init.normal_(generator.residual.weight, std=0.1)
    return generator


def command(run, source, target, *more):
    return main(["upscale", str(source), str(target), "--checkpoint", str(run), *more])


# --- tiles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tiles_are_blended_without_the_rounding_of_half_precision(dtype):
    generator = trained().to(dtype)
    whole = torch.full((1, 3, 4 * 40, 4 * 40), 0.3, dtype=dtype)
    generator.forward = lambda low: whole[..., : 4 * low.shape[2], : 4 * low.shape[3]]
    assert torch.equal(upscale(generator, torch.rand(1, 3, 40, 40, dtype=dtype), 16, 7), whole)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(50, 71), (33, 32), (20, 100), (8, 9)])
@pytest.mark.parametrize("more", [0, 3, None])
def test_tiles_that_overlap_by_twice_the_radius_are_exact_everywhere(scale, size, more):
    generator = trained(scale)
    low = torch.rand(1, 3, *size)
    overlap = None if more is None else 2 * generator.radius + more
    tiled = upscale(generator, low, 2 * exact_overlap(generator), overlap)
    with torch.no_grad():
        untiled = generator(low).clamp(0, 1)
    torch.testing.assert_close(tiled, untiled, rtol=0, atol=1e-5)
    assert (untiled - bicubic_upscale(low, scale)).abs().max() > 0.1


def test_tiles_that_overlap_less_are_blended():
    generator = trained()
    torch.manual_seed(1)
    low = torch.rand(1, 3, 60, 61)
    with torch.no_grad():
        untiled = generator(low).clamp(0, 1)
    errors = [(upscale(generator, low, 24, overlap) - untiled).abs() for overlap in (0, 6, 12)]
    assert errors[0].mean() > 10 * errors[1].mean() > 100 * errors[2].mean()
    assert errors[0].max() > 0.4 and errors[2].max() < 0.001


def test_weights_of_tiles_add_to_one():
    class Ones(EnhanceNetGenerator):
        def forward(self, low):
            return torch.full((1, 3, low.shape[2] * 2, low.shape[3] * 2), 0.75)

    generator = Ones(2, 1, 1)
    for tile, overlap in ((8, 0), (8, 4), (16, 3), (16, 8), (30, 15), (30, None)):
        outputs = upscale(generator, torch.rand(1, 3, 61, 45), tile, overlap)
        torch.testing.assert_close(outputs, torch.full((1, 3, 122, 90), 0.75))


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (7, None, "tile must be at least 8, got 7"),
        (16, 9, r"overlap must lie in \[0, 8\], half of the tile, got 9"),
        (16, -1, "got -1"),
    ],
)
def test_tiles_that_make_no_sense_are_refused(tile, overlap, message):
    with pytest.raises(ValueError, match=message):
        upscale(trained(), torch.rand(1, 3, 9, 9), tile, overlap)


# --- images -----------------------------------------------------------------------------------------------


def test_upscale_writes_what_the_network_gives(run, photograph, tmp_path, capsys):
    target = tmp_path / "new" / "large.png"
    assert command(run, photograph, target) == 0
    assert capsys.readouterr().out == f"{target}\n"
    low = to_tensor(Image.open(photograph))[None]
    with torch.no_grad():
        expected = (EnhanceNetModel.load(run).generator(low)[0].clamp(0, 1) * 255).round().byte()
    assert torch.equal(torch.from_numpy(np.array(Image.open(target))).permute(2, 0, 1), expected)
    assert command(run, photograph, target, "--tile", "24", "--overlap", "12", "--overwrite") == 0
    assert Image.open(target).size == (4 * 43, 4 * 31)


def test_the_moving_average_is_used_where_one_was_kept(photo_folder, tmp_path):
    options = dict(train_path=photo_folder, runs_path=tmp_path, crop=32, width=4, blocks=1, batch_size=2,
                   num_steps=2, val_images=1, accelerator="cpu", lr=0.01, ema_decay=0.9)  # fmt: skip
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    assert main(["train", "enhancenet", *arguments]) == 0
    from fastgan.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(tmp_path / "run")
    loaded = EnhanceNetModel.load(tmp_path / "run").generator.residual.weight
    assert torch.equal(loaded, checkpoint.averages["generator"]["residual.weight"])
    assert not torch.equal(loaded, checkpoint.networks["generator"]["residual.weight"])


def test_grey_stays_grey_and_transparency_is_upscaled():
    slope = np.linspace(0, 255, 9 * 11 * 4).round().astype(np.uint8)
    colour = Image.fromarray(slope.reshape(9, 11, 4))
    generator = trained()
    for mode, expected in (("L", "L"), ("1", "L"), ("LA", "LA"), ("RGBA", "RGBA"), ("RGB", "RGB"),
                           ("P", "RGB"), ("CMYK", "RGB")):  # fmt: skip
        source = colour.convert("RGB").convert(mode) if mode in ("P", "CMYK") else colour.convert(mode)
        large = enlarge(generator, source)
        assert (large.mode, large.size) == (expected, (44, 36))
        if "A" in mode:
            alpha = colour.getchannel("A").resize((44, 36), Image.Resampling.BICUBIC)
            difference = np.array(large.getchannel("A")).astype(int) - np.array(alpha)
            assert abs(difference).max() <= 1


def test_a_palette_with_a_transparent_colour_keeps_it():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(0, (0, 0, 8, 4))
    image.info["transparency"] = 0
    large = enlarge(trained(), image)
    assert large.mode == "RGBA" and large.getpixel((16, 2))[3] == 0 and large.getpixel((16, 30))[3] == 255


def test_photographs_are_turned_upright_and_keep_their_colour_profile(run, tmp_path):
    image = Image.new("RGB", (20, 10), (200, 100, 50))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, icc_profile=b"a profile")
    for suffix in ("png", "jpg", "webp", "bmp"):
        assert command(run, tmp_path / "turned.jpg", tmp_path / f"large.{suffix}") == 0
        with Image.open(tmp_path / f"large.{suffix}") as large:
            assert large.size == (40, 80)
            assert large.info.get("icc_profile") == (None if suffix == "bmp" else b"a profile")


def test_a_folder_becomes_a_folder_of_pngs(run, photo_folder, tmp_path, capsys):
    assert command(run, photo_folder, tmp_path / "out") == 0
    assert len(list((tmp_path / "out" / "coffee").glob("*.png"))) == 4
    assert len(capsys.readouterr().out.splitlines()) == 12


def test_what_cannot_be_read_in_a_folder_is_named_and_the_rest_is_done(run, photograph, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.open(photograph).save(folder / "b.png")
    (folder / "a.jpg").write_bytes(b"no image")
    assert command(run, folder, tmp_path / "out") == 1
    output = capsys.readouterr()
    assert output.out == f"{tmp_path / 'out' / 'b.png'}\n"
    assert f"{folder / 'a.jpg'} cannot be read as an image" in output.err and "1 of 2 images" in output.err


# --- what is wrong ----------------------------------------------------------------------------------------


def test_nothing_is_lost_silently(run, photograph, tmp_path, capsys):
    cat = Image.open(photograph)
    cat.putalpha(128)
    cat.save(tmp_path / "alpha.png")
    assert command(run, tmp_path / "alpha.png", tmp_path / "large.jpg") == 1
    assert "has transparency, which .jpg cannot hold: name OUT large.png" in capsys.readouterr().err
    assert command(run, tmp_path / "alpha.png", tmp_path / "large.webp") == 0
    assert Image.open(tmp_path / "large.webp").mode == "RGBA"

    deep = Image.fromarray(np.full((8, 8), 40000, np.uint16))
    deep.save(tmp_path / "deep.png")
    assert command(run, tmp_path / "deep.png", tmp_path / "large.png") == 1
    assert "more than 8 bits per channel (mode I;16) are not supported" in capsys.readouterr().err

    cat.convert("RGB").save(
        tmp_path / "moving.webp", save_all=True, append_images=[Image.new("RGB", cat.size)]
    )
    assert command(run, tmp_path / "moving.webp", tmp_path / "large.png") == 1
    assert (
        "moving.webp cannot be read as an image: it has 2 frames: give them one by one"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("device", ["cuda", "gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_named(run, photograph, tmp_path, capsys, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("has a GPU")
    assert command(run, photograph, tmp_path / "x.png", "--device", device) == 1
    output = capsys.readouterr().err
    assert (
        output.startswith(f"fastgan: error: --device '{device}' cannot be used: ") and output.count("\n") == 1
    )


def test_images_are_never_overwritten_by_their_own_upscaling(run, photograph, tmp_path, capsys):
    assert command(run, photograph, photograph) == 1
    assert "is an image to upscale: name another OUT" in capsys.readouterr().err
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("x.png", "x.jpg"):
        Image.open(photograph).save(folder / name)
    assert command(run, folder, folder) == 1
    assert "name another OUT" in capsys.readouterr().err
    assert command(run, folder, tmp_path / "out") == 1
    assert "would both become" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "target", "more", "message"),
    [
        ("nowhere.png", "out.png", [], "no such image or folder: nowhere.png"),
        (None, "out.gif", [], "OUT must end in one of .png, .*got .*out.gif"),
        (None, "out.png", ["--tile", "4"], "tile must be at least 8, got 4"),
        (None, "out.png", ["--overlap", "200"], r"overlap must lie in \[0, 128\]"),
        (None, "out.png", ["--checkpoint", "nowhere"], "no checkpoint at nowhere"),
    ],
)
def test_wrong_arguments_are_named(run, photograph, tmp_path, capsys, source, target, more, message):
    assert command(run, source or photograph, tmp_path / target, *more) == 1
    import re

    assert re.search(f"fastgan: error: .*{message}", capsys.readouterr().err)


def test_a_truncated_photograph_is_an_error(run, photograph, tmp_path, capsys):
    cut = tmp_path / "cut.png"
    cut.write_bytes(photograph.read_bytes()[:900])
    assert command(run, cut, tmp_path / "out.png") == 1
    assert f"{cut} cannot be read as an image" in capsys.readouterr().err


def test_a_checkpoint_of_another_recipe_is_refused(photograph, tmp_path, capsys):
    folder = train(Toy, ToyConfig(runs_path=str(tmp_path), num_steps=1, accelerator="cpu"))
    assert command(folder, photograph, tmp_path / "out.png") == 1
    assert "is a checkpoint of the recipe 'toy', not of 'enhancenet'" in capsys.readouterr().err


def test_help_explains_the_options(capsys):
    for arguments, expected in (
        (["train", "enhancenet", "--help"], "What G minimizes. E: the mean squared error"),
        (["upscale", "--help"], "pixels by which tiles overlap"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        assert expected in " ".join(capsys.readouterr().out.split())
