"""Images or latents of several domains: one folder each, paired at random for translation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fastgan.training.built_in import data_folder
from fastgan.training.checkpoint import read_weights
from fastgan.training.data import EpochOrder, Find, find_files, split_held_out
from fastgan.training.names import printable

LATENT_EXTENSIONS = (".safetensors", ".pt")
LATENT_KEY = "latent"


def find_domains(folder: str | Path, names: Sequence[str] = ()) -> dict[str, Path]:
    """The folders of the domains: of these names in this order, or all subfolders, sorted.

    Raises:
        FileNotFoundError: no such folder, or none of a name.
        ValueError: fewer than two domains.
    """
    if not str(folder):
        raise ValueError("train_path must name a folder that has one folder per domain, got ''")
    path = data_folder(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder: {printable(path)}")
    found = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    missing = [name for name in names if name not in found]
    if missing:
        there = printable(", ".join(found)) or "none"
        raise FileNotFoundError(f"{printable(path)} has no folder {missing[0]!r}; it has: {there}")
    chosen = list(names) or found
    if len(set(chosen)) < 2:
        raise ValueError(
            f"{printable(path)} must have at least two domains, one folder each, "
            f"got {len(set(chosen))}{': ' + printable(chosen[0]) if chosen else ''}"
        )
    return {name: path / name for name in chosen}


def find_latents(folder: str | Path, passed_over: Counter[str] | None = None) -> list[Path]:
    """As :func:`fastgan.training.data.find_images`, for files of latents."""
    return find_files(folder, LATENT_EXTENSIONS, "latent", passed_over)


def split_domains(
    domains: dict[str, Path], val_path: str | Path, find: Find, passed_over: Counter[str] | None = None
) -> tuple[list[list[Path]], list[list[Path]]]:
    """Each domain's files to train on and held-out ones, see :func:`split_held_out`.

    Args:
        domains: their folders.
        val_path: a folder with the same domains; empty: of each domain, every tenth file (64 at most).
        find: files in a folder.
        passed_over: counts what `find` leaves out.

    Raises:
        FileNotFoundError, ValueError: no such folder, or too few files in one.
    """
    held_out = find_domains(val_path, list(domains)) if str(val_path) else {}
    parts = [split_held_out(domains[name], held_out.get(name, ""), find, passed_over) for name in domains]
    return [train for train, _ in parts], [val for _, val in parts]


def read_latent(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """A latent as it was stored, unscaled: C H W, float32.

    Args:
        path: .safetensors with the key "latent"; or .pt with a tensor, or a dict with it at "latent".
        shape: what it must have.

    Raises:
        ValueError: no such file, a damaged one, another shape, NaN or infinite values; names the file.
    """
    shown = printable(path)
    try:
        if path.suffix.lower() == ".pt":
            latent = torch.load(path, map_location="cpu", weights_only=True)
            latent = latent[LATENT_KEY] if isinstance(latent, dict) else latent
        else:
            latent = read_weights(path)[1][LATENT_KEY]
    except (UnpicklingError, LookupError, OSError, RuntimeError, TypeError, ValueError, EOFError) as error:
        raise ValueError(f"{shown} cannot be read as a latent: {printable(error)}") from error
    if not isinstance(latent, Tensor):
        raise ValueError(f"{shown} must hold a tensor, got {type(latent).__name__}")
    if tuple(latent.shape) != shape:
        raise ValueError(f"{shown} must hold a latent of shape {shape}, got {tuple(latent.shape)}")
    latent = latent.float()
    wrong = int((~latent.isfinite()).sum())
    if wrong:
        raise ValueError(f"{shown} has {wrong} values of {latent.numel()} that are NaN or infinite")
    return latent


class LatentFolder:
    """Latents of one domain as an endless stream, multiplied by a scale when they are read.

    Args:
        files: see :func:`find_latents`.
        shape: (C, H, W) that each must have.
        scale: the factor; 0.18215 gives latents of Stable Diffusion's VAE a standard deviation of about 1.
        seed: of the order.
    """

    def __init__(self, files: list[Path], shape: tuple[int, int, int], scale: float, seed: int = 0) -> None:
        self.files, self.shape, self.scale = files, shape, scale
        self._order = EpochOrder(len(files), seed)

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, k: int) -> np.ndarray:
        """Latent k: C H W, float32. Raises ValueError for a file that :func:`read_latent` refuses."""
        path = self.files[self._order.index(k)]
        return (read_latent(path, self.shape) * self.scale).numpy()


class Domain(Protocol):
    """A stream of images or latents of one domain."""

    def __len__(self) -> int: ...
    def sample(self, k: int) -> np.ndarray: ...


class Batch(NamedTuple):
    """What a step trains on."""

    x_src: Tensor
    """What is translated: N C H W."""
    y_src: Tensor
    """Their domains: (N,), int64."""
    x_ref: Tensor
    """References of the target domains: N C H W."""
    x_ref2: Tensor
    """Other ones."""
    y_trg: Tensor
    """The target domains: (N,), int64."""


Guides = Mapping[str, tuple[Tensor, Tensor]]
"""Of each kind of style, "ref" or "lat", what it is of, reference images or noise; and others, in whose style
the translation is to look different."""


class Pairings:
    """Samples (x_src, y_src, x_ref, x_ref2, y_trg): sources and references, domains drawn independently.

    Of as many samples as there are domains each domain is the source once and the target once, so that small
    ones count as much as large ones; every domain's files take their turns, each file once per round.
    """

    def __init__(self, domains: Sequence[Domain], seed: int = 0) -> None:
        self.domains, self.seed = domains, seed

    def sample(self, k: int) -> tuple[np.ndarray, ...]:
        """Sample k of the endless stream, in the order of :class:`Batch`."""
        count = len(self.domains)
        block, place = divmod(k, count)
        random = np.random.default_rng((self.seed, block))
        source, target = random.permutation(count)[place], random.permutation(count)[place]
        x_src = self.domains[source].sample(3 * block)
        references = [self.domains[target].sample(3 * block + number) for number in (1, 2)]
        return x_src, np.asarray(source), *references, np.asarray(target)


class Labelled:
    """Samples (x, y) with all domains alike, for the classifier."""

    def __init__(self, domains: Sequence[Domain]) -> None:
        self.domains = domains

    def sample(self, k: int) -> tuple[np.ndarray, ...]:
        index, domain = divmod(k, len(self.domains))
        return self.domains[domain].sample(index), np.asarray(domain)
