"""StarGAN v2's data: domains on the disk, latents, pairs, rendered domains, and their errors."""

from __future__ import annotations

import dataclasses
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fastgan.recipes.starganv2.data import (
    Labelled,
    LatentFolder,
    Pairings,
    find_domains,
    find_latents,
    note_on_scale,
    read_latent,
)
from fastgan.recipes.starganv2.drawn_domains import DOMAINS, render, write_domains
from fastgan.recipes.starganv2.recipe import StarGANv2
from fastgan.training.processes.runtime import Runtime
from tests.recipes.starganv2_folders import image_config, latent_config, write_images, write_latents


class Numbers:
    """A domain whose sample k is the number k."""

    def __init__(self, sign):
        self.sign = sign

    def __len__(self):
        return 10

    def sample(self, k):
        return np.array([self.sign * (k + 1)])


def test_pairs_are_of_the_domains_they_are_said_to_be_and_all_count_alike():
    domains = [Numbers(1), Numbers(100), Numbers(10000)]
    pairs = Pairings(domains, seed=3)
    scale = [1, 100, 10000]
    used, together = [], 0
    for k in range(300):
        x_src, y_src, x_ref, x_ref2, y_trg = pairs.sample(k)
        assert y_src.dtype == y_trg.dtype == np.int64
        together += y_src == y_trg
        for x, y in ((x_src, y_src), (x_ref, y_trg), (x_ref2, y_trg)):
            assert x[0] % scale[y] == 0
            used.append((int(y), int(x[0] // scale[y])))
    assert len(set(used)) == len(used) == 900, "no sample of a domain is used twice, none left out"
    assert {y: sum(one == y for one, _ in used) for y in range(3)} == {0: 300, 1: 300, 2: 300}
    assert 70 < together < 130, "sources and targets are drawn independently"
    repeated = Pairings(domains, seed=3).sample(17)
    assert all(np.array_equal(a, b) for a, b in zip(repeated, pairs.sample(17), strict=True))


def test_the_classifier_sees_all_domains_alike():
    labelled = Labelled([Numbers(1), Numbers(-1)])
    samples = [labelled.sample(k) for k in range(6)]
    assert [int(y) for _, y in samples] == [0, 1] * 3
    assert [int(x[0]) for x, _ in samples] == [1, -1, 2, -2, 3, -3]


def test_latents_of_every_format_are_read_and_scaled(tmp_path):
    write_latents(tmp_path, count=4)
    files = find_latents(tmp_path / "a")
    assert [path.suffix for path in files] == [".pt", ".safetensors", ".pt", ".safetensors"]
    for index, path in enumerate(files):
        generator = torch.Generator().manual_seed(index)
        expected = 5 * torch.randn(4, 16, 16, generator=generator)
        torch.testing.assert_close(read_latent(path, (4, 16, 16)), expected)
    half = tmp_path / "half.pt"
    torch.save(torch.ones(4, 16, 16, dtype=torch.bfloat16), half)
    sample = LatentFolder([half], (4, 16, 16), 0.18215).sample(5)
    assert sample.dtype == np.float32 and sample.shape == (4, 16, 16)
    assert np.allclose(sample, 0.18215)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_bad_latents_are_named(tmp_path, suffix):
    def write(name, tensor):
        path = tmp_path / f"{name}{suffix}"
        torch.save(tensor, path) if suffix == ".pt" else save_file({"latent": tensor}, path)
        return path

    nan = torch.zeros(4, 16, 16)
    nan[0, 0, :3] = torch.nan
    nan[1, 1, 1] = torch.inf
    with pytest.raises(ValueError, match=rf"shape{suffix} .* \(4, 16, 16\), got \(4, 8, 8\)"):
        read_latent(write("shape", torch.zeros(4, 8, 8)), (4, 16, 16))
    with pytest.raises(ValueError, match=rf"nan{suffix} has 4 values of 1024 that are NaN or infinite"):
        read_latent(write("nan", nan), (4, 16, 16))
    damaged = write("damaged", nan)
    damaged.write_bytes(damaged.read_bytes()[:100])
    other = tmp_path / f"other{suffix}"
    content = {"image": nan, "mask": torch.zeros(2)}
    torch.save(content, other) if suffix == ".pt" else save_file(content, other)
    with pytest.raises(ValueError, match=f"{damaged.name} cannot be read as a latent"):
        read_latent(damaged, (4, 16, 16))
    with pytest.raises(ValueError, match=rf"{other.name} must name the latent 'latent', .* image, mask"):
        read_latent(other, (4, 16, 16))
    if suffix == ".pt":
        with pytest.raises(ValueError, match="must hold a tensor, got list"):
            read_latent(write("list", [1, 2]), (4, 16, 16))


LATENT = torch.linspace(-1, 1, 4 * 6 * 5).reshape(4, 6, 5)
WAYS = {
    "parameter.pt": lambda path: torch.save(torch.nn.Parameter(LATENT), path),
    "other key.pt": lambda path: torch.save({"samples": LATENT}, path),
    "among others.pt": lambda path: torch.save({"latent": LATENT, "prompt": torch.zeros(2)}, path),
    "batch of one.pt": lambda path: torch.save(LATENT[None], path),
    "half.pth": lambda path: torch.save(LATENT.half(), path),
    "other key.safetensors": lambda path: save_file({"z": LATENT}, path),
    "batch of one.safetensors": lambda path: save_file({"latent": LATENT[None].clone()}, path),
    "array.npy": lambda path: np.save(path, LATENT.numpy()),
    "big endian.npy": lambda path: np.save(path, LATENT.numpy().astype(">f8")),
    "columns first.npy": lambda path: np.save(path, np.asfortranarray(LATENT.numpy())),
    "arrays.npz": lambda path: np.savez(path, latent=LATENT.numpy(), label=np.zeros(1)),
    "one array.npz": lambda path: np.savez_compressed(path, LATENT.numpy()),
}


@pytest.mark.parametrize("name", WAYS)
def test_latents_as_people_have_them(name, tmp_path):
    WAYS[name](tmp_path / name)
    read = read_latent(tmp_path / name, (4, 6, 5))
    torch.testing.assert_close(read, LATENT, atol=2e-3 if "half" in name else 1e-7, rtol=0)
    assert read.dtype == torch.float32 and not read.requires_grad
    assert LatentFolder([tmp_path / name], (4, 6, 5), 0.5).sample(0).shape == (4, 6, 5)


class Stranger:
    pass


WRONG = {
    "object.pt": (lambda path: torch.save(Stranger(), path), "cannot be read as a latent"),
    "array in pickle.npy": (
        lambda path: np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True),
        "cannot be read as a latent",
    ),
    "text.npy": (lambda path: np.save(path, np.full((4, 6, 5), "x")), "must hold numbers"),
    "complex.pt": (lambda path: torch.save(LATENT + 1j, path), "must hold real numbers, got torch.complex64"),
    "several.npz": (lambda path: np.savez(path, a=LATENT, b=LATENT), "must name the latent 'latent'"),
    "batch of two.pt": (lambda path: torch.save(LATENT.repeat(2, 1, 1, 1), path), r"got \(2, 4, 6, 5\)"),
    "junk.pt": (lambda path: path.write_bytes(b"junk"), "cannot be read as a latent"),
    "no archive.npz": (lambda path: path.write_bytes(b"PK\x03\x04"), "cannot be read as a latent"),
    "number.pt": (lambda path: torch.save(3.0, path), "must hold a tensor, got float"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_latent_is_named(name, tmp_path):
    write, message = WRONG[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} .*{message}|{name} {message}"):
        read_latent(tmp_path / name, (4, 6, 5))


def test_all_latents_are_checked_before_the_start(tmp_path):
    folder = write_latents(tmp_path / "domains", count=12)
    torch.save(torch.full((4, 16, 16), torch.nan), sorted((folder / "b").glob("*.pt"))[-1])
    torch.save(torch.zeros(3), sorted((folder / "b").glob("*.pt"))[2])
    config = latent_config(folder, tmp_path / "runs")
    with pytest.raises(ValueError, match=r"b/04\.pt must hold a latent of shape"):
        make(config)


@pytest.mark.parametrize(
    "stored, scale, note",
    [
        (5.5, 0.18215, ""), (1.0, 1.0, ""), (8.0, 0.13025, ""), (3.0, 0.3611, ""), (0.0, 0.18215, ""),
        (1.02, 0.18215, "deviation of 1 as they are stored, 0.19 times --latent_scale .* scaled once"),
        (1.02, 0.18215, "already. --latent_scale 1 would fit"),
        (0.18, 0.18215, "deviation of 0.18 .* scaled twice already. --latent_scale 5.6 would fit"),
    ],
)  # fmt: skip
def test_scaled_latents_are_noticed(stored, scale, note):
    assert re.search(note, note_on_scale(stored, scale)) and bool(note) == bool(note_on_scale(stored, scale))


def test_a_run_on_scaled_latents_says_so(tmp_path):
    folder = write_latents(tmp_path / "domains", count=12)
    config = latent_config(folder, tmp_path / "runs")
    assert make(config).notes == [""]
    for path in folder.rglob("*.pt"):
        torch.save(read_latent(path, (4, 16, 16)) * 0.18215, path)
    for path in folder.rglob("*.safetensors"):
        save_file({"latent": read_latent(path, (4, 16, 16)) * 0.18215}, path)
    assert "--latent_scale 1 would fit them" in make(config).notes[0]


def make(config):
    return StarGANv2(config, Runtime(config))


def test_bad_domains_stop_the_run_at_its_start(tmp_path):
    folder = write_images(tmp_path / "domains", ("a", "b", "c"))
    config = image_config(folder, tmp_path / "runs")
    with pytest.raises(ValueError, match="train_path must name a folder"):
        make(dataclasses.replace(config, train_path=""))
    with pytest.raises(FileNotFoundError, match="no such folder: .*missing"):
        make(dataclasses.replace(config, train_path=str(tmp_path / "missing")))
    with pytest.raises(FileNotFoundError, match="has no folder 'd'; it has: a, b, c"):
        make(dataclasses.replace(config, domains=("a", "d")))
    with pytest.raises(ValueError, match="at least two domains, one folder each, got 1: a"):
        make(dataclasses.replace(config, domains=("a",)))
    with pytest.raises(ValueError, match="got 1: a"):
        make(dataclasses.replace(config, domains=("a", "a")))
    with pytest.raises(ValueError, match="at least two domains, one folder each, got 0"):
        make(dataclasses.replace(config, train_path=str(folder / "a")))
    with pytest.raises(ValueError, match="both hold 12 images"):
        make(dataclasses.replace(config, val_path=str(folder)))
    held_out = write_images(tmp_path / "held_out", ("a", "b"))
    with pytest.raises(FileNotFoundError, match="held_out has no folder 'c'; it has: a, b"):
        make(dataclasses.replace(config, val_path=str(held_out)))
    shutil.rmtree(folder / "b")
    (folder / "b").mkdir()
    with pytest.raises(ValueError, match="b holds no image"):
        make(config)
    with pytest.raises(ValueError, match="a holds no latent"):
        make(dataclasses.replace(config, data="latents"))
    recipe = make(dataclasses.replace(config, domains=("c", "a")))
    assert recipe.config.domains == ("c", "a")
    assert find_domains(folder, ("c", "a"))["c"] == folder / "c"


def test_a_bad_first_latent_stops_the_run_at_its_start_and_a_later_one_in_its_step(tmp_path):
    folder = write_latents(tmp_path / "latents")
    with pytest.raises(ValueError, match=r"must hold a latent of shape \(4, 32, 32\), got \(4, 16, 16\)"):
        make(latent_config(folder, tmp_path, image_size=32))
    recipe = make(latent_config(folder, tmp_path))
    for path in find_latents(folder / "a"):
        torch.save(torch.full((4, 16, 16), torch.nan), path.with_suffix(".pt"))
        path.with_suffix(".safetensors").unlink(missing_ok=True)
    recipe.train_domains[0].files = find_latents(folder / "a")
    with pytest.raises(ValueError, match="has 1024 values of 1024 that are NaN"):
        next(recipe.batches(0))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data": "videos"}, "data must be one of images, latents, got 'videos'"),
        ({"adversarial": "wgan"}, "adversarial must be one of hinge"),
        ({"updates": "alternating"}, "updates must be one of joint, in_turn, got 'alternating'"),
        ({"crop": "native"}, "crop must be one of fit, random, slight, got 'native'"),
        ({"image_size": 48}, "power of two and at least 8, got 48"),
        ({"downs": -1}, "downs must not be negative, got -1"),
        ({"lr_mapping": 0.0}, "lr_mapping must be positive, got 0.0"),
        ({"ds_decay_epochs": -1.0}, "ds_decay_epochs must not be negative"),
        ({"r1_interval": 0}, "r1_interval must be at least 1, got 0"),
        ({"eval_draws": 1}, "eval_draws must be at least 2"),
        ({"vae": "somewhere"}, "vae decodes latents, which data=images has none of"),
        ({"data": "latents", "crop": "slight"}, "crop is for images, which data=latents has none of"),
        ({"w_cyc": float("nan")}, "w_cyc must be finite, got nan"),
    ],
)
def test_bad_options_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        image_config(tmp_path, tmp_path, **changes)


def test_the_rendered_domains(tmp_path, monkeypatch):
    monkeypatch.setattr("fastgan.recipes.starganv2.drawn_domains.COUNTS", {"train": 3, "val": 2})
    write_domains(tmp_path)
    assert list(find_domains(tmp_path / "train")) == sorted(DOMAINS)
    pictures = {path: np.array(Image.open(path)) for path in sorted(tmp_path.rglob("*.png"))}
    assert len(pictures) == 2 * (3 + 2)
    assert {array.shape for array in pictures.values()} == {(32, 32, 3)}
    assert len({array.tobytes() for array in pictures.values()}) == 10
    for path, array in pictures.items():
        border = array[0].mean()
        assert border > 200 if "drawn" in str(path) else border < 60
    drawn, neon = (np.array(render(domain, np.random.default_rng(4))).astype(int) for domain in DOMAINS)
    inside = [np.abs(array - array[0, 0]).sum(2) > 60 for array in (drawn, neon)]
    boxes = [(np.argwhere(mask).min(0), np.argwhere(mask).max(0)) for mask in inside]
    assert np.abs(np.array(boxes[0]) - boxes[1]).max() <= 1, "one shape, at one place, in both domains"
