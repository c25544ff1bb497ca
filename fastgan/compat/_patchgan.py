"""The patch discriminator of taming-transformers, which LDM and Videoseal share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastgan.ops._checks import as_flag, as_whole_number, check_floating, described
from fastgan.reference.precision import has_autocast

MOST_LAYERS = 10  # whose receptive field is larger than any image


class PatchGAN(nn.Module):
    """Layers at the index that they have in checkpoints, with the published initial weights."""

    def __init__(self, main: nn.Sequential) -> None:
        super().__init__()
        self.main = main
        self.apply(weights_init)

    def forward(self, input: Tensor) -> Tensor:
        """Logits of patches, N 1 H' W'.

        Args:
            input: N C H W, in any range.

        Raises:
            TypeError, ValueError: images of another kind, or too small for the layers.
        """
        self._check("input", input)
        logits: Tensor = self.main(self._seen(input))
        return logits

    def _seen(self, images: Tensor) -> Tensor:
        """What the layers see of images."""
        return images

    def _check(self, name: str, images: Tensor) -> None:
        """Checks that images go with the layers, and are large enough for one logit.

        Raises:
            TypeError, ValueError: by the name.
        """
        check_floating(name, images)
        convolutions = [layer for layer in self.main if isinstance(layer, nn.Conv2d)]
        weight, channels = convolutions[0].weight, convolutions[0].in_channels
        if images.device != weight.device:
            raise ValueError(
                f"{name} must be on the discriminator's device, {weight.device}, got {described(images)} on "
                f"{images.device}"
            )
        device = images.device.type
        is_cast = has_autocast(device) and torch.is_autocast_enabled(device) and images.dtype != torch.float64
        if images.dtype != weight.dtype and not is_cast:
            raise TypeError(
                f"{name} must be of the discriminator's type, {weight.dtype}, got {described(images)}"
            )
        smallest = 3 * 2 ** sum(layer.stride == (2, 2) for layer in convolutions)
        seen = self._seen(images).shape
        if len(seen) != 4 or seen[1] != channels or min(seen[2:]) < smallest:
            raise ValueError(
                f"{name} must have shape (N, {channels}, H, W) with at least {smallest} pixels a side for "
                f"the discriminator, got {tuple(images.shape)}"
            )


class NLayerDiscriminator(PatchGAN):
    """PatchGAN with taming-transformers' arguments, `state_dict` and random numbers.

    Args:
        input_nc: channels of the images.
        ndf: channels of the first layer; they double with each layer, up to 8 times.
        n_layers: halvings, of 1 to 10: one logit sees 70 pixels with 3.
        use_actnorm: activation normalization, whose first batch in training mode sets its scale and shift, in
            place of batch normalization. In several processes each takes its own first batch, as published.

    Its initial weights are the published code's after `.apply(weights_init)`.
    """

    def __init__(
        self, input_nc: int = 3, ndf: int = 64, n_layers: int = 3, use_actnorm: bool = False
    ) -> None:
        use_actnorm = as_flag("use_actnorm", use_actnorm)
        norm: Callable[[int], nn.Module] = ActNorm if use_actnorm else nn.BatchNorm2d
        super().__init__(patch_layers(input_nc, ndf, n_layers, norm, bias=use_actnorm))


def patch_layers(
    input_nc: int, ndf: int, n_layers: int, norm: Callable[[int], nn.Module], bias: bool
) -> nn.Sequential:
    """The layers of a PatchGAN, at the indices that they have in checkpoints.

    Args:
        norm: makes the normalization of that many channels.
        bias: of the convolutions before one.
    """
    input_nc, ndf, n_layers = as_sizes(input_nc=input_nc, ndf=ndf, n_layers=n_layers)
    layers: list[nn.Module] = [nn.Conv2d(input_nc, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
    width = ndf
    for number in range(1, n_layers + 1):
        wider = ndf * min(2**number, 8)
        stride = 2 if number < n_layers else 1
        layers += [
            nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=bias),
            norm(wider),
            nn.LeakyReLU(0.2, True),
        ]
        width = wider
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 4, stride=1, padding=1))


def as_sizes(**sizes: int) -> tuple[int, ...]:
    """The sizes of a PatchGAN, of which the number of layers comes last, checked by their names."""
    checked = tuple(as_whole_number(name, size) for name, size in sizes.items())
    if checked[-1] > MOST_LAYERS:
        raise ValueError(f"{list(sizes)[-1]} must be at most {MOST_LAYERS}, got {checked[-1]}")
    return checked


def weights_init(m: nn.Module) -> None:
    """Draws the weights of a convolution from N(0, 0.02), those of batch normalization from N(1, 0.02).

    As in the published code, a layer's kind is told by the name of its class.
    """
    kind, weight = type(m).__name__, getattr(m, "weight", None)
    if not isinstance(weight, Tensor):
        return
    if "Conv" in kind:
        nn.init.normal_(weight.data, 0.0, 0.02)
    elif "BatchNorm" in kind:
        nn.init.normal_(weight.data, 1.0, 0.02)
        nn.init.zeros_(m.bias.data)  # type: ignore[union-attr, arg-type]


class ActNorm(nn.Module):
    """A scale and a shift per channel, with which the first batch in training has mean 0 and deviation 1."""

    initialized: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, num_features, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, num_features, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))
        self._is_initialized = False  # spares reading the buffer, which waits for the device

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self._is_initialized:
            if not self.initialized.item():
                self._initialize(x)
            self._is_initialized = True
        return self.scale * (x + self.loc)

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        deviation, mean = torch.std_mean(x, dim=(0, 2, 3), keepdim=True)
        self.loc.copy_(-mean)
        self.scale.copy_(1 / (deviation + 1e-6))
        self.initialized.fill_(1)

    def _load_from_state_dict(self, *arguments: object) -> None:
        super()._load_from_state_dict(*arguments)
        self._is_initialized = False  # the buffer is read again
