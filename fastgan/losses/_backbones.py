"""Classification networks behind perceptual losses: their weights, and images that fit them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastgan._extras import how_to_install
from fastgan.ops._checks import as_flag, as_seed, check_image, check_one_of, described

ADDRESS = "https://download.pytorch.org/models/"
# torchvision's files, as named by its weights enums; the digits are the beginning of the SHA-256.
FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg11": "vgg11-8a719046.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
}
# The folder in which BasicSR keeps them, relative to the working directory.
BASICSR_FOLDER = Path("experiments/pretrained_models")


class MissingWeights(FileNotFoundError):
    """Weights were found in none of their places.

    Attributes:
        needed: the message without `otherwise`: what needs the weights, where to get and where to put them.
        otherwise: Python arguments that avoid the need.
    """

    def __init__(self, needed: str, otherwise: str) -> None:
        super().__init__(f"{needed}{otherwise}")
        self.needed, self.otherwise = needed, otherwise

    def __reduce__(self) -> tuple[type[MissingWeights], tuple[str, str]]:
        return type(self), (self.needed, self.otherwise)


Weights = str | os.PathLike[str] | None
"""A backbone's weights: "default", torchvision's ImageNet weights; a file of them; None, random ones."""


def weights_path(network: str) -> Path:
    """The first place where the network's weights are looked for: a file in torch hub's cache.

    Raises:
        ValueError: an unknown network.
    """
    check_one_of("network", network, FILES)
    return Path(torch.hub.get_dir()) / "checkpoints" / FILES[network]


def one_backbone(weights: Weights, backbone: Weights) -> Weights:
    """The value of an argument that has two names.

    Raises:
        TypeError: a value that is not `Weights`.
        ValueError: they contradict each other.
    """
    check_weights("weights", weights)
    check_weights("backbone", backbone)
    if "default" not in (weights, backbone) and weights != backbone:
        raise ValueError(f"weights={weights!r} and backbone={backbone!r} contradict each other")
    return backbone if weights == "default" else weights


def check_weights(name: str, weights: object) -> None:
    """Raises a TypeError for a value that is not `Weights`."""
    if weights is not None and not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            f"{name} must be 'default', the path of a file of weights, or None for a random backbone, got "
            f"{described(weights)}"
        )


def load_features(
    network: str, loss: str, weights: Weights = "default", download: bool = False, seed: int = 0
) -> nn.Sequential:
    """The layers of torchvision's network before its classifier, on the CPU.

    Args:
        network: a key of `FILES`.
        loss: the name of the loss that needs it, for messages.
        weights: "default" is looked for in torch hub's cache, then in BasicSR's folder; or a file of such a
            network's state_dict; None for random weights.
        download: whether torch hub downloads missing default weights.
        seed: of random weights.

    Raises:
        TypeError: `download` or `seed` of the wrong kind.
        FileNotFoundError: the file is missing; says where to get it and where to put it.
        OSError: it cannot be downloaded.
        ModuleNotFoundError: torchvision is not installed.
        ValueError: a file whose hash differs from the one in its torchvision name, or without this network.
    """
    download, seed = as_flag("download", download), as_seed("seed", seed)
    try:
        import torchvision
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{loss} needs torchvision for its backbone: {how_to_install('train')}, or torchvision alone",
            name=error.name,
        ) from error
    state = None if weights is None else _load_weights(network, loss, weights, download)
    with torch.device("meta"):  # a VGG's classifier alone takes half a gigabyte and a second
        features: nn.Sequential = getattr(torchvision.models, network)(weights=None).features
    features.to_empty(device="cpu")
    if state is None:
        return random_network(lambda: _initialized(features), seed)
    missing = [name for name in features.state_dict() if f"features.{name}" not in state]
    if missing:
        raise ValueError(
            f"{weights} is no state_dict of torchvision's {network}: it lacks features.{missing[0]}"
        )
    features.load_state_dict({name: state[f"features.{name}"] for name in features.state_dict()})
    return features


def _initialized(features: nn.Sequential) -> nn.Sequential:
    for layer in features.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    return features


def _load_weights(
    network: str, loss: str, weights: str | os.PathLike[str], download: bool
) -> dict[str, Tensor]:
    cached = weights_path(network)
    in_folder = BASICSR_FOLDER / cached.name
    if weights != "default":
        path = Path(weights)
        if not path.is_file():
            raise FileNotFoundError(f"{loss}: there is no file of weights (backbone) {weights!r}")
    elif cached.exists() or in_folder.exists():
        path = cached if cached.exists() else in_folder
    elif download:
        return fetch(ADDRESS + cached.name)
    else:
        raise MissingWeights(
            f"{loss} needs the weights of its backbone: download {ADDRESS}{cached.name} and put the file at "
            f"{cached} or in {BASICSR_FOLDER}",
            ", or pass its path as weights=; or pass download=True, or weights=None for a random backbone",
        )
    if path.name == cached.name:
        _check_hash(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def fetch(address: str) -> dict[str, Tensor]:
    """Downloads weights as torchvision does, and loads them: into torch hub's cache, with progress on stderr.

    The hash in the file's name is checked. Processes of one machine that want the same file download it once.

    Raises:
        OSError: it cannot be downloaded, or is not the file that its name says; nothing is left in the cache.
    """
    import fcntl

    folder, name = Path(torch.hub.get_dir()) / "checkpoints", address.rpartition("/")[2]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{name}.lock").open("w") as lock, contextlib.redirect_stdout(sys.stderr):
            fcntl.flock(lock, fcntl.LOCK_EX)
            return torch.hub.load_state_dict_from_url(
                address, map_location="cpu", check_hash=True, weights_only=True
            )
    except (OSError, RuntimeError) as error:
        raise OSError(f"could not download {address} to {folder}: {error}") from error


def _check_hash(path: Path) -> None:
    expected = path.stem.rsplit("-", 1)[1]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    actual = digest.hexdigest()
    if not actual.startswith(expected):
        raise ValueError(
            f"{path} is not the file that its name says: its SHA-256 begins with {actual[: len(expected)]}, "
            f"not with {expected}; download {ADDRESS}{path.name} again"
        )


Network = TypeVar("Network")


def random_network(make: Callable[[], Network], seed: int) -> Network:
    """A network on the CPU with random weights from a seed; the state of torch's generator is preserved."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return make()


def check_large_enough(image: Tensor, name: str, smallest: int, network: str) -> None:
    """Raises a ValueError for an image that is too small for the network's layers."""
    check_image(name, image)
    if min(image.shape[2:]) < smallest:
        raise ValueError(
            f"{name} must have at least {smallest} x {smallest} pixels for {network}, got "
            f"{image.shape[2]} x {image.shape[3]}"
        )


def with_batch_and_colour(name: str, image: Tensor) -> Tensor:
    """C H W as a batch of one and grey images with three channels; anything else unchanged."""
    if isinstance(image, Tensor) and not image.is_nested:
        if image.dim() == 3 and image.shape[0] in (1, 3):
            image = image[None]
        if image.dim() == 4 and image.shape[1] == 1:
            check_image(name, image, channels=1)
            image = image.expand(-1, 3, -1, -1)
    return image


def check_fits_network(name: str, image: Tensor, constants: Tensor) -> None:
    """Checks an image's device and dtype; float64 needs a network in float64: autocast does not cast it.

    Raises:
        TypeError, ValueError: another dtype or device than that of the network's constants.
    """
    if image.device != constants.device:
        raise ValueError(
            f"{name} must be on the network's device, {constants.device}, got {described(image)} "
            f"on {image.device}"
        )
    if image.dtype == torch.float64 != constants.dtype:
        raise TypeError(
            f"{name} must be of the network's type, {constants.dtype}, or less, got {described(image)}; "
            "for a network in float64 call double() of the loss"
        )


def check_comparable(**shapes: torch.Size) -> None:
    """Raises a ValueError if two batches of images cannot be compared, given their shapes by name."""
    (name, shape), (other_name, other) = shapes.items()
    if shape[1:] != other[1:] or (shape[0] != other[0] and 1 not in (shape[0], other[0])):
        raise ValueError(
            f"{name} and {other_name} must have one shape, got {tuple(shape)} and {tuple(other)}; a batch of "
            "1 goes with any other"
        )
