"""Trained models on the Hugging Face Hub, by huggingface_hub's mixin (extra `hub`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastgan._extras import how_to_install
from fastgan.training.config import to_plain
from fastgan.training.model import Model, load_model
from fastgan.training.model_files import FILE_NAME, without_places

try:
    from huggingface_hub import ModelHubMixin, hf_hub_download
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"models on the Hugging Face Hub need huggingface_hub: {how_to_install('hub')}", name=error.name
    ) from error

FILES = (FILE_NAME, "config.json")


class Pretrained(ModelHubMixin, library_name="fastgan", tags=["gan", "image-to-image"]):
    """A model as the mixin sees it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        config = to_plain(without_places(model.config))
        self._hub_mixin_config: Any = {"recipe": model.recipe, "options": config}

    def _save_pretrained(self, save_directory: Path) -> None:
        self.model.save(save_directory / FILE_NAME)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> Pretrained:
        """Takes `model_class`, `device` and `dtype`, see :meth:`Model.from_pretrained`."""
        path = Path(model_id) / FILE_NAME
        if not Path(model_id).is_dir():
            path = Path(
                hf_hub_download(
                    repo_id=model_id, filename=FILE_NAME, revision=revision, cache_dir=cache_dir,
                    force_download=force_download, token=token, local_files_only=local_files_only,
                )
            )  # fmt: skip
        elif not path.is_file():
            raise FileNotFoundError(f"no {FILE_NAME} in {model_id}")
        base = model_kwargs.pop("model_class", Model)
        return cls(load_model(path, base, **model_kwargs))
