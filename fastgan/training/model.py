"""Trained networks in Python: `fastgan.load`, and the base class of what it gives."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from fastgan._names import printable
from fastgan.ops._checks import FLOATING, check_floating, described
from fastgan.training.checkpoint_content import options_of
from fastgan.training.config import TrainingConfig
from fastgan.training.image_files import Decoded, UnusableImage, as_rgb, to_tensor, upright
from fastgan.training.model_files import Saved, read_saved, without_places, write_model
from fastgan.training.networks import load_network
from fastgan.training.outputs import check_new
from fastgan.training.processes.device import device_of
from fastgan.training.registration import model_class

AnyModel = TypeVar("AnyModel", bound="Model")
Images = Tensor | Image.Image | Sequence[Image.Image]
"""Images that a model takes: N C H W or C H W, or one or several of PIL's."""
Given = TypeVar("Given", Tensor, Image.Image, Sequence[Image.Image])
"""The kind of images that was given and comes back: a tensor, an image of PIL, or a list of such."""
GiveBack = Callable[[Tensor], Any]
ROUNDING = 1e-3  # by which values may lie outside [0, 1], as those of a filter or of half precision


class Exported(NamedTuple):
    """A network as `fastgan export` writes it, without fastgan."""

    network: nn.Module
    inputs: Callable[[int], dict[str, Tensor]]
    """Examples of its inputs by name, of a batch of a given size. What differs between sizes stays free."""
    output: str
    """Name of its output."""


class Model(nn.Module, abc.ABC):
    """Base of trained models: the networks of a recipe that are used after the training.

    They are its submodules, in eval mode, without gradients for their weights. Its own methods, one for each
    kind of use, take and give images as tensors in [0, 1], or as PIL's: the kind that was given comes back.

    Args:
        config: the run's options.
        networks: by the names in `names`.
        about: what else the model needs, as JSON, such as the names of categories.
    """

    recipe: ClassVar[str]
    """The recipe's name."""
    config_class: ClassVar[type[TrainingConfig]]
    names: ClassVar[tuple[str, ...]]
    """Of the networks, as in `Recipe.networks`."""
    config: TrainingConfig
    """The run's options. A model that was saved elsewhere has no paths of the machine that trained it."""

    def __init__(
        self,
        config: TrainingConfig,
        networks: Mapping[str, nn.Module],
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.about = config, dict(about or {})
        for name in self.names:
            self.add_module(name, networks[name])
        self.eval().requires_grad_(False)

    @classmethod
    @abc.abstractmethod
    def make_networks(cls, config: Any, weights: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        """New networks as the configuration describes them, by their names.

        Args:
            weights: those that will be loaded, by NETWORK.KEY, for sizes that the configuration leaves open.
        """

    @abc.abstractmethod
    def exported(self) -> dict[str, Exported]:
        """What `fastgan export` writes as onnx or pt2: networks by name, a file each."""

    @classmethod
    def read_about(cls, run_folder: Path) -> dict[str, Any]:
        """What `about` is for a checkpoint, from its run's folder."""
        return {}

    def about_elsewhere(self) -> dict[str, Any]:
        """`about` for files that leave the machine, without its paths."""
        return self.about

    # --- files --------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls: type[AnyModel],
        path: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> AnyModel:
        """As :func:`fastgan.load`; of a subclass, only its own recipe's models."""
        return load_model(path, cls, device, dtype)

    @classmethod
    def _of(cls: type[AnyModel], saved: Saved) -> AnyModel:
        config = options_of(saved.path, cls.config_class, saved.config)
        weights = saved.weights(cls.names)
        dtypes = {each.dtype for each in weights.values() if each.is_floating_point()}
        dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        networks = load_network(
            lambda: nn.ModuleDict(cls.make_networks(config, weights)).to(dtype), weights, saved.path
        )
        about = saved.about if saved.run_folder is None else cls.read_about(saved.run_folder)
        try:
            return cls(config, dict(networks.items()), about)
        except ValueError as error:
            raise ValueError(f"{printable(saved.path)} cannot be used: {error}") from error

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes networks and configuration to a .safetensors file, which :func:`fastgan.load` reads.

        Weights keep their dtype. Options that are paths (`train_path`, ...) are left out.

        Args:
            overwrite: whether the file may exist.

        Raises:
            FileExistsError: it exists.
            OSError: it cannot be written.
            ValueError: another extension.
        """
        path = Path(path)
        check_new(path, (".safetensors",), overwrite, "path", "overwrite=True")
        write_model(path, self.recipe, without_places(self.config), self.state_dict(), self.about_elsewhere())

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the model to the Hugging Face Hub (extra `hub`), for :meth:`from_pretrained`.

        Args:
            repo_id: "user/name".
            options: of `huggingface_hub.ModelHubMixin.push_to_hub`, such as `private`, `token`,
                `commit_message`.

        Returns:
            The address of the commit.

        Raises:
            ModuleNotFoundError: huggingface_hub is not installed.
        """
        from fastgan.training.hub import Pretrained

        return Pretrained(self).push_to_hub(repo_id, **options)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Writes what :meth:`push_to_hub` uploads to a folder: model.safetensors, config.json, README.md.

        Raises:
            FileExistsError: the folder has one of the first two.
            ModuleNotFoundError: huggingface_hub is not installed.
        """
        from fastgan.training.hub import FILES, Pretrained

        for name in FILES:
            check_new(Path(folder) / name, (Path(name).suffix,), False, "folder", "")
        Pretrained(self).save_pretrained(folder, **options)

    @classmethod
    def from_pretrained(
        cls: type[AnyModel],
        name: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> AnyModel:
        """Loads a model from the Hugging Face Hub, or from a folder of :meth:`save_pretrained` (extra `hub`).

        `Model.from_pretrained` gives a model of whatever recipe; that of a subclass, of its own.

        Args:
            name: "user/name", or a folder.
            device, dtype: see :func:`fastgan.load`.
            options: of `huggingface_hub.hf_hub_download`: `revision`, `token`, `cache_dir`, `force_download`,
                `local_files_only`.

        Raises:
            ModuleNotFoundError: huggingface_hub is not installed.
            OSError, ValueError: no such model, or one that cannot be read; as :func:`fastgan.load`.
            TypeError: `name` is no str or Path, or an unknown option.
        """
        from fastgan.training.hub import pretrained_file

        return load_model(pretrained_file(name, **options), cls, device, dtype)

    # --- images -------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Of the weights; images must be on it. `to(...)` moves them."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, in which the networks compute. `to(...)` changes it."""
        return next(self.parameters()).dtype

    @property
    def _exact(self) -> torch.dtype:
        """In which everything but the networks is computed."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def taken(
        self,
        name: str,
        images: Images,
        channels: int = 3,
        size: int | None = None,
        prepare: Callable[[Image.Image], Image.Image] = lambda image: image,
    ) -> tuple[Tensor, GiveBack]:
        """Images as a batch, and the function that gives results back in the kind that they came in.

        Args:
            name: the argument's, for errors.
            images: tensors N C H W or C H W in [0, 1] of any floating-point type, on the model's device; or
                an image of PIL, or a list or tuple of them, of any mode with a known range.
            channels: that tensors must have. PIL's images become RGB, and then grey for 1.
            size: height and width that they must have; None: any.
            prepare: applied to PIL's images in RGB first, such as to scale them.

        Returns:
            N C H W in [0, 1], in float32, or float64 where the model is; and a function of such a batch,
            which clamps it.

        Raises:
            TypeError, ValueError: anything else; the message has the argument's name and the value.
        """
        if isinstance(images, Tensor):
            return self._taken_tensor(name, images, channels, size)
        several = isinstance(images, (list, tuple))
        prepared = [to_tensor(prepare(self._as_rgb(name, image))) for image in pictures_of(name, images)]
        sizes = sorted({(image.shape[1], image.shape[2]) for image in prepared})
        if len(sizes) > 1:
            raise ValueError(
                f"{name} must be of one size, got {' and '.join(f'{h}x{w}' for h, w in sizes[:2])}: "
                "give them one by one"
            )
        batch = torch.stack(prepared)
        batch = batch if channels == 3 else batch.mean(1, keepdim=True)
        _check_size(name, batch, size)

        def give_back(result: Tensor) -> list[Image.Image] | Image.Image:
            pictures = [to_pil(image) for image in result]
            return pictures if several else pictures[0]

        return batch.to(self.device, self._exact), give_back

    def _taken_tensor(
        self, name: str, images: Tensor, channels: int, size: int | None
    ) -> tuple[Tensor, GiveBack]:
        check_images(name, images, channels, self.device)
        batch = images if images.dim() == 4 else images[None]
        _check_size(name, batch, size)
        lowest, highest = (value.item() for value in batch.detach().float().aminmax())
        if not (lowest >= -ROUNDING and highest <= 1 + ROUNDING):  # also for NaN
            raise ValueError(
                f"{name} must lie in [0, 1], got values in [{lowest:g}, {highest:g}]{_hint(lowest, highest)}"
            )
        return batch.to(self._exact), lambda result: like(result.clamp(0, 1), images)

    def _as_rgb(self, name: str, image: Image.Image) -> Image.Image:
        check_picture(name, image)
        # Pillow has no bits of an image in memory: these modes have 16, or numbers without a range.
        bits = 16 if image.mode.startswith("I;16") else 32 if image.mode in ("I", "F") else 8
        try:
            return as_rgb(Decoded(upright(image), bits), self.config.background)
        except UnusableImage as error:
            raise ValueError(f"{name} cannot be used: {printable(error)}") from error


def load_model(
    path: str | os.PathLike[str],
    base: type[AnyModel] = Model,  # type: ignore[assignment, type-abstract]
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> AnyModel:
    """As :func:`fastgan.load`.

    Args:
        base: the class that the model must be of.
    """
    if dtype is not None and dtype not in FLOATING:
        names = ", ".join(str(each) for each in FLOATING)
        raise ValueError(f"dtype must be one of {names}, or None for that of the file, got {dtype!r}")
    place = device_of(str(device), "device")
    # Whatever torch's default device is, and without making tensors that can never be trained.
    with torch.device("cpu"), torch.inference_mode(False):
        saved = read_saved(path, getattr(base, "recipe", None))  # type: ignore[arg-type]
        try:
            kind = base if hasattr(base, "recipe") else model_class(saved.recipe)
        except ValueError as error:
            raise ValueError(f"{printable(saved.path)} cannot be used: {error}") from error
        return kind._of(saved).to(device=place, dtype=dtype)  # type: ignore[return-value]


def check_images(name: str, images: Tensor, channels: int, device: torch.device) -> None:
    """Checks for a floating-point tensor N C H W or C H W, not empty, with these channels, on the device."""
    if isinstance(images, Tensor) and images.dtype == torch.uint8:
        raise TypeError(f"{name} must be floating-point, got {described(images)}: give {name}.float() / 255")
    check_floating(name, images)
    if images.dim() not in (3, 4) or images.shape[-3] != channels or images.numel() == 0:
        raise ValueError(
            f"{name} must have shape (N, {channels}, H, W) or ({channels}, H, W), got {tuple(images.shape)}"
        )
    if images.device != device:
        raise ValueError(f"{name} must be on the model's device, {device}, got {images.device}")


def pictures_of(name: str, images: object) -> list[Image.Image]:
    """An image of PIL, or the images in a list or tuple.

    Raises:
        TypeError: something else, in the list or in its place, or an empty list.
    """
    several = isinstance(images, (list, tuple))
    listed: list[Any] = list(images) if several else [images]  # type: ignore[call-overload]
    wanted = f"{name} must be a tensor, an image of PIL, or a list of such images"
    if not listed:
        raise TypeError(f"{wanted}, got {described(images)}")
    for place, image in enumerate(listed):
        if not isinstance(image, Image.Image):
            within = f" at index {place}" if several else ""
            raise TypeError(f"{wanted}, got {described(image)}{within}")
    return listed


def check_picture(name: str, image: Image.Image) -> None:
    """Raises a ValueError for an image of PIL without pixels."""
    if 0 in image.size:
        raise ValueError(f"{name} must have pixels, got an image of {image.width}x{image.height}")


def _check_size(name: str, batch: Tensor, size: int | None) -> None:
    height, width = batch.shape[2:]
    if size is not None and (height, width) != (size, size):
        raise ValueError(f"{name} must be {size}x{size}, as in the training, got {height}x{width}")


def _hint(lowest: float, highest: float) -> str:
    if lowest >= 0:
        return ": divide 8-bit values by 255" if 1.5 < highest <= 255 else ""
    return ": give x / 2 + 0.5 of images in [-1, 1]" if lowest >= -1.01 and highest <= 1.01 else ""


def like(result: Tensor, given: Tensor) -> Tensor:
    """A batch of results in the dtype of what was given, and without the batch if that was one image."""
    result = result.to(given.dtype)
    return result if given.dim() == 4 else result[0]


def to_pil(image: Tensor) -> Image.Image:
    """C H W in [0, 1], with 1 or 3 channels, as an 8-bit image of PIL; values outside are clamped."""
    values = (image.detach().float().clamp(0, 1) * 255).round().byte().cpu()
    return Image.fromarray(values[0].numpy() if len(values) == 1 else values.permute(1, 2, 0).numpy())
