"""How programs traverse tensors whose elements belong to channels, and share the channels' sums.

Elements are counted in memory order: a channel has rows of consecutive elements in contiguous tensors, and
single ones in channels last. A program that processes all elements of a channel writes its sum itself;
otherwise programs write partial sums, which are added in a fixed order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastgan.kernels._indexing import cdiv, next_power_of_2

# Chosen by arithmetic, not yet by measurement: 4 warps give each thread 8 elements, two 16-byte accesses in
# float32.
BLOCK = 1024
WARPS = 4
# Of the tile in channels last: 32 adjacent channels are whole 128-byte lines in float32.
TILE_CHANNELS = 32
# The most elements of a channel that one program sums alone, how many it takes at a time, and by how many
# warps. Beyond these, partial sums and a second launch are faster.
ALONE, ALONE_TILE, ALONE_WARPS = 16 * BLOCK, 4 * BLOCK, 16


def row_length(x: Tensor) -> int:
    """How many consecutive elements belong to the same channel: 1 for channels last and N C."""
    return x.stride(1) if x.shape[1] > 1 else x.numel()


class ChannelSums(NamedTuple):
    """A launch over the elements of a tensor that also adds up those of each channel."""

    channels: int
    length: int
    """Of a channel's rows; 1: the kernel for columns serves."""
    outer: int
    """The number of rows, of each channel."""
    parts: int
    """Partial sums of each channel; 1: programs write the sums themselves."""
    share: int
    """Rows of one program; of those for rows."""
    tile: tuple[int, int]
    """Rows and elements at a time; of those for columns, rows and channels."""
    warps: int

    @classmethod
    def of(cls, tensor: Tensor, tile_rows: int, alone_rows: int) -> ChannelSums:
        """The plan for a tensor.

        Args:
            tile_rows: of a program for columns.
            alone_rows: the most rows that it sums alone; there tiles have many channels.
        """
        channels, length = tensor.shape[1], row_length(tensor)
        outer = tensor.numel() // (channels * length)
        if length > 1:
            alone = outer * length <= ALONE
            parts = 1 if alone else outer
            block = min(BLOCK, next_power_of_2(length))
            tile = min(next_power_of_2(outer), ALONE_TILE // block) if alone else 1, block
        else:
            alone = outer <= alone_rows
            rows = next_power_of_2(outer) if alone else tile_rows
            parts = cdiv(outer, rows)
            tile = rows, TILE_CHANNELS
        share, warps = outer if alone else 1, ALONE_WARPS if alone else WARPS
        return cls(channels, length, outer, parts, share, tile, warps)

    def new_sums(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        """Memory for the sums, in float32 where they are partial."""
        return like.new_empty(self.parts * self.channels, dtype=dtype if self.parts == 1 else torch.float32)

    def added(self, sums: Tensor, dtype: torch.dtype) -> Tensor:
        """The sums of the channels, in that dtype."""
        return sums if self.parts == 1 else sums.view(self.parts, self.channels).sum(dim=0).to(dtype)
