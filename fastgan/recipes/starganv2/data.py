"""Images or latents of several domains: one folder each, paired at random for translation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fastgan._names import printable
from fastgan.training.checkpoint import read_weights
from fastgan.training.data import Find, find_files, find_local_files, split_held_out
from fastgan.training.orders import epoch_order
from fastgan.training.shards.paths import File, data_root, on_disk

LATENT_EXTENSIONS = (".safetensors", ".pt", ".pth", ".npy", ".npz")
LATENT_KEY = "latent"


def find_domains(folder: str | File, names: Sequence[str] = ()) -> dict[str, File]:
    """The domains' folders: those of the given names, in this order, or all subfolders, sorted.

    Raises:
        FileNotFoundError: no such folder, or no subfolder of a given name.
        ValueError: fewer than two domains.
    """
    if not str(folder):
        raise ValueError("train_path must name a folder that has one folder per domain, got ''")
    path = data_root(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder: {printable(path)}")
    subfolders = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    missing = [name for name in names if name not in subfolders]
    if missing:
        listed = printable(", ".join(subfolders)) or "none"
        raise FileNotFoundError(f"{printable(path)} has no folder {missing[0]!r}; it has: {listed}")
    chosen = list(names) or subfolders
    if len(set(chosen)) < 2:
        raise ValueError(
            f"{printable(path)} must have at least two domains, one folder each, "
            f"got {len(set(chosen))}{': ' + printable(chosen[0]) if chosen else ''}"
        )
    return {name: path / name for name in chosen}


def find_latents(folder: str | File, passed_over: Counter[str] | None = None) -> list[File]:
    """As :func:`fastgan.training.data.find_images`, for files of latents."""
    return find_files(folder, LATENT_EXTENSIONS, "latent", passed_over)


def find_local_latents(folder: Path) -> list[Path]:
    """As :func:`fastgan.training.data.find_local_images`, for files of latents."""
    return find_local_files(folder, LATENT_EXTENSIONS, "latent")


def split_domains(
    domains: dict[str, File], val_path: str | File, find: Find, passed_over: Counter[str] | None = None
) -> tuple[list[list[File]], list[list[File]]]:
    """Each domain's files to train on and held-out ones, see :func:`split_held_out`.

    Args:
        domains: their folders.
        val_path: a folder with the same domains; empty: of each domain, every tenth file (64 at most).
        find: returns the files in a folder.
        passed_over: counts what `find` skips.

    Raises:
        FileNotFoundError, ValueError: no such folder, or too few files in one.
    """
    held_out = find_domains(val_path, list(domains)) if str(val_path) else {}
    parts = [split_held_out(domains[name], held_out.get(name, ""), find, passed_over) for name in domains]
    return [train for train, _ in parts], [val for _, val in parts]


def read_latent(path: File, shape: tuple[int, int, int]) -> Tensor:
    """Reads a latent as it was stored, unscaled: C H W, float32.

    Args:
        path: .safetensors or .npz; .pt or .pth with a tensor, a parameter or a dict of them; or .npy. Of
            several tensors the one named "latent" is taken.
        shape: the required C H W; a leading dimension of 1 is accepted.

    Raises:
        ValueError: no such file, a damaged one, another shape, NaN or infinite values; the message names the
            file.
        ShardError: its shard cannot be read.
    """
    shown = printable(path)
    with on_disk(path) as local:
        try:
            content = _read_content(local)
        except Exception as error:  # the readers may raise anything for other files
            raise ValueError(f"{shown} cannot be read as a latent: {printable(error)}") from error
    latent = _select_latent(content, shown) if isinstance(content, Mapping) else content
    if not isinstance(latent, (Tensor, np.ndarray)):
        raise ValueError(f"{shown} must hold a tensor, got {type(latent).__name__}")
    try:
        if isinstance(latent, np.ndarray):
            latent = latent.astype(latent.dtype.newbyteorder("="))  # torch supports only native byte order
        latent = torch.as_tensor(latent).detach()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{shown} must hold numbers: {printable(error)}") from error
    if tuple(latent.shape) == (1, *shape):
        latent = latent[0]
    if tuple(latent.shape) != shape:
        raise ValueError(f"{shown} must hold a latent of shape {shape}, got {tuple(latent.shape)}")
    if latent.is_complex():
        raise ValueError(f"{shown} must hold real numbers, got {latent.dtype}")
    latent = latent.float()
    non_finite = int((~latent.isfinite()).sum())
    if non_finite:
        raise ValueError(f"{shown} has {non_finite} values of {latent.numel()} that are NaN or infinite")
    return latent


def _read_content(path: Path) -> Any:
    ending = path.suffix.lower()
    if ending in (".pt", ".pth"):
        return torch.load(path, map_location="cpu", weights_only=True)
    if ending == ".npy":
        return np.load(path, allow_pickle=False)
    if ending == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    return read_weights(path)[1]


def _select_latent(content: Mapping[str, Any], shown: str) -> Any:
    """The entry named "latent", or the only entry."""
    if LATENT_KEY in content:
        return content[LATENT_KEY]
    if len(content) == 1:
        return next(iter(content.values()))
    names = printable(", ".join(map(str, list(content)[:8]))) or "nothing"
    raise ValueError(f"{shown} must name the latent {LATENT_KEY!r}, or hold nothing else; it holds: {names}")


def check_latents(
    files: Sequence[File], shape: tuple[int, int, int], workers: int
) -> tuple[int, float, float]:
    """Reads all files; returns the number of their values, the sum, and the sum of squares.

    Raises:
        ValueError: as :func:`read_latent`, for the first invalid file.
    """

    def sums(path: File) -> tuple[float, float]:
        latent = read_latent(path, shape).double()
        return latent.sum().item(), latent.square().sum().item()

    with ThreadPoolExecutor(workers, thread_name_prefix="fastgan-latents") as pool:
        pending = [pool.submit(sums, path) for path in files]
        try:
            results = [future.result() for future in pending]
        except (ValueError, OSError):
            pool.shutdown(cancel_futures=True)
            raise
    return len(files) * math.prod(shape), sum(s for s, _ in results), sum(s for _, s in results)


def note_on_scale(deviation: float, scale: float) -> str:
    """A remark if the standard deviation of stored latents is implausible; "" otherwise.

    Networks expect about 1. Latents of Stable Diffusion's VAE have about 5.5, which its scale brings to 1.
    """
    if not 0 < deviation * scale < 0.4:
        return ""
    scaled = "once" if deviation > 0.4 else "twice"
    fits = 1 if 0.5 < deviation < 2 else float(f"{1 / deviation:.2g}")
    return (
        f"the latents have a standard deviation of {deviation:.2g} as they are stored, "
        f"{deviation * scale:.2g} times --latent_scale {scale:g}, where networks expect about 1: they "
        f"seem to be scaled {scaled} already. --latent_scale {fits:g} would fit them"
    )


class LatentFolder:
    """Latents of one domain as an endless stream, multiplied by a scale when they are read.

    Args:
        files: see :func:`find_latents`.
        shape: (C, H, W) that each must have.
        scale: the factor; 0.18215 gives latents of Stable Diffusion's VAE a standard deviation of about 1.
        seed: of the order.
    """

    def __init__(
        self, files: Sequence[File], shape: tuple[int, int, int], scale: float, seed: int = 0
    ) -> None:
        self.files, self.shape, self.scale = files, shape, scale
        self._order = epoch_order(files, seed)

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, k: int) -> np.ndarray:
        """Latent k: C H W, float32. Raises a ValueError for a file that :func:`read_latent` refuses."""
        path = self.files[self._order.index(k)]
        return (read_latent(path, self.shape) * self.scale).numpy()


class Domain(Protocol):
    """A stream of images or latents of one domain."""

    def __len__(self) -> int: ...
    def sample(self, k: int) -> np.ndarray: ...


class Batch(NamedTuple):
    """A training batch."""

    x_src: Tensor
    """Sources, which are translated: N C H W."""
    y_src: Tensor
    """Their domains: (N,), int64."""
    x_ref: Tensor
    """References of the target domains: N C H W."""
    x_ref2: Tensor
    """Further references of the target domains: N C H W."""
    y_trg: Tensor
    """The target domains: (N,), int64."""


Guides = Mapping[str, tuple[Tensor, Tensor]]
"""By kind of style, "ref" or "lat": the reference images or noise that give the style, and others, in whose
style the translation should look different."""


class Pairings:
    """Samples (x_src, y_src, x_ref, x_ref2, y_trg): sources and references, domains drawn independently.

    Among D consecutive samples, for D domains, each domain is the source once and the target once, so that
    small domains count as much as large ones; within a domain, each file is used once per epoch.
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
    """Samples (x, y) with equally frequent domains, for the classifier."""

    def __init__(self, domains: Sequence[Domain]) -> None:
        self.domains = domains

    def sample(self, k: int) -> tuple[np.ndarray, ...]:
        index, domain = divmod(k, len(self.domains))
        return self.domains[domain].sample(index), np.asarray(domain)
