"""Photographs from folders, as a stream in which image k is a function of (seed, k) alone.

Resuming is starting the stream elsewhere, and the number of reading threads changes nothing.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Decoded images are kept up to this many bytes per dataset.
CACHE_BYTES = 1 << 30
# What PIL raises for files that are no images, truncated, or absurdly large.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def find_images(folder: str | Path) -> list[Path]:
    """All image files below a folder, sorted.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it holds no image file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
    if not files:
        raise ValueError(f"{folder} holds no image ({', '.join(EXTENSIONS)})")
    return files


def split_held_out(train_path: str | Path, val_path: str | Path = "") -> tuple[list[Path], list[Path]]:
    """Files to train on and files to evaluate on, which never overlap.

    Without `val_path`, every tenth image of `train_path` is held out, 64 at most.

    Raises:
        FileNotFoundError, ValueError: no folder named, no such folder, or too few images in it.
    """
    if not str(train_path):
        raise ValueError("train_path must name a folder with photographs, got ''")
    files = find_images(train_path)
    if str(val_path):
        held_out = find_images(val_path)
        overlap = {file.resolve() for file in files} & {file.resolve() for file in held_out}
        if overlap:
            raise ValueError(
                f"val_path must not lie in train_path: both hold {len(overlap)} images, like {min(overlap)}"
            )
        return files, held_out
    if len(files) < 2:
        raise ValueError(f"{train_path} holds one image, too few to hold one out: set val_path")
    held_out = files[::10][:64]
    return [file for file in files if file not in set(held_out)], held_out


def read_image(path: Path) -> Image.Image:
    """The whole image as RGB, upright. Raises one of UNREADABLE for a damaged file."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """3 H W float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


class ImageFolder:
    """Images from a folder, read recursively, each cut to one size.

    Args:
        files: image files, see :func:`find_images`.
        image_size: (height, width).
        crop: "fit" scales the image to cover the size and cuts the centre, as StegaStamp does;
            "random" cuts a random part, up to four times the size, and mirrors half of them.
        seed: of order and crops.

    Unreadable files are skipped, and each is named once in a warning. When none is left, ValueError.
    """

    def __init__(
        self,
        files: list[Path],
        image_size: tuple[int, int],
        crop: str = "fit",
        seed: int = 0,
    ) -> None:
        if crop not in ("fit", "random"):
            raise ValueError(f"crop must be 'fit' or 'random', got {crop!r}")
        self.files, self.image_size, self.crop, self.seed = files, image_size, crop, seed
        self.unreadable: dict[Path, str] = {}
        self._lock = threading.Lock()
        self._decoded: dict[Path, Image.Image] = {}
        self._decoded_bytes = 0
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, k: int) -> np.ndarray:
        """Image k of the endless stream: H W 3, uint8."""
        epoch, position = divmod(k, len(self.files))
        order = self._order(epoch)
        for attempt in range(len(self.files)):  # the next readable file of the epoch takes the place
            image = self._read(self.files[order[(position + attempt) % len(order)]])
            if image is not None:
                return np.array(self._cut(image, np.random.default_rng((self.seed, k))))
        raise ValueError(f"none of the {len(self.files)} images can be read, e.g. {self.files[0]}")

    def _order(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._orders:
                self._orders = {e: o for e, o in self._orders.items() if abs(e - epoch) <= 1}
                random = np.random.default_rng((self.seed, epoch, len(self.files)))
                self._orders[epoch] = random.permutation(len(self.files))
            return self._orders[epoch]

    def _read(self, path: Path) -> Image.Image | None:
        with self._lock:
            if path in self.unreadable:
                return None
            if path in self._decoded:
                return self._decoded[path]
        try:
            image = read_image(path)
        except UNREADABLE as error:
            with self._lock:
                if path not in self.unreadable:
                    self.unreadable[path] = str(error)
                    warnings.warn(
                        f"skipped unreadable image {len(self.unreadable)}: {path} ({error})",
                        stacklevel=2,
                    )
            return None
        with self._lock:
            size = image.width * image.height * 3
            if self._decoded_bytes + size <= CACHE_BYTES:
                self._decoded[path] = image
                self._decoded_bytes += size
        return image

    def _cut(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        height, width = self.image_size
        if self.crop == "fit":
            return ImageOps.fit(image, (width, height))
        largest = min(image.width / width, image.height / height)
        scale = random.uniform(min(1.0, largest), min(4.0, largest))
        left = random.uniform(0, image.width - scale * width)
        top = random.uniform(0, image.height - scale * height)
        box = (left, top, left + scale * width, top + scale * height)
        cut = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        return ImageOps.mirror(cut) if random.random() < 0.5 else cut


def batches(
    dataset: ImageFolder,
    batch_size: int,
    *,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 2,
    device: torch.device | str = "cpu",
    ahead: int = 3,
) -> Generator[Tensor, None, None]:
    """Endless batches N 3 H W in [0, 1] on the device, read ahead by threads.

    Process r of R takes samples (step R + r) batch_size and on, so that the processes' batches of a step
    joined are the batch of one process with R times the batch size.
    """
    pin = torch.device(device).type == "cuda"

    def read(step: int) -> Tensor:
        first = (step * world_size + rank) * batch_size
        images = [dataset.sample(k) for k in range(first, first + batch_size)]
        stacked = torch.from_numpy(np.stack(images))
        return stacked.pin_memory() if pin else stacked

    with ThreadPoolExecutor(workers, thread_name_prefix="fastgan-data") as pool:
        pending = [pool.submit(read, start_step + i) for i in range(ahead)]
        step = start_step + ahead
        while True:
            batch = pending.pop(0).result().to(device, non_blocking=True)
            pending.append(pool.submit(read, step))
            step += 1
            yield batch.permute(0, 3, 1, 2).float().div_(255).contiguous()
