"""Messages as bits: a few characters of UTF-8, protected by a BCH code.

Secrets of 96 or more bits carry 7 characters, as in the original's scripts: 56 bits of text (padded with
spaces), 40 bits of a BCH code over GF(2^7) that corrects 5 errors, then zeros. Shorter secrets carry fewer
characters, with about half of the bits for the code (32 bits: 2 characters, 3 errors corrected).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ORIGINAL_BITS, ORIGINAL_BYTES, ORIGINAL_ERRORS, ORIGINAL_POLYNOMIAL = 96, 7, 5, 137


@dataclass(frozen=True)
class Layout:
    """How a secret of a given size holds a message."""

    characters: int
    errors: int
    order: int
    polynomial: int | None = None

    def code(self):
        import bchlib

        if self.polynomial is not None:
            return bchlib.BCH(self.errors, prim_poly=self.polynomial)
        return bchlib.BCH(self.errors, m=self.order)


def layout_for(secret_size: int) -> Layout:
    """The layout of a secret.

    Raises:
        ValueError: the secret is too short for one protected character.
    """
    if secret_size >= ORIGINAL_BITS:
        return Layout(ORIGINAL_BYTES, ORIGINAL_ERRORS, 7, ORIGINAL_POLYNOMIAL)
    for characters in range(secret_size // 16, 0, -1):
        data = 8 * characters
        for order in (5, 6, 7):
            errors = (secret_size - data) // order
            code_bits = 8 * -(-errors * order // 8)
            if errors and data + errors * order < 2**order and data + code_bits <= secret_size:
                return Layout(characters, errors, order)
    raise ValueError(
        f"a secret of {secret_size} bits is too short for a message with error correction; "
        "use the bits themselves (a tensor and bits=True in Python, --raw on the command line)"
    )


def message_to_bits(message: str, secret_size: int) -> Tensor:
    """The secret (secret_size,) of 0. and 1. that carries the message.

    Spaces at its end are padding, and do not come back.

    Raises:
        ValueError: the message is too long (names its length and the limit), or has characters that
            :func:`bits_to_message` takes for noise, such as a line break.
    """
    layout = layout_for(secret_size)
    if not message.isprintable():
        raise ValueError(f"the message must have printable characters only, got {message!r}")
    data = message.encode("utf-8")
    if len(data) > layout.characters:
        raise ValueError(
            f"the message {message!r} takes {len(data)} bytes in UTF-8; "
            f"a secret of {secret_size} bits holds {layout.characters}"
        )
    padded = data.ljust(layout.characters)
    packet = np.frombuffer(padded + bytes(layout.code().encode(padded)), dtype=np.uint8)
    bits = np.zeros(secret_size, dtype=np.float32)
    unpacked = np.unpackbits(packet)
    bits[: len(unpacked)] = unpacked
    return torch.from_numpy(bits)


def bits_to_message(bits: Tensor) -> str | None:
    """The message in a secret read from an image; None if there is none.

    Besides the code, the text must be printable UTF-8. Of 20000 random secrets, 1 in 76 passed for a message
    with 32 bits, 1 in 20000 with 64, and none with 100.

    Args:
        bits: (secret_size,); values above 0.5 are ones.
    """
    layout = layout_for(len(bits))
    code = layout.code()
    packed = np.packbits(bits.detach().cpu().numpy() > 0.5).tobytes()
    data = bytearray(packed[: layout.characters])
    check = bytearray(packed[layout.characters : layout.characters + code.ecc_bytes])
    check[-1] &= 0xFF << (8 * code.ecc_bytes - code.ecc_bits) & 0xFF  # clear the code's padding bits
    if code.decode(data, check) < 0:
        return None
    code.correct(data, check)
    if bytes(code.encode(bytes(data))) != bytes(check):
        return None
    try:
        text = bytes(data).decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text.rstrip(" ") if text.isprintable() else None


def raw_bits(text: str, secret_size: int) -> Tensor:
    """A string of 0s and 1s as a secret.

    Raises:
        ValueError: other characters, or another length than the secret's.
    """
    if set(text) - {"0", "1"} or len(text) != secret_size:
        raise ValueError(f"raw secrets are {secret_size} characters 0 or 1, got {text!r}")
    return torch.tensor([float(bit) for bit in text])
