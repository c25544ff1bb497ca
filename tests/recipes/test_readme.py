"""The commands and snippets of README and docs run as they stand, on small data and with small networks."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from fastgan.cli import main
from fastgan.recipes import RECIPES
from tests.recipes.fonts import font_file
from tests.recipes.models import untrained
from tests.recipes.starganv2_folders import write_images
from tests.stress.tiny_runs import OWN

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
SNIPPETS = [
    pytest.param(page, snippet, id=f"{page}: {snippet.split('import ')[1].splitlines()[0]}")
    for page, text in TEXTS.items()
    for snippet in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]
# Indented in four blanks or more, as code is.
COMMANDS = {
    page: [re.split(r"\s+# ", line)[0] for line in re.findall(r"^ {4,}(fastgan .*)$", text, re.MULTILINE)]
    for page, text in TEXTS.items()
}
# What pages say that commands print.
PRINTED = {
    (page, command): shown
    for page, text in TEXTS.items()
    for command, shown in re.findall(
        r"^ {4}(fastgan .*)\n\n```text\n(.*?)```", text, re.MULTILINE | re.DOTALL
    )
}
# Replacements for the pages' placeholders.
NAMES = {
    "IMAGES": "photographs", "PHOTOGRAPHS": "photographs", "DOMAINS": "domains", "DOGS": "domains/dog",
    "IN": "photo.png", "OUT": "large.png", '"..."': '"Ab"', "gb2312-common": "latin",
}  # fmt: skip
# Without weights that must be downloaded.
SMALL = {
    **{name: re.sub(r"--train_path \S+", "", options) for name, options in OWN.items()},
    "enhancenet": "--variant E --crop 64 --width 4 --blocks 2 --val_images 2",
    # A message of seven characters takes the paper's 100 bits.
    "stegastamp": "--image_size 32 --val_images 2 --lpips_loss_scale 0",
}
SHORT = "--num_steps 1 --num_epochs 0 --batch_size 4 --accelerator cpu --workers 1"
NEEDS_A_VAE = "--vae VAE"
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
# The runs of docs/models.md, which are of untrained networks here.
MODELS = {
    "faces": "dcgan", "stamps": "stegastamp", "large": "enhancenet", "animals": "starganv2", "brush": "zi2zi"
}  # fmt: skip


@pytest.fixture(scope="module")
def place(photo_folder, tmp_path_factory):
    """A folder with all files that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(photo_folder, folder / "photographs")
    write_images(folder / "domains", ("cat", "dog"))
    Image.open(folder / "domains" / "cat" / "0.png").save(folder / "cat.jpg")
    photograph = sorted(path for path in photo_folder.rglob("*") if path.is_file())[0]
    Image.open(photograph).convert("RGB").resize((64, 48)).save(folder / "photo.png")
    for name, font in (("A", "DejaVuSans"), ("B", "DejaVuSerif-Bold"), ("C", "cmr10")):
        shutil.copy(font_file(font), folder / f"{name}.ttf")
    # Of a D that wins.
    lines = [f"{step},{0.99 - 0.4 * 0.9**step:.4f},{0.02 + 0.4 * 0.9**step:.4f}" for step in range(40)]
    (folder / "log.csv").write_text("\n".join(["iter,D(x),D(G(z))", *lines]) + "\n")
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


def test_the_pages_show_every_recipe_and_command():
    shown = {tuple(command.split()[1:3]) for commands in COMMANDS.values() for command in commands}
    assert {("train", name) for name in RECIPES} <= shown
    expected = {"resume", "upscale", "sample", "stegastamp", "data", "info", "bench", "diagnose", "compare"}
    assert expected <= {words[0] for words in shown}
    assert len(SNIPPETS) >= 8
    assert ("README.md", "fastgan diagnose log.csv") in PRINTED
    for page, text in TEXTS.items():
        # Commands must be in code blocks, which this test runs.
        assert not re.search(r"^ {0,3}fastgan [a-z0-9 ]*--", text, re.MULTILINE), page
        # Fences of other languages would not be run here.
        languages = set(re.findall(r"^ *```(\w+)$", text, re.MULTILINE))
        assert languages <= {"python", "text", "mermaid", "cpp", "cmake"}, (page, languages)
        for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL):
            assert not re.search(r"^ *(?:\$ *)?fastgan ", block, re.MULTILINE), (page, block)


@pytest.mark.filterwarnings("ignore:skipped unusable:UserWarning")
@pytest.mark.parametrize("page", [page for page, commands in COMMANDS.items() if commands])
def test_commands(page, place, tmp_path, monkeypatch, capsys):
    """In the page's order, in which commands use the results of earlier ones."""
    shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for command in COMMANDS[page]:
        if NEEDS_A_VAE in command or (".onnx" in command and not HAS_ONNX):
            continue
        words = small(command)
        try:
            code = main(words)
        except SystemExit as left:
            code = left.code
        output = capsys.readouterr()
        # An untrained network finds no message.
        expected = (1,) if words[:2] == ["stegastamp", "decode"] else (0,)
        assert code in expected and "error" not in output.err, (command, output.err)
        assert PRINTED.get((page, command), "") in output.out, output.out


@pytest.fixture(scope="module")
def place_of_models(place, tmp_path_factory):
    """The same with models, of a folder of its own: tests run in any order."""
    place = shutil.copytree(place, tmp_path_factory.mktemp("readme_of_models") / "here")
    for run, name in MODELS.items():
        (place / "runs" / run).mkdir(parents=True)
        changes = {"domains": ("cat", "dog")} if name == "starganv2" else {}
        untrained(name, **changes).save(place / "runs" / run / "model.safetensors")
    Image.open(place / "domains" / "dog" / "0.png").save(place / "dog.jpg")
    return place


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4, 2, 1))

    def forward(self, x):
        return self.layers(x).flatten(1).mean(1)


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS)
def test_snippets(page, snippet, place_of_models, monkeypatch):
    random = torch.Generator().manual_seed(0)
    n, h, w = 2, 64, 64
    image = torch.rand(n, 3, h, w, generator=random)
    names = dict(
        image=image, encoded=(image * 0.9 + 0.05).requires_grad_(), n=n, h=h, w=w, generator=random,
        contrast=torch.full((n,), 1.1), offset=torch.zeros(n, 3), desaturation=torch.zeros(n),
        discriminator=Discriminator(), real=image * 2 - 1, fake=(1 - image * 2).requires_grad_(), step=16,
    )  # fmt: skip
    decoder = nn.Sequential(OrderedDict(conv_in=nn.Conv2d(4, 3, 3, 1, 1), conv_out=nn.Conv2d(3, 3, 3, 1, 1)))
    latent = torch.rand(n, 4, h, w, generator=random)
    names |= {"decoder": decoder, "latent": latent, "generated": decoder(latent)}
    names["discriminators"] = lambda images: [[images, names["discriminator"](images)]] * 2
    names |= {"z": latent[:, 0, 0, :8], "mapping": nn.Linear(8, 8)}
    names["synthesis"] = nn.Sequential(nn.Linear(8, 48), nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))
    names["codebook_loss"] = latent.square().mean()
    if "optim" in snippet:
        names["generator"] = nn.Linear(3, 3)
    snippet = snippet.replace(
        'LPIPS(net="vgg")', 'LPIPS(net="vgg", weights=None)'
    )  # ImageNet's weights would be a download
    snippet = snippet.replace("DISTS()", "DISTS(load_weights=False, weights=None)")
    snippet = snippet.replace("Discriminator(disc_start=0", "Discriminator(weights=None, disc_start=0")
    snippet = snippet.replace("compile=True", "compile=False")
    if "fastgan.load(" in snippet:
        monkeypatch.chdir(place_of_models)
    exec(compile(snippet, page, "exec"), names)
