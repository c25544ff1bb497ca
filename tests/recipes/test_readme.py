"""The README's commands and snippets run as they stand, on small data and with small networks."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from fastgan.cli import main
from fastgan.recipes import RECIPES
from tests.recipes.fonts import font_file
from tests.recipes.starganv2_folders import write_images
from tests.stress.tiny_runs import OWN

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
LINES = re.findall(r"^ {4,}(fastgan .*)$", TEXT, re.MULTILINE)
COMMANDS = [re.split(r"\s+# ", line)[0] for line in LINES]
# What the reader puts in place of the README's names.
NAMES = {
    "IMAGES": "photographs", "PHOTOGRAPHS": "photographs", "DOMAINS": "domains", "DOGS": "domains/dog",
    "IN": "photo.png", "OUT": "large.png", '"..."': '"Ab"', "gb2312-common": "latin",
}  # fmt: skip
# Weights that must be downloaded are left out.
SMALL = {
    **{name: re.sub(r"--train_path \S+", "", options) for name, options in OWN.items()},
    "enhancenet": "--variant E --crop 64 --width 4 --blocks 2 --val_images 2",
    # A message of seven characters takes the paper's 100 bits.
    "stegastamp": "--image_size 32 --val_images 2 --lpips_loss_scale 0",
}
SHORT = "--num_steps 1 --num_epochs 0 --batch_size 4 --accelerator cpu --workers 1"
NEEDS_A_VAE = "--vae VAE"


@pytest.fixture(scope="module")
def place(photo_folder, tmp_path_factory):
    """A folder with all that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(photo_folder, folder / "photographs")
    write_images(folder / "domains", ("cat", "dog"))
    Image.open(folder / "domains" / "cat" / "0.png").save(folder / "cat.jpg")
    photograph = sorted(path for path in photo_folder.rglob("*") if path.is_file())[0]
    Image.open(photograph).convert("RGB").resize((64, 48)).save(folder / "photo.png")
    for name, font in (("A", "DejaVuSans"), ("B", "DejaVuSerif-Bold"), ("C", "cmr10")):
        shutil.copy(font_file(font), folder / f"{name}.ttf")
    return folder


def small(command: str) -> list[str]:
    for name, value in NAMES.items():
        command = re.sub(rf"(?<=\s){re.escape(name)}(?=\s|$)", value, command)
    words = shlex.split(command)[1:]
    if words[0] == "train" and "--help" not in words:
        words += shlex.split(f"{SHORT} {SMALL[words[1]]}")
    if words[0] == "resume":
        words += ["--num_epochs", "0", "--num_steps", "2"]
    return words


def test_the_readme_shows_every_recipe_and_command():
    shown = {tuple(command.split()[1:3]) for command in COMMANDS}
    assert {("train", name) for name in RECIPES} <= shown
    assert {"resume", "upscale", "sample", "stegastamp", "data"} <= {first for first, _ in shown}
    assert len(SNIPPETS) >= 6


@pytest.mark.filterwarnings("ignore:skipped unusable:UserWarning")
def test_commands(place, monkeypatch, capsys):
    """In the README's order, in which one takes what the one before has made."""
    monkeypatch.chdir(place)
    for command in COMMANDS:
        if NEEDS_A_VAE in command:
            continue
        words = small(command)
        # Two of them are of one name: a reader has trained one of the two.
        if words[0] == "train" and "--exp_name" in words:
            shutil.rmtree(Path("runs") / words[words.index("--exp_name") + 1], ignore_errors=True)
        try:
            code = main(words)
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        # An untrained network finds no message, and says so.
        expected = (1,) if words[:2] == ["stegastamp", "decode"] else (0,)
        assert code in expected and "error" not in said.err, (command, said.err)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4, 2, 1))

    def forward(self, x):
        return self.layers(x).flatten(1).mean(1)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.split("import ")[1].split("\n")[0])
def test_snippets(snippet):
    random = torch.Generator().manual_seed(0)
    n, h, w = 2, 64, 64
    image = torch.rand(n, 3, h, w, generator=random)
    names = dict(
        image=image, encoded=(image * 0.9 + 0.05).requires_grad_(), n=n, h=h, w=w, generator=random,
        contrast=torch.full((n,), 1.1), offset=torch.zeros(n, 3), desaturation=torch.zeros(n),
        discriminator=Discriminator(), real=image * 2 - 1, fake=(1 - image * 2).requires_grad_(), step=16,
    )  # fmt: skip
    if "optim" in snippet:
        names["generator"] = nn.Linear(3, 3)
    snippet = snippet.replace(
        'LPIPS(net="vgg")', 'LPIPS(net="vgg", weights=None)'
    )  # ImageNet's are a download
    snippet = snippet.replace("compile=True", "compile=False")
    exec(compile(snippet, str(README), "exec"), names)
