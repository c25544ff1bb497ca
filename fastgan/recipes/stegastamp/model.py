"""A trained StegaStamp: messages hidden in photographs, and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.ops._checks import as_flag, check_real, described
from fastgan.recipes.stegastamp.config import StegaStampConfig
from fastgan.recipes.stegastamp.message import bits_to_message, message_to_bits
from fastgan.recipes.stegastamp.networks import StegaStampDecoder, StegaStampEncoder
from fastgan.training.model import Exported, Given, Images, Model, pictures_of


class StegaStampModel(Model):
    """A trained encoder and decoder, see :func:`fastgan.load`."""

    recipe = "stegastamp"
    config_class = StegaStampConfig
    names = ("encoder", "decoder")
    config: StegaStampConfig
    encoder: StegaStampEncoder
    decoder: StegaStampDecoder

    @classmethod
    def make_networks(cls, config: StegaStampConfig, weights: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        size = (config.secret_size, config.image_size)
        return {"encoder": StegaStampEncoder(*size), "decoder": StegaStampDecoder(*size)}

    @overload
    def encode(
        self,
        images: Given,
        message: str | Tensor,
        *,
        full_size: bool = True,
        residual: Literal[False] = False,
    ) -> Given: ...

    @overload
    def encode(
        self, images: Given, message: str | Tensor, *, full_size: bool = True, residual: Literal[True]
    ) -> tuple[Given, Given]: ...

    @torch.no_grad()
    def encode(
        self, images: Images, message: str | Tensor, *, full_size: bool = True, residual: bool = False
    ) -> Any:
        """Hides a message in photographs.

        Args:
            images: N 3 H W or 3 H W in [0, 1], or images of PIL, of any size.
            message: a text of few printable characters (7 in 100 bits, without spaces at the end, see
                :mod:`fastgan.recipes.stegastamp.message`);
                or bits, 0 and 1, (secret_size,), or (N, secret_size) for each image its own.
            full_size: keep the photographs' size, and scale the residual to it; otherwise they are scaled to
                the network's size, and PIL's also cut, as in the original.
            residual: also return what was added, which is around 0: PIL's with 0.5 added.

        Returns:
            The images with the message, in the kind that was given; with `residual`, the two.

        Raises:
            TypeError, ValueError: no such images; a message that is too long, or bits of another number.
        """
        full_size, residual = as_flag("full_size", full_size), as_flag("residual", residual)
        secret = self._secret(message)
        if full_size and isinstance(images, (list, tuple)):  # which may be of several sizes
            pictures = pictures_of("images", images)
            _check_number(len(pictures), secret)
            secrets = secret.expand(len(pictures), -1)
            made = [
                self.encode(image, bits, residual=True) for image, bits in zip(pictures, secrets, strict=True)
            ]
            stamped, residuals = ([pair[i] for pair in made] for i in (0, 1))
            return (stamped, residuals) if residual else stamped
        size = (self.config.image_size, self.config.image_size)
        prepare = (lambda image: image) if full_size else (lambda image: ImageOps.fit(image, size))
        cover, give_back = self.taken("images", images, prepare=prepare)
        _check_number(len(cover), secret)
        secret = secret.to(cover).expand(len(cover), -1)
        small = _scaled(cover, size)
        added = self.encoder(secret.to(self.dtype), small.to(self.dtype)).to(cover.dtype)
        if not full_size:
            cover = small
        elif small is not cover:
            added = F.interpolate(added, size=cover.shape[-2:], mode="bicubic")
        stamped = give_back((cover + added).clamp(0, 1))
        if not residual:
            return stamped
        if isinstance(images, Tensor):
            return stamped, (added if images.dim() == 4 else added[0]).to(images.dtype)
        return stamped, give_back(added + 0.5)

    @overload
    def decode(self, images: Image.Image, *, bits: Literal[False] = False) -> str | None: ...

    @overload
    def decode(self, images: Sequence[Image.Image], *, bits: Literal[False] = False) -> list[str | None]: ...

    @overload
    def decode(self, images: Tensor, *, bits: Literal[False] = False) -> Any: ...

    @overload
    def decode(self, images: Images, *, bits: Literal[True]) -> Tensor: ...

    @torch.no_grad()
    def decode(self, images: Images, *, bits: bool = False) -> Any:
        """Reads the messages in photographs.

        Args:
            images: N 3 H W or 3 H W in [0, 1], or images of PIL, of any size.
            bits: return the bits as they are read, without error correction.

        Returns:
            A text, or None where there is no message; a list of them for a batch or a list. With `bits`,
            (secret_size,) or (N, secret_size) of 0. and 1.

        Raises:
            TypeError, ValueError: no such images; a secret too short for messages (without `bits`).
        """
        bits = as_flag("bits", bits)
        size = (self.config.image_size, self.config.image_size)
        if isinstance(images, (list, tuple)):  # which may be of several sizes
            batches = [self.taken("images", image)[0] for image in pictures_of("images", images)]
            received = torch.cat([_scaled(batch, size) for batch in batches])
        else:
            received = _scaled(self.taken("images", images)[0], size)
        read = (self.decoder(received.to(self.dtype)) > 0).float()
        one = isinstance(images, Image.Image) or (isinstance(images, Tensor) and images.dim() == 3)
        if bits:
            return read[0] if one else read
        messages = [bits_to_message(each) for each in read]
        return messages[0] if one else messages

    def _secret(self, message: str | Tensor) -> Tensor:
        """Bits (1 or N, secret_size)."""
        size = self.config.secret_size
        if isinstance(message, str):
            return message_to_bits(message, size)[None]
        if not isinstance(message, Tensor):
            raise TypeError(f"message must be a str, or a tensor of bits, got {described(message)}")
        check_real("message", message)
        if message.dim() not in (1, 2) or message.shape[-1] != size or len(message) == 0:
            raise ValueError(
                f"message must have {size} bits, shape ({size},) or (N, {size}), got {tuple(message.shape)}"
            )
        wrong = message[(message != 0) & (message != 1)]
        if wrong.numel():
            raise ValueError(f"message must have bits 0 and 1, got {wrong[0].item():g}")
        return message.reshape(-1, size).float()

    def exported(self) -> dict[str, Exported]:
        size, secret_size = self.config.image_size, self.config.secret_size

        def image(num: int) -> Tensor:
            return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(num))

        def secret(num: int) -> Tensor:
            return torch.rand(num, secret_size, generator=torch.Generator().manual_seed(num)).round()

        return {
            "encoder": Exported(
                self.encoder, lambda num: {"secret": secret(num), "image": image(num)}, "residual"
            ),
            "decoder": Exported(self.decoder, lambda num: {"image": image(num)}, "logits"),
        }


def _scaled(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)


def _check_number(count: int, secret: Tensor) -> None:
    if len(secret) not in (1, count):
        raise ValueError(f"message must be one, or one for each of {count} images, got {len(secret)}")
