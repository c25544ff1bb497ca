"""Images from folders and shards, as a stream in which sample k is a function of (seed, k) alone.

A resumed run starts the stream at another k, and the number of reading threads has no influence.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastgan._names import printable
from fastgan._warnings import warn
from fastgan.ops._checks import check_one_of
from fastgan.training.built_in import data_folder
from fastgan.training.crops import CROPS, cut
from fastgan.training.image_files import EXTENSIONS, READING, Reading, UnusableImage, read_image
from fastgan.training.orders import epoch_order
from fastgan.training.shards.paths import File, ShardPath, data_root

# Decoded images are kept up to this many bytes per dataset.
CACHE_BYTES = 1 << 30


Find = Callable[[str | File, Counter[str] | None], list[File]]
"""A function like :func:`find_images`."""
Found = TypeVar("Found", bound=File)
LINKED, UNREADABLE, HIDDEN, NO_FILE = (
    "folders that are links", "folders that cannot be read", "hidden", "links to nothing and the like"
)  # fmt: skip


def find_images(folder: str | File, passed_over: Counter[str] | None = None) -> list[File]:
    """All image files of a dataset, sorted.

    Args:
        folder: a folder, which is searched recursively, or `builtin:NAME/PART`, see
            :mod:`fastgan.training.built_in`; or shards, in a folder or at a URL, see
            :mod:`fastgan.training.shards`.
        passed_over: counts what is skipped, by file extension.

    Raises:
        FileNotFoundError: no such folder, or no shards at the URL.
        OSError: the index of the shards cannot be read.
        ValueError: it holds no image file, or the index is not valid.
    """
    return find_files(folder, EXTENSIONS, "image", passed_over)


def find_files(
    folder: str | File, extensions: tuple[str, ...], kind: str, passed_over: Counter[str] | None = None
) -> list[File]:
    """All files of a dataset that have one of the extensions, sorted, see :func:`find_images`.

    Hidden files and folders, and folders that are links, are skipped.

    Args:
        kind: what the error calls the files.
    """
    root, skipped = data_root(folder), Counter[str]()
    found: Iterable[File] = files_below(root, skipped) if isinstance(root, Path) else root.files()
    files = _with_endings(root, found, extensions, kind, skipped)
    if passed_over is not None:
        passed_over.update(skipped)
    return files


def find_local_images(folder: Path) -> list[Path]:
    """As :func:`find_images`, but never in shards: for commands, which keep a folder's layout."""
    return find_local_files(folder, EXTENSIONS, "image")


def find_local_files(folder: Path, extensions: tuple[str, ...], kind: str) -> list[Path]:
    """As :func:`find_files`, but never in shards."""
    skipped = Counter[str]()
    return _with_endings(folder, files_below(folder, skipped), extensions, kind, skipped)


def files_below(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """All files below a folder that are not hidden, nor in hidden or linked folders, in no order.

    Args:
        skipped: counts what is.

    Raises:
        FileNotFoundError: no such folder.
    """
    if not folder.is_dir():
        reason = "this is no folder" if folder.exists() else "no such folder"
        raise FileNotFoundError(f"{reason}: {printable(folder)}")
    for name, folders, names in os.walk(folder, onerror=lambda error: skipped.update([UNREADABLE])):
        directory = Path(name)
        skipped[HIDDEN] += sum(inner.startswith(".") for inner in (*folders, *names))
        folders[:] = [inner for inner in folders if not inner.startswith(".")]
        skipped[LINKED] += sum((directory / inner).is_symlink() for inner in folders)
        yield from (directory / inner for inner in names if not inner.startswith("."))


def _with_endings(
    folder: File, found: Iterable[Found], extensions: tuple[str, ...], kind: str, skipped: Counter[str]
) -> list[Found]:
    """Those of the files that have one of the extensions, sorted; the others are counted."""
    files: list[Found] = []
    for path in found:
        ending = path.suffix.lower()
        if ending not in extensions:
            skipped[ending or "without an ending"] += 1
        elif path.is_file():
            files.append(path)
        else:
            skipped[NO_FILE] += 1
    if not files:
        what = describe_passed_over(skipped)
        raise ValueError(
            f"{printable(folder)} holds no {kind} ({', '.join(extensions)})"
            + (f", but what is passed over: {what}" if what else "")
        )
    return sorted(files)


def describe_passed_over(counts: Counter[str]) -> str:
    """The counts as text, such as "12 .heic, 3 .txt, 1 hidden"; "" for none."""
    nonzero = [(kind, count) for kind, count in counts.most_common() if count]
    most_common, others = nonzero[:6], sum(count for _, count in nonzero[6:])
    parts = [f"{count} {kind}" for kind, count in most_common] + ([f"{others} others"] if others else [])
    return printable(", ".join(parts))


def split_held_out(
    train_path: str | File,
    val_path: str | File = "",
    find: Find = find_images,
    passed_over: Counter[str] | None = None,
) -> tuple[list[File], list[File]]:
    """Files to train on and files to evaluate on, which never overlap.

    Without `val_path`, every tenth image of `train_path` is held out, 64 at most.

    Args:
        passed_over: counts what `find` skips.

    Raises:
        OSError, ValueError: no folder named, no such folder, too few images in it, or as `find` raises.
    """
    if not str(train_path):
        raise ValueError("train_path must name a folder with photographs, got ''")
    files = find(train_path, passed_over)
    if str(val_path):
        held_out = find(val_path, passed_over)
        overlap = {file.resolve() for file in files} & {file.resolve() for file in held_out}
        if overlap:
            raise ValueError(
                f"val_path must not lie in train_path: both hold {len(overlap)} images, "
                f"like {printable(min(overlap))}"
            )
        return files, held_out
    if len(files) < 2:
        raise ValueError(f"{printable(train_path)} holds one image, too few to hold one out: set val_path")
    held_out = files[::10][:64]
    chosen = set(held_out)
    return [file for file in files if file not in chosen], held_out


def files_digest(folder: str | File, files: Sequence[File]) -> str:
    """A checksum of the files' names below their dataset's folder, and of the index if they lie in shards."""
    digest = hashlib.sha256()
    start = "" if isinstance(files[0], ShardPath) else f"{data_folder(str(folder))}/"
    for file in files:
        name = file.inner if isinstance(file, ShardPath) else str(file).removeprefix(start)
        digest.update(os.fsencode(name) + b"\0")
    for index in sorted({file.store.index.sha256 for file in files if isinstance(file, ShardPath)}):
        digest.update(index.encode())
    return digest.hexdigest()


class Dataset(Protocol):
    """An endless stream of samples, which :func:`batches` reads."""

    def sample(self, k: int) -> np.ndarray | tuple[np.ndarray, ...]:
        """Sample k. Arrays H W 3 of uint8 are images; others, such as labels, stay unchanged."""
        ...


class ImageFolder:
    """Images of a dataset, each cut to one size.

    Args:
        files: image files, see :func:`find_images`.
        image_size: (height, width).
        crop: "fit", "random", "slight" or "native", see :func:`fastgan.training.crops.cut`.
        seed: of order and crops.
        reading: how files are read.

    Files that cannot be read, or for "native" are smaller than the size, are skipped; each is counted and
    named once in a warning. Too many of them, see :class:`Reading`, or all, raise a ValueError. A shard that
    cannot be read raises a ShardError.
    """

    def __init__(
        self,
        files: Sequence[File],
        image_size: tuple[int, int],
        crop: str = "fit",
        seed: int = 0,
        reading: Reading = READING,
    ) -> None:
        check_one_of("crop", crop, CROPS)
        self.reading = reading
        self.files, self.image_size, self.crop, self.seed = files, image_size, crop, seed
        self.unreadable: dict[File, str] = {}
        self._lock = threading.Lock()
        self._decoded: dict[File, Image.Image] = {}
        self._decoded_bytes = 0
        self._order = epoch_order(files, seed)

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, k: int) -> np.ndarray:
        """Image k of the endless stream: H W 3, uint8."""
        return self.sample_and_file(k)[0]

    def sample_and_file(self, k: int) -> tuple[np.ndarray, File]:
        """Image k of the endless stream, H W 3, uint8, and its file."""
        for attempt in range(len(self.files)):  # an unreadable file is replaced by the epoch's next
            path = self.files[self._order.index(k, attempt)]
            image = self._read(path)
            if image is not None:
                return np.array(self._cut(image, np.random.default_rng((self.seed, k)))), path
            self._check_enough()
        raise AssertionError("no file can be used, which was to be found before")

    def _read(self, path: File) -> Image.Image | None:
        with self._lock:
            if path in self.unreadable:
                return None
            if path in self._decoded:
                return self._decoded[path]
        try:
            image = read_image(path, self.reading)
            self._check_size(image)
        except UnusableImage as error:
            with self._lock:
                if path not in self.unreadable:
                    self.unreadable[path] = reason = printable(error)
                    warn(
                        f"skipped unusable image {len(self.unreadable)}: {printable(path)} ({reason})",
                        UserWarning,
                    )
            return None
        with self._lock:
            size = image.width * image.height * 3
            if self._decoded_bytes + size <= CACHE_BYTES:
                self._decoded[path] = image
                self._decoded_bytes += size
        return image

    def _check_enough(self) -> None:
        unusable, files, share = len(self.unreadable), len(self.files), self.reading.max_unusable
        if unusable == files or unusable > share * files:
            path, reason = next(iter(self.unreadable.items()))
            raise ValueError(
                f"{unusable} of {files} images cannot be used, and --max_unusable {share:g} allows no more, "
                f"e.g. {printable(path)}: {reason}"
            )

    def _check_size(self, image: Image.Image) -> None:
        height, width = self.image_size
        if self.crop == "native" and (image.height < height or image.width < width):
            raise UnusableImage(
                f"its size, {image.height}x{image.width}, is smaller than the crop, {height}x{width}"
            )

    def _cut(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        return cut(image, self.image_size, self.crop, random)


def first_batch(dataset: Dataset, count: int, device: torch.device | str = "cpu") -> Any:
    """The first `count` samples as one batch, see :func:`batches`."""
    with contextlib.closing(batches(dataset, count, workers=1, device=device, ahead=1)) as stream:
        return next(stream)


def batches(
    dataset: Dataset,
    batch_size: int,
    *,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    accumulate: int = 1,
    workers: int = 2,
    device: torch.device | str = "cpu",
    ahead: int = 3,
) -> Generator[Any, None, None]:
    """Endless batches on the device, read ahead by threads: a tensor, or one per part of the samples.

    Images become N 3 H W float32 in [0, 1]; other arrays are stacked unchanged.

    Process r of R takes the batch_size samples from (step R + r) batch_size on, so that the processes'
    batches of a step, joined, are the batch of a single process with R times the batch size. With
    `accumulate`, K batches in turn belong to a step: what is said of R processes holds for R K parts, of
    which process r computes those from r K on.
    """
    pin = torch.device(device).type == "cuda"

    def read(number: int) -> list[Tensor] | Tensor:
        step, micro_batch = divmod(number, accumulate)
        first = ((step * world_size + rank) * accumulate + micro_batch) * batch_size
        samples = [dataset.sample(k) for k in range(first, first + batch_size)]
        if isinstance(samples[0], np.ndarray):
            return stack(samples)
        return [stack(parts) for parts in zip(*samples, strict=True)]

    def stack(arrays: Any) -> Tensor:
        stacked = torch.from_numpy(np.stack(arrays))
        return stacked.pin_memory() if pin else stacked

    def on_device(stacked: Tensor) -> Tensor:
        moved = stacked.to(device, non_blocking=True)
        if moved.dtype != torch.uint8:
            return moved
        return moved.permute(0, 3, 1, 2).float().div_(255).contiguous()

    with ThreadPoolExecutor(workers, thread_name_prefix="fastgan-data") as pool:
        first = start_step * accumulate
        pending = [pool.submit(read, first + i) for i in range(ahead)]
        step = first + ahead
        while True:
            batch = pending.pop(0).result()
            pending.append(pool.submit(read, step))
            step += 1
            if isinstance(batch, Tensor):
                yield on_device(batch)
            else:
                yield tuple(on_device(part) for part in batch)
