"""Which file a command writes for which file it reads, checked before it writes any."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fastgan.training.names import printable

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def check_picture(path: Path, option: str = "--output") -> None:
    """Raises a ValueError that names the option for a file whose name tells no format of pictures."""
    if path.is_dir() or path.suffix.lower() not in PICTURES:
        raise ValueError(f"{option} must name a picture, such as grid.png or grid.jpg, got {printable(path)}")


def check_outputs(jobs: Iterable[tuple[Path, Path]], verb: str, option: str) -> None:
    """Checks (source, target) pairs; a source may have several targets.

    Args:
        verb, option: what is done to the images, and the option that says where results go, for errors.

    Raises:
        ValueError: two sources of one target (names both), or a target that is a source.
    """
    jobs = list(jobs)
    sources = {source.resolve() for source, _ in jobs}
    taken: dict[Path, Path] = {}
    for source, target in jobs:
        place = target.resolve()
        if place in sources:
            raise ValueError(f"{printable(target)} is an image to {verb}: name another {option}")
        first = taken.setdefault(place, source)
        if first != source:
            raise ValueError(
                f"{printable(first)} and {printable(source)} would both become {printable(target)}: "
                "rename one of them"
            )
