"""Input of commands: crafted weights, decompression bombs, folders whose images have the same names."""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastgan.cli import main
from fastgan.recipes.dcgan.config import DCGANConfig
from fastgan.recipes.dcgan.recipe import make_generator as make_dcgan
from fastgan.recipes.enhancenet.config import EnhanceNetConfig
from fastgan.recipes.enhancenet.networks import EnhanceNetGenerator
from fastgan.recipes.starganv2.config import StarGANv2Config
from fastgan.recipes.starganv2.translator import make_networks
from fastgan.recipes.stegastamp.config import StegaStampConfig
from fastgan.recipes.stegastamp.networks import StegaStampDecoder, StegaStampEncoder
from fastgan.recipes.zi2zi.config import Zi2ZiConfig
from fastgan.recipes.zi2zi.recipe import make_generator as make_zi2zi
from fastgan.training.checkpoint import FORMAT, write_weights
from fastgan.training.config import to_plain

CONFIGS = {
    "stegastamp": StegaStampConfig(image_size=32, secret_size=32),
    "dcgan": DCGANConfig(image_size=32, z_dim=4, g_width=2),
    "enhancenet": EnhanceNetConfig(width=4, blocks=1, crop=64),
    "zi2zi": Zi2ZiConfig(image_size=32, width=4, embedding_dim=4),
    "starganv2": StarGANv2Config(
        image_size=16, style_dim=4, z_dim=4, base_width=4, max_width=8, mapping_width=4, domains=("a", "b")
    ),
}


def networks(name: str, config: Any = None) -> dict[str, nn.Module]:
    config = config or CONFIGS[name]
    if name == "stegastamp":
        size = (config.secret_size, config.image_size)
        return {"encoder": StegaStampEncoder(*size), "decoder": StegaStampDecoder(*size)}
    if name == "starganv2":
        return dict(
            zip(("generator", "mapping_network", "style_encoder"), make_networks(config), strict=True)
        )
    builders = {
        "dcgan": lambda: make_dcgan(config),
        "enhancenet": lambda: EnhanceNetGenerator(config.scale, config.width, config.blocks),
        "zi2zi": lambda: make_zi2zi(config, 2),
    }
    return {"generator": builders[name]()}


def checkpoint(name, path, changes=None, tensors=None):
    """Writes the parts of a recipe's checkpoint that commands need, with changes."""
    metadata = {
        "format": FORMAT, "recipe": name, "step": "1", "state": "{}", "param_groups": "{}",
        "config": json.dumps(to_plain(CONFIGS[name]) | (changes or {})),
    }  # fmt: skip
    weights = {f"networks/{n}/{k}": w for n, m in networks(name).items() for k, w in m.state_dict().items()}
    write_weights(path, {k: w for k, w in (weights | (tensors or {})).items() if w is not None}, metadata)
    return path


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photograph.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def command(name, checkpoint, image, output):
    return {
        "stegastamp": [
            "stegastamp",
            "encode",
            "--image",
            image,
            "--secret",
            "hi",
            "--save_dir",
            output.parent,
        ],
        "dcgan": ["sample", "dcgan", "--num", "1", "--output", output],
        "enhancenet": ["upscale", image, output],
        "zi2zi": ["sample", "zi2zi", "--text", "a", "--category", "0", "--output", output],
        "starganv2": ["sample", "starganv2", "--source", image, "--target_domain", "b", "--output", output],
    }[name] + ["--checkpoint", checkpoint]


def run(name, checkpoint, image, output):
    return main([str(part) for part in command(name, checkpoint, image, output)])


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"zi2zi"}))  # which needs a font as well
def test_whole_checkpoints_are_taken(name, tmp_path, photograph):
    assert (
        run(name, checkpoint(name, tmp_path / "x.safetensors"), photograph, tmp_path / "out" / "x.png") == 0
    )


TERA = 10**12
CRAFTED = [
    ("stegastamp", {"secret_size": TERA}, {}, "does not fit"),
    ("stegastamp", {"image_size": 16 * TERA}, {}, "cannot be made|does not fit"),
    ("stegastamp", {"image_size": [32]}, {}, "the configuration in .* image_size must be"),
    ("stegastamp", {}, {"networks/decoder/x": torch.ones(1)}, "does not fit"),
    ("dcgan", {"z_dim": TERA}, {}, "does not fit"),
    ("dcgan", {"g_width": 2**62}, {}, "cannot be made|does not fit"),
    ("dcgan", {"image_size": "32"}, {}, "image_size must be one of 32, 64, 128, 256, got '32'"),
    ("dcgan", {}, {"networks/generator/layers.0.weight": None}, "does not fit"),
    ("enhancenet", {"width": TERA}, {}, "cannot be made|does not fit"),
    ("enhancenet", {"blocks": 10**9}, {}, "blocks must be at most 1000, got 1000000000"),
    ("enhancenet", {"scale": None}, {}, "scale must be one of 2, 4, got None"),
    ("zi2zi", {"embedding_dim": TERA}, {}, "does not fit"),
    ("zi2zi", {"image_size": 2**60}, {}, "does not fit|cannot be made"),
    ("zi2zi", {}, {"networks/generator/embedding.weight": None}, "does not fit"),
    ("zi2zi", {}, {"networks/generator/embedding.weight": torch.tensor(1.0)}, "does not fit"),
    ("starganv2", {"base_width": TERA, "max_width": TERA}, {}, "does not fit|cannot be made"),
    ("starganv2", {"domains": []}, {}, "cannot be made|does not fit"),
    ("starganv2", {"domains": [1, 2]}, {}, r"domains must be of type tuple\[str, ...\], got \(1, 2\)"),
    ("starganv2", {"image_size": 2**60}, {}, "does not fit|cannot be made"),
]


@pytest.mark.parametrize(("name", "changes", "tensors", "message"), CRAFTED)
def test_crafted_checkpoints_are_one_error(name, changes, tensors, message, tmp_path, photograph, capsys):
    path = checkpoint(name, tmp_path / "x.safetensors", changes, tensors)
    assert run(name, path, photograph, tmp_path / "out" / "x.png") == 1
    output = capsys.readouterr().err
    assert output.startswith("fastgan: error: ") and str(path) in output and re.search(message, output), (
        output
    )
    assert not (tmp_path / "out").exists()


def test_crafted_exports_are_one_error(tmp_path, capsys):
    path = tmp_path / "g.safetensors"
    weights = make_dcgan(CONFIGS["dcgan"]).state_dict()
    config = json.dumps(to_plain(CONFIGS["dcgan"]))
    for metadata, change, message in (
        ({"recipe": "dcgan"}, {}, "is not complete: its metadata has no 'config'"),
        ({"recipe": "dcgan", "config": "[]"}, {}, "is not complete: its config must be an object, got list"),
        ({"recipe": "dcgan", "config": '{"z_dim": 1000000000000}'}, {}, "does not fit"),
        ({"recipe": "zi2zi", "config": config}, {}, "is a model of the recipe 'zi2zi', not of 'dcgan'"),
        ({"config": config}, {}, "is a safetensors file, but not a checkpoint of fastgan"),
        (
            {"recipe": "dcgan", "config": config},
            {"layers.0.weight": torch.tensor(float("nan"))},
            "is of no use",
        ),
    ):
        write_weights(path, weights | change, metadata)
        assert main(["sample", "dcgan", "--checkpoint", str(path), "--output", str(tmp_path / "x.png")]) == 1
        printed = capsys.readouterr().err
        assert printed.startswith(f"fastgan: error: {path} ") and message in printed, printed


def test_a_damaged_export_is_named(tmp_path, capsys):
    path = tmp_path / "g.safetensors"
    metadata = {"recipe": "dcgan", "config": json.dumps(to_plain(CONFIGS["dcgan"]))}
    write_weights(path, make_dcgan(CONFIGS["dcgan"]).state_dict(), metadata)
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    assert main(["sample", "dcgan", "--checkpoint", str(path), "--output", str(tmp_path / "x.png")]) == 1
    assert "g.safetensors is not a readable safetensors file: its tensor" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["[]", "{", "[" * 90_000, '{"categories": 3}', '{"categories": [{}]}', '{"size": "x"}']
)
def test_a_crafted_glyphs_json_is_one_error(text, tmp_path, capsys, photograph):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "glyphs.json").write_text(text)
    path = checkpoint("zi2zi", tmp_path / "checkpoints" / "x.safetensors")
    assert run("zi2zi", path, photograph, tmp_path / "x.png") == 1
    assert capsys.readouterr().err.startswith(f"fastgan: error: {tmp_path / 'glyphs.json'} is not ")


# --- pixels -----------------------------------------------------------------------------------------------


def write_bomb(path):
    """A PNG of a few KB whose header claims 13000x13000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 13000, 13000, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(10**5))), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", ["stegastamp", "enhancenet", "starganv2"])
def test_an_image_of_too_many_pixels_is_an_error_for_a_command(name, tmp_path, photograph, capsys):
    path, output = checkpoint(name, tmp_path / "x.safetensors"), tmp_path / "out" / "x.png"
    bomb = write_bomb(tmp_path / "bomb.png")
    assert run(name, path, bomb, output) == 1
    printed = capsys.readouterr().err
    assert (
        f"{bomb} cannot be read as an image: it has 13000x13000 pixels, more than --max_pixels 89478485"
        in printed
    )
    arguments = [str(part) for part in command(name, path, photograph, output)]
    assert main([*arguments, "--max_pixels", "1919"]) == 1
    assert "it has 48x40 pixels, more than --max_pixels 1919 allows" in capsys.readouterr().err
    assert main([*arguments, "--max_pixels", "1920"]) == 0


# --- outputs ----------------------------------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path, photograph):
    """Images with the same name in several folders."""
    folder = tmp_path / "images"
    for place in ("a.png", "x/a.png", "x/deep/a.png", "y/a.png"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.open(photograph).save(folder / place)
    return folder


def encode(tmp_path, images, saved, *more):
    path = checkpoint("stegastamp", tmp_path / "x.safetensors")
    arguments = ["--checkpoint", path, "--images_dir", images, "--secret", "hi", "--save_dir", saved, *more]
    return main(["stegastamp", "encode", *map(str, arguments)])


def test_encode_keeps_the_structure_of_a_folder(tmp_path, nested):
    assert encode(tmp_path, nested, tmp_path / "out") == 0
    outputs = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png"))
    places = ("", "x/", "x/deep/", "y/")
    assert outputs == sorted(f"{place}a_{kind}.png" for place in places for kind in ("hidden", "residual"))


@pytest.mark.parametrize("second", ["x/a.jpg", "x/a.PNG", "x/a.webp"])
def test_encode_refuses_two_images_of_one_output_before_it_writes(tmp_path, nested, capsys, second):
    Image.open(nested / "a.png").save(nested / second)
    assert encode(tmp_path, nested, tmp_path / "out") == 1
    output = capsys.readouterr().err
    first, other = sorted((nested / "x" / "a.png", nested / second))
    assert f"{first} and {other} would both become {tmp_path / 'out' / 'x' / 'a_hidden.png'}" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_encode_refuses_to_overwrite_one_file_with_two_results(tmp_path, nested, capsys, link):
    (tmp_path / "out").mkdir()
    hidden, residual = (tmp_path / "out" / f"a_{name}.png" for name in ("hidden", "residual"))
    hidden.write_bytes(b"before")
    link(hidden, residual)
    assert encode(tmp_path, nested, tmp_path / "out", "--overwrite") == 1
    assert f"{hidden} and {residual} are links to one file" in capsys.readouterr().err
    assert hidden.read_bytes() == b"before" and not (tmp_path / "out" / "x").exists()


def test_upscale_refuses_to_overwrite_one_file_with_two_images(tmp_path, nested, capsys):
    (tmp_path / "out" / "x").mkdir(parents=True)
    first, second = tmp_path / "out" / "a.png", tmp_path / "out" / "x" / "a.png"
    first.write_bytes(b"before")
    os.link(first, second)
    path = checkpoint("enhancenet", tmp_path / "x.safetensors")
    arguments = ["upscale", nested, tmp_path / "out", "--checkpoint", path, "--overwrite"]
    assert main([*map(str, arguments)]) == 1
    assert f"{first} and {second} are links to one file" in capsys.readouterr().err
    assert first.read_bytes() == b"before" and not (tmp_path / "out" / "y").exists()


def test_encode_never_writes_over_an_image_it_reads(tmp_path, nested, capsys):
    before = (nested / "a.png").read_bytes()
    (nested / "x" / "a.png").rename(nested / "a_hidden.png")
    assert encode(tmp_path, nested, nested) == 1
    assert (
        f"{nested / 'a_hidden.png'} is an image to encode: name another --save_dir" in capsys.readouterr().err
    )
    assert (nested / "a.png").read_bytes() == before and not list(nested.rglob("*residual*"))


def test_an_unreadable_image_of_several_is_named_and_the_others_are_encoded(tmp_path, nested, capsys):
    (nested / "x" / "a.png").write_bytes(b"no image")
    assert encode(tmp_path, nested, tmp_path / "out") == 1
    output = capsys.readouterr().err
    assert f"{nested / 'x' / 'a.png'} cannot be read as an image" in output
    assert "fastgan: 1 of 4 images could not be read" in output
    assert len(list((tmp_path / "out").rglob("*_hidden.png"))) == 3


def test_upscale_refuses_two_images_of_one_output(tmp_path, nested, capsys):
    Image.open(nested / "a.png").save(nested / "y" / "a.jpg")
    path = checkpoint("enhancenet", tmp_path / "x.safetensors")
    assert main(["upscale", str(nested), str(tmp_path / "out"), "--checkpoint", str(path)]) == 1
    output = capsys.readouterr().err
    assert f"{nested / 'y' / 'a.jpg'} and {nested / 'y' / 'a.png'} would both become" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_what_is_there_is_overwritten_only_when_told(name, tmp_path, photograph, capsys):
    output = tmp_path / "out" / "x.png"
    arguments = [
        str(part) for part in command(name, checkpoint(name, tmp_path / "x.safetensors"), photograph, output)
    ]
    if name == "zi2zi":
        fonts = pytest.importorskip("matplotlib").get_data_path()
        arguments += ["--source-font", f"{fonts}/fonts/ttf/DejaVuSans.ttf"]
    written = output.with_name("photograph_hidden.png") if name == "stegastamp" else output
    written.parent.mkdir()
    written.write_bytes(b"mine")
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(
        f"fastgan: error: {written} is there already: replace with --overwrite, or name "
    )
    assert printed.count("\n") == 1 and [*written.parent.iterdir()] == [written]
    assert written.read_bytes() == b"mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert Image.open(written).format == "PNG"


def test_several_outputs_that_are_there_are_counted(tmp_path, nested, capsys):
    assert encode(tmp_path, nested, tmp_path / "out") == 0
    assert encode(tmp_path, nested, tmp_path / "out") == 1
    assert f"{tmp_path / 'out' / 'a_hidden.png'} is there already (and 7 more): " in capsys.readouterr().err


@pytest.mark.parametrize("place", ["", "made", "x/deep"])
@pytest.mark.parametrize("name", ["stegastamp", "enhancenet", "starganv2"])
def test_results_never_lie_in_the_folder_that_is_read(name, place, tmp_path, nested, capsys):
    path, target = checkpoint(name, tmp_path / "x.safetensors"), nested / place
    before = sorted(nested.rglob("*"))
    arguments, option = {
        "stegastamp": (
            ["stegastamp", "encode", "--images_dir", nested, "--secret", "hi", "--save_dir", target],
            "--save_dir",
        ),
        "enhancenet": (["upscale", nested, target], "OUT"),
        "starganv2": (command("starganv2", path, nested, target / "grid.png"), "--output"),
    }[name]
    assert main([*map(str, arguments), "--checkpoint", str(path), "--overwrite"]) == 1
    printed = capsys.readouterr().err
    shown = target / "grid.png" if name == "starganv2" else target
    lies = "is" if shown == nested else "lies in"
    assert f"{option} {shown} {lies} the folder that is read, {nested}: " in printed
    assert f"name another {option}" in printed and sorted(nested.rglob("*")) == before


def test_a_grid_never_replaces_what_it_is_made_of(tmp_path, photograph, capsys):
    path, before = checkpoint("starganv2", tmp_path / "x.safetensors"), photograph.read_bytes()
    arguments = [*command("starganv2", path, photograph, photograph), "--overwrite"]
    assert main([*map(str, arguments)]) == 1
    assert f"{photograph} is an image to translate: name another --output" in capsys.readouterr().err
    assert photograph.read_bytes() == before


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_other_names_of_what_is_read_are_not_replaced(link, tmp_path, photograph, capsys):
    path, before = checkpoint("enhancenet", tmp_path / "x.safetensors"), photograph.read_bytes()
    link(photograph, tmp_path / "linked.png")
    assert (
        main(
            [
                "upscale",
                str(photograph),
                str(tmp_path / "linked.png"),
                "--checkpoint",
                str(path),
                "--overwrite",
            ]
        )
        == 1
    )
    assert f"{tmp_path / 'linked.png'} is an image to upscale: name another OUT" in capsys.readouterr().err
    assert photograph.read_bytes() == before


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
@pytest.mark.parametrize("name", ["enhancenet", "starganv2"])
def test_a_link_to_itself_is_one_error(name, more, tmp_path, photograph, capsys):
    path, loop = checkpoint(name, tmp_path / "x.safetensors"), tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert main([*map(str, command(name, path, photograph, loop)), *more]) == 1
    said = capsys.readouterr().err
    assert said.startswith("fastgan: error: ") and str(loop) in said and said.count("\n") == 1


@pytest.mark.parametrize("option", ["--source", "--reference"])
def test_unusable_files_of_a_folder_are_skipped_counted_and_named(
    option, tmp_path, nested, photograph, capsys
):
    path, output = checkpoint("starganv2", tmp_path / "x.safetensors"), tmp_path / "out" / "x.png"
    for place in ("a.png", "x/a.png"):
        (nested / place).write_bytes(b"no image")
    arguments = [*map(str, command("starganv2", path, photograph, output)), option, str(nested)]
    with pytest.warns(UserWarning, match="skipped unusable file") as warned:
        assert main(arguments) == 0
    named = [str(w.message) for w in warned if "skipped unusable" in str(w.message)]
    assert len(named) == 2 and named[1].startswith("skipped unusable file 2: ")
    assert all(
        f"{nested / place} cannot be read" in text
        for place, text in zip(("a.png", "x/a.png"), named, strict=True)
    )
    assert output.exists()
    for place in ("x/deep/a.png", "y/a.png"):
        (nested / place).write_bytes(b"no image")
    with pytest.warns(UserWarning, match="skipped unusable file"):
        assert main([*arguments, "--overwrite"]) == 1
    assert f"none of the 4 files of {nested} can be used, e.g. {nested / 'a.png'}" in capsys.readouterr().err
    assert main([*map(str, command("starganv2", path, nested / "a.png", tmp_path / "y.png"))]) == 1
    assert f"{nested / 'a.png'} cannot be read as an image" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", str(2**70)])
@pytest.mark.parametrize("name", ["dcgan", "starganv2"])
def test_seeds_of_commands_are_named(name, seed, tmp_path, photograph, capsys):
    path = checkpoint(name, tmp_path / "x.safetensors")
    arguments = [str(part) for part in command(name, path, photograph, tmp_path / "x.png")]
    assert main([*arguments, f"--seed={seed}"]) == 1
    assert f"--seed must lie in [0, 2**63), got {seed}" in capsys.readouterr().err
