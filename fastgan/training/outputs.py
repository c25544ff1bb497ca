"""Checks of the files that a command writes, made before it writes any."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from fastgan._names import printable

PAGES = (".html", ".htm")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Adds the option --overwrite of commands that write pictures."""
    parser.add_argument(
        "--overwrite", action="store_true",
        help="replace pictures that are there already (default: refuse, and name the first); what the "
        "command reads is never replaced",
    )  # fmt: skip


def check_picture(path: Path, overwrite: bool, option: str = "--output") -> None:
    """Checks the one picture that a command writes.

    Raises:
        FileExistsError: it exists, and must not be overwritten.
        ValueError: its extension is not that of a picture; the message names the option.
    """
    _check_one(path, PICTURES, "a picture, such as grid.png or grid.jpg", overwrite, option)


def check_page(path: Path, overwrite: bool, option: str = "--output") -> None:
    """Like :func:`check_picture`, for a page."""
    _check_one(path, PAGES, "a page, such as comparison.html", overwrite, option)


def check_new(path: Path, extensions: Collection[str], overwrite: bool, argument: str, remedy: str) -> None:
    """Checks a file that Python code writes.

    Args:
        argument: for errors.
        remedy: what replaces a file that is there; "": nothing.

    Raises:
        FileExistsError: it exists, and must not be overwritten, or is a folder.
        ValueError: another extension.
    """
    if path.suffix.lower() not in extensions:
        raise ValueError(f"{argument} must end in {' or '.join(extensions)}, got {printable(path)}")
    if path.is_dir():
        raise FileExistsError(f"{printable(path)} is a folder: give another {argument}")
    if not overwrite and (path.exists() or path.is_symlink()):
        replace = f"replace with {remedy}, or " if remedy else ""
        raise FileExistsError(f"{printable(path)} is there already: {replace}give another {argument}")


def _check_one(path: Path, extensions: Collection[str], kind: str, overwrite: bool, option: str) -> None:
    if path.is_dir() or path.suffix.lower() not in extensions:
        raise ValueError(f"{option} must name {kind}, got {printable(path)}")
    _check_free([path], option, overwrite)


def check_outputs(jobs: Iterable[tuple[Path, Path]], verb: str, option: str, overwrite: bool) -> None:
    """Checks (source, target) pairs; a source may have several targets.

    Args:
        verb, option: for errors: what is done to the images, and the option that names the targets.
        overwrite: whether targets may exist.

    Raises:
        FileExistsError: a target exists, and must not be overwritten.
        ValueError: two sources with the same target, or two targets that links make one file (the message
            names both), or a target that is a source.
    """
    jobs = list(jobs)
    check_not_read([target for _, target in jobs], [source for source, _ in jobs], verb, option)
    job_of: dict[str | tuple[int, int], tuple[Path, Path]] = {}
    for source, target in jobs:
        for identity in _identities(target):
            first_source, first_target = job_of.setdefault(identity, (source, target))
            if first_source != source and os.path.realpath(first_target) == os.path.realpath(target):
                raise ValueError(
                    f"{printable(first_source)} and {printable(source)} would both become "
                    f"{printable(target)}: rename one of them"
                )
            if first_target != target:
                raise ValueError(
                    f"{printable(first_target)} and {printable(target)} are links to one file, which cannot "
                    f"have both results: remove one of them, or name another {option}"
                )
    _check_free([target for _, target in jobs], option, overwrite)


def check_not_read(
    targets: Iterable[Path], sources: Iterable[Path], verb: str, option: str, kind: str = "an image"
) -> None:
    """Raises a ValueError for the first target that is also a source, by whatever path.

    Args:
        verb, option, kind: for errors, see :func:`check_outputs`; what the sources are.
    """
    read = {identity for source in sources for identity in _identities(source)}
    for target in targets:
        if not read.isdisjoint(_identities(target)):
            raise ValueError(f"{printable(target)} is {kind} to {verb}: name another {option}")


def _identities(path: Path) -> set[str | tuple[int, int]]:
    """Its path without symbolic links and, if it exists, its device and inode, which hard links share."""
    resolved = os.path.realpath(path)  # unlike Path.resolve, not stopped by a loop
    identities: set[str | tuple[int, int]] = {resolved}
    with contextlib.suppress(OSError):
        status = path.stat()
        identities.add((status.st_dev, status.st_ino))
    return identities


def check_apart(target: Path, folder: Path, option: str) -> None:
    """Raises a ValueError for results inside the folder that is read: the next call would read them, too."""
    resolved, read = Path(os.path.realpath(target)), Path(os.path.realpath(folder))
    if resolved == read or read in resolved.parents:
        relation = "is" if resolved == read else "lies in"
        raise ValueError(
            f"{option} {printable(target)} {relation} the folder that is read, {printable(folder)}: the next "
            f"call would take the results for images; name another {option}"
        )


def _check_free(targets: Iterable[Path], option: str, overwrite: bool) -> None:
    existing = [] if overwrite else [target for target in targets if target.exists() or target.is_symlink()]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise FileExistsError(
            f"{printable(existing[0])} is there already{more}: replace with --overwrite, or name another "
            f"{option}"
        )
