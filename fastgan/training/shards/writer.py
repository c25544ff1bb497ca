"""`fastgan data shard`: a folder's files in shards, with an index."""

from __future__ import annotations

import argparse
import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from fastgan._arguments import Parser
from fastgan._files import naming, replacing
from fastgan._names import printable
from fastgan.training.built_in import data_folder
from fastgan.training.data import describe_passed_over, files_below
from fastgan.training.image_files import EXTENSIONS, Reading, UnusableImage, add_pixel_limit, read_image
from fastgan.training.shards.index import INDEX, Entry, Index, Shard, index_text, parse_index

MEGABYTE = 10**6
# Long transfers hide the latency of a request; short ones let an epoch's order mix more shards in a window.
SHARD_MB, WINDOW_MB = 64, 2048
CHECKED_AT_ONCE = 256


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan data shard",
        description="Writes the files of a folder into shards, tar files of equal size, with an index. "
        "Training reads them in place of the folder, from OUT or from a URL at which it is served.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="a folder, or builtin:NAME/PART")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder")
    parser.add_argument(
        "--shard_size", type=float, default=SHARD_MB, help=f"of a shard, in megabytes (default: {SHARD_MB})"
    )
    parser.add_argument(
        "--window", type=float, default=WINDOW_MB,
        help="megabytes of shards that the order of an epoch mixes at a time; a machine keeps up to twice "
        f"as many of a URL's (default: {WINDOW_MB})",
    )  # fmt: skip
    parser.add_argument(
        "--max_unusable", type=float, default=Reading.max_unusable,
        help=f"share of the images that may be unusable (default: {Reading.max_unusable:g})",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, help="threads that check images (default: 2)")
    add_pixel_limit(parser)
    options = parser.parse_args(arguments)
    _check_options(options)
    index = write_shards(
        data_folder(options.folder), options.out,
        shard_size=int(options.shard_size * MEGABYTE), window=int(options.window * MEGABYTE),
        reading=Reading(options.max_pixels, max_unusable=options.max_unusable), workers=options.workers,
    )  # fmt: skip
    print(
        f"files: {len(index.files)}, shards: {len(index.shards)}, {index.size / 1e6:.1f} MB in "
        f"{printable(options.out)}: train with --train_path there, or at a URL at which it is served"
    )
    return 0


def write_shards(
    folder: Path,
    out: Path,
    *,
    shard_size: int = SHARD_MB * MEGABYTE,
    window: int = WINDOW_MB * MEGABYTE,
    reading: Reading = Reading(),  # noqa: B008  (frozen)
    workers: int = 2,
) -> Index:
    """Writes all files of a folder, as they are, into shards, and then the index; returns the index.

    Images that cannot be read are printed, and written all the same: the shards have the order and the
    held-out files of their folder, and training skips what it skips there. Without the index, as after an
    interruption, the shards count for nothing.

    Args:
        out: a new or empty folder.
        shard_size: bytes after which a shard ends; a larger file has one of its own.
        window: bytes, see :class:`fastgan.training.orders.ShardOrder`.
        reading: how images are read to check them.
        workers: threads that do so.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no files, or too many unusable images; `out` is not empty, or lies in it.
        OSError: a file cannot be read or written.
    """
    _check_out(folder, out)
    skipped: Counter[str] = Counter()
    files = [path for path in sorted(files_below(folder, skipped)) if path.is_file()]
    if not files:
        raise ValueError(f"{printable(folder)} holds no files")
    endings = Counter(path.suffix.lower() or "without an ending" for path in files)
    print(f"{describe_passed_over(endings)} in {printable(folder)}", end="")
    print(f"; passed over: {passed_over}" if (passed_over := describe_passed_over(skipped)) else "")
    out.mkdir(parents=True, exist_ok=True)
    checked = _checked(files, reading, workers)
    shards: list[Shard] = []
    entries: dict[str, Entry] = {}
    with tqdm(total=len(files), unit="file", desc="shards", disable=None) as progress:
        for number, part in enumerate(_parts(checked, shard_size, progress)):
            shards.append(_write_shard(out / f"{number:05d}.tar", number, part, folder, entries))
    content = index_text(shards, entries, window)
    with replacing(out / INDEX) as file:
        file.write(content)
    return parse_index(content.encode(), str(out / INDEX))


def _write_shard(
    path: Path, number: int, files: list[Path], folder: Path, entries: dict[str, Entry]
) -> Shard:
    """Writes one shard, and adds its files to the entries."""
    with naming(path):
        with tarfile.open(path, "x", format=tarfile.PAX_FORMAT) as tar:
            for file in files:
                content = file.read_bytes()
                name = file.relative_to(folder).as_posix()
                header = tarfile.TarInfo(name)  # the same for equal folders: no times, no owners
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
                offset = tar.offset - _blocks(len(content)) * tarfile.BLOCKSIZE
                entries[name] = Entry(number, offset, len(content))
        with path.open("rb") as written:
            digest = hashlib.sha256()
            while block := written.read(1 << 20):
                digest.update(block)
    return Shard(path.name, path.stat().st_size, digest.hexdigest())


def _blocks(size: int) -> int:
    """Number of a tar file's blocks that so many bytes take."""
    return -(-size // tarfile.BLOCKSIZE)


def _parts(files: Iterable[Path], shard_size: int, progress: tqdm) -> Iterator[list[Path]]:
    """The files of each shard."""
    part: list[Path] = []
    total = 0
    for file in files:
        size = (1 + _blocks(file.stat().st_size)) * tarfile.BLOCKSIZE  # with the header
        if part and total + size > shard_size:
            yield part
            progress.update(len(part))
            part, total = [], 0
        part.append(file)
        total += size
    if part:
        yield part
        progress.update(len(part))


def _checked(files: list[Path], reading: Reading, workers: int) -> Iterator[Path]:
    """The files; unusable images are printed. Raises a ValueError if they are too many."""
    images = sum(path.suffix.lower() in EXTENSIONS for path in files)
    unusable = 0
    remaining = iter(files)
    with ThreadPoolExecutor(workers, thread_name_prefix="fastgan-shards") as pool:
        while batch := list(islice(remaining, CHECKED_AT_ONCE)):
            for path, problem in zip(
                batch, pool.map(lambda path: _problem(path, reading), batch), strict=True
            ):
                if problem:
                    unusable += 1
                    named = f"{printable(path)}: {printable(problem)}"
                    tqdm.write(f"unusable, which training will skip: {named}")
                    if unusable == images or unusable > reading.max_unusable * images:
                        raise ValueError(
                            f"{unusable} of {images} images cannot be used, and --max_unusable "
                            f"{reading.max_unusable:g} allows no more, e.g. {named}"
                        )
                yield path


def _problem(path: Path, reading: Reading) -> str:
    """Why a file is no usable image; "" if it is one, or is not named as an image."""
    if path.suffix.lower() not in EXTENSIONS:
        return ""
    try:
        read_image(path, reading)
    except UnusableImage as error:
        return str(error)
    return ""


def _check_options(options: argparse.Namespace) -> None:
    for name in ("shard_size", "window"):
        if not 0 < getattr(options, name) < float("inf"):
            raise ValueError(f"--{name} must be above 0 megabytes, got {getattr(options, name):g}")
    if not 0 <= options.max_unusable <= 1:
        raise ValueError(f"--max_unusable must lie in [0, 1], got {options.max_unusable:g}")
    if options.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {options.workers}")


def _check_out(folder: Path, out: Path) -> None:
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"OUT must not lie in FOLDER, got {printable(out)} in {printable(folder)}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"OUT must be a new or empty folder, got the file {printable(out)}")
    found = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if found:
        hint = "" if INDEX in found else f" (without {INDEX}: what an interruption left can be deleted)"
        raise ValueError(
            f"OUT must be a new or empty folder, got {printable(out)}, which has {len(found)} files, "
            f"like {printable(found[0])}{hint}"
        )
