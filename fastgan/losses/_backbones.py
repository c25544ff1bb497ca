"""Classification networks behind perceptual losses: their weights, and running them in little memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan._extras import how_to_install
from fastgan._torch_internals import batched_by_autograd, forward_mode_active, inside_transform
from fastgan.ops._checks import as_flag, as_seed, check_image, check_one_of, described
from fastgan.ops._dispatch import requested
from fastgan.ops.bias_leaky_relu import bias_leaky_relu
from fastgan.reference.precision import has_autocast

ADDRESS = "https://download.pytorch.org/models/"
# torchvision's files, as its weights enums name them: the digits are the beginning of the SHA-256.
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
# Where BasicSR keeps them, beside the trainer.
BASICSR_FOLDER = Path("experiments/pretrained_models")


class MissingWeights(FileNotFoundError):
    """Weights that are in none of their places.

    Attributes:
        needed: what needs them, where to get them and where to put them; without the arguments of Python's
            that do without, which the message has as well.
    """

    def __init__(self, needed: str, otherwise: str) -> None:
        super().__init__(f"{needed}{otherwise}")
        self.needed, self.otherwise = needed, otherwise

    def __reduce__(self) -> tuple[type[MissingWeights], tuple[str, str]]:
        return type(self), (self.needed, self.otherwise)


Weights = str | os.PathLike[str] | None
"""Of a backbone: "default", torchvision's ImageNet weights; a file of them; None, random ones."""


def weights_path(network: str) -> Path:
    """Where the network's weights are looked for first: torch hub's cache.

    Raises:
        ValueError: an unknown network.
    """
    check_one_of("network", network, FILES)
    return Path(torch.hub.get_dir()) / "checkpoints" / FILES[network]


def one_backbone(weights: Weights, backbone: Weights) -> Weights:
    """What two names of one argument say.

    Raises:
        TypeError: one is no `Weights`.
        ValueError: they contradict each other.
    """
    check_weights("weights", weights)
    check_weights("backbone", backbone)
    if "default" not in (weights, backbone) and weights != backbone:
        raise ValueError(f"weights={weights!r} and backbone={backbone!r} contradict each other")
    return backbone if weights == "default" else weights


def check_weights(name: str, weights: object) -> None:
    """Raises a TypeError for what cannot be `Weights`."""
    if weights is not None and not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            f"{name} must be 'default', the path of a file of weights, or None for a random backbone, got "
            f"{described(weights)}"
        )


def load_features(
    network: str, loss: str, weights: Weights = "default", download: bool = False, seed: int = 0
) -> nn.Sequential:
    """The layers of torchvision's network that come before its classifier, on the CPU.

    Args:
        network: of `FILES`.
        loss: what needs it, for the message.
        weights: "default" is looked for in torch hub's cache, then in BasicSR's folder; or a file of such a
            network's state_dict.
        download: whether torch hub fetches the default weights that it does not have.
        seed: of random weights.

    Raises:
        TypeError: `download` or `seed` of a wrong kind.
        FileNotFoundError: the file is missing; says where to get it and where to put it.
        ModuleNotFoundError: torchvision is not installed.
        ValueError: a file by torchvision's name whose hash is not the one in it, or without this network.
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
        address = ADDRESS + cached.name
        return torch.hub.load_state_dict_from_url(
            address, map_location="cpu", check_hash=True, weights_only=True
        )
    else:
        raise MissingWeights(
            f"{loss} needs the weights of its backbone: download {ADDRESS}{cached.name} and put the file at "
            f"{cached} or in {BASICSR_FOLDER}",
            ", or pass its path as weights=; or pass download=True, or weights=None for a random backbone",
        )
    if path.name == cached.name:
        _check_hash(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_hash(path: Path) -> None:
    wanted = path.stem.rsplit("-", 1)[1]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    if not found.startswith(wanted):
        raise ValueError(
            f"{path} is not the file that its name says: its SHA-256 begins with {found[: len(wanted)]}, not "
            f"with {wanted}; download {ADDRESS}{path.name} again"
        )


Network = TypeVar("Network")


def random_network(make: Callable[[], Network], seed: int) -> Network:
    """A network on the CPU, with random weights of a seed; the generator goes on as if nothing had been."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return make()


def check_large_enough(image: Tensor, name: str, smallest: int, network: str) -> None:
    """Raises a ValueError for an image that some layer would shrink to nothing."""
    check_image(name, image)
    if min(image.shape[2:]) < smallest:
        raise ValueError(
            f"{name} must have at least {smallest} x {smallest} pixels for {network}, got "
            f"{image.shape[2]} x {image.shape[3]}"
        )


def with_batch_and_colour(name: str, image: Tensor) -> Tensor:
    """C H W as a batch of one, grey images as colour ones; the rest, and what is no image, as it is."""
    if isinstance(image, Tensor) and not image.is_nested:
        if image.dim() == 3 and image.shape[0] in (1, 3):
            image = image[None]
        if image.dim() == 4 and image.shape[1] == 1:
            check_image(name, image, channels=1)
            image = image.expand(-1, 3, -1, -1)
    return image


def check_fits_network(name: str, image: Tensor, constants: Tensor) -> None:
    """On the network's device, and no float64 for one of less, which no autocast casts.

    Raises:
        TypeError, ValueError: another type or device than that of the network's constants.
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
    """Raises a ValueError for shapes of two batches of images that cannot be compared."""
    (name, shape), (other_name, other) = shapes.items()
    if shape[1:] != other[1:] or (shape[0] != other[0] and 1 not in (shape[0], other[0])):
        raise ValueError(
            f"{name} and {other_name} must have one shape, got {tuple(shape)} and {tuple(other)}; a batch of "
            "1 goes with any other"
        )


# --- frozen layers ----------------------------------------------------------------------------------------


def run_frozen(layers: nn.Module, held: list[Tensor]) -> Tensor:
    """The module's output, where its weights get no gradient.

    Convolutions and batch normalizations then keep nothing but their weights for backward, ReLUs a byte per
    element and poolings four per index, where autograd keeps every activation and eight bytes per index.
    Modules of other kinds run as they are, and so does everything under torch.compile, in transforms and
    forward mode, with ``use("reference")``, or where no gradient is asked for.

    Args:
        layers: a sequence of layers.
        held: the input alone, which is taken out: a map that the caller's variables held on to would take
            its memory until the end of the next ones.
    """
    wants_gradient = torch.is_grad_enabled() and held[0].requires_grad
    watched = torch.compiler.is_compiling() or inside_transform() or forward_mode_active()
    if not wants_gradient or watched or requested() == "reference":
        return layers(held.pop())
    return _run(layers, held)


def _run(layer: nn.Module, held: list[Tensor]) -> Tensor:
    if isinstance(layer, nn.Sequential):
        children = list(layer)
        for position, child in enumerate(children):
            follows_relu = position + 1 < len(children) and isinstance(children[position + 1], nn.ReLU)
            if isinstance(child, nn.ReLU) and position > 0 and isinstance(children[position - 1], nn.Conv2d):
                continue  # went with its convolution
            if isinstance(child, nn.Conv2d):
                held.append(_convolve(child, held, follows_relu))
            else:
                held.append(_run(child, held))
        return held.pop()
    if isinstance(layer, nn.Conv2d):
        return _convolve(layer, held, relu=False)
    if isinstance(layer, nn.ReLU):
        return bias_leaky_relu(held.pop(), slope=0.0)
    if isinstance(layer, nn.MaxPool2d):
        return _Pool.apply(held.pop(), layer)
    if isinstance(layer, nn.BatchNorm2d) and not layer.training:
        return _BatchNorm.apply(held.pop(), layer)
    return layer(held.pop())


def _convolve(layer: nn.Conv2d, held: list[Tensor], relu: bool) -> Tensor:
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    device = held[0].device.type
    if has_autocast(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        held[0], weight = held[0].to(dtype), weight.to(dtype)
    y = _Convolution.apply(held.pop(), weight, layer)
    if relu:
        return bias_leaky_relu(y, bias, slope=0.0)
    return y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)


class _Convolution(torch.autograd.Function):
    """Without bias; zero padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.layer, ctx.like = layer, (x.shape, x.stride())
        return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        layer = ctx.layer
        of_x, _, _ = torch.ops.aten.convolution_backward(
            grad, _placeholder(grad, *ctx.like), weight, None, layer.stride, layer.padding, layer.dilation,
            False, [0, 0], layer.groups, [True, False, False],
        )  # fmt: skip
        return of_x, None, None


def _placeholder(grad: Tensor, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    """For an input of which a backward asks size and memory format alone: other memory, if that suffices."""
    if batched_by_autograd(grad):
        return torch.empty_strided(shape, stride, dtype=grad.dtype, device=grad.device)
    grad = grad.detach()
    is_dense = grad.is_contiguous() or grad.is_contiguous(memory_format=torch.channels_last)
    if is_dense and grad.numel() >= shape.numel():
        return grad.as_strided(shape, stride)
    if stride[1] == 1:
        return torch.empty_strided(shape, stride, dtype=grad.dtype, device=grad.device)
    return grad.new_empty(1).expand(shape)


class _BatchNorm(torch.autograd.Function):
    """With the statistics of training: a factor and a summand per channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
        ctx.layer = layer
        return layer(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        factor = (layer.running_var + layer.eps).rsqrt()
        if layer.weight is not None:
            factor = factor * layer.weight
        return (grad * factor.view(-1, 1, 1)).to(grad.dtype), None


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.MaxPool2d) -> Tensor:
        y, indices = torch.ops.aten.max_pool2d_with_indices(x, *_pairs(layer), layer.ceil_mode)
        ctx.save_for_backward(indices.to(torch.int32))
        ctx.layer, ctx.like = layer, (x.shape, x.stride())
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved_tensors
        of_x = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, _placeholder(grad, *ctx.like), *_pairs(ctx.layer), ctx.layer.ceil_mode, indices.long()
        )
        return of_x, None


def _pairs(layer: nn.MaxPool2d) -> list[tuple[int, int]]:
    sizes: list[Any] = [layer.kernel_size, layer.stride, layer.padding, layer.dilation]
    return [size if isinstance(size, tuple) else (size, size) for size in sizes]
