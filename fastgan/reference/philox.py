"""Counter-based random numbers in plain PyTorch: Philox 4x32 with 10 rounds.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A number is a
function of a seed and a counter, so a backward pass can recompute it, and every device gives the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF


def philox(seed: Tensor, counter: Tensor, stream: int | Tensor = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random words for each counter.

    Args:
        seed: int64, broadcast against the counter.
        counter: int64, any shape.
        stream: in [0, 2^32), broadcast against the counter: independent sequences of one seed.

    Returns:
        Four int64 tensors of the broadcast shape with values in [0, 2^32).
    """
    key = [seed & _LOW, (seed >> 32) & _LOW]
    zero = torch.zeros_like(counter)
    words = [counter & _LOW, (counter >> 32) & _LOW, zero + stream, zero]
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, words[0])
        high1, low1 = _multiply(0xCD9E8D57, words[2])
        words = [high1 ^ words[1] ^ key[0], low1, high0 ^ words[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) & _LOW, (key[1] + 0xBB67AE85) & _LOW]
    return words[0], words[1], words[2], words[3]


def uniform(word: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A number in [0, 1) from a word's upper 24 bits."""
    return (word >> 8).to(dtype) * 2.0**-24


def _multiply(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """The upper and the lower 32 bits of a product of two words, without overflowing int64."""
    upper = constant * (word >> 16) + ((constant * (word & 0xFFFF)) >> 16)
    return upper >> 16, (constant * word) & _LOW
