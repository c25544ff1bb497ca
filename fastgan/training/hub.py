"""Trained models on the Hugging Face Hub, by huggingface_hub's mixin (extra `hub`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastgan._extras import how_to_install
from fastgan._names import printable
from fastgan.ops._checks import check_instance
from fastgan.training.config import to_plain
from fastgan.training.model import Model
from fastgan.training.model_files import FILE_NAME, without_places

try:
    from huggingface_hub import ModelHubMixin, hf_hub_download
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"models on the Hugging Face Hub need huggingface_hub: {how_to_install('hub')}", name=error.name
    ) from error

FILES = (FILE_NAME, "config.json")
NAME_ON_HUB = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # others are paths


class Pretrained(ModelHubMixin, library_name="fastgan", tags=["gan", "image-to-image"]):
    """A model as the mixin sees it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        config = to_plain(without_places(model.config))
        self._hub_mixin_config: Any = {"recipe": model.recipe, "options": config}

    def _save_pretrained(self, save_directory: Path) -> None:
        self.model.save(save_directory / FILE_NAME)


def pretrained_file(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The model's file of a folder, or downloaded from the Hub; see :meth:`Model.from_pretrained`.

    The mixin's own way would read config.json as well, which nothing here needs: the file has it.
    """
    check_instance("name", name, (str, Path), "a folder, or 'user/name'")
    folder = Path(name)
    if folder.is_dir():
        if not (folder / FILE_NAME).is_file():
            raise FileNotFoundError(f"no {FILE_NAME} in {printable(folder)}")
        return folder / FILE_NAME
    if isinstance(name, Path) or not NAME_ON_HUB.fullmatch(name):
        hint = ", but a file: fastgan.load reads it" if folder.is_file() else ""
        raise FileNotFoundError(f"{printable(name)} is no folder{hint}")
    return Path(
        hf_hub_download(
            repo_id=name, filename=FILE_NAME, revision=revision, cache_dir=cache_dir, token=token,
            force_download=force_download, local_files_only=local_files_only,
        )
    )  # fmt: skip
