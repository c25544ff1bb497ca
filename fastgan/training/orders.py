"""Orders of a dataset's files, in which place k is a function of (seed, k) alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np

from fastgan.training.shards.paths import File, ShardPath


class EpochOrder:
    """A stream of the indices below `count`, each once per epoch, in a new order every epoch."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._lock = threading.Lock()
        self._orders: dict[int, np.ndarray] = {}

    def index(self, k: int, skip: int = 0) -> int:
        """Index k of the stream, or the one `skip` places later in the same epoch, cyclically."""
        epoch, position = divmod(k, self.count)
        with self._lock:
            if epoch not in self._orders:
                self._orders = {e: o for e, o in self._orders.items() if abs(e - epoch) <= 1}
                self._orders[epoch] = self._order(np.random.default_rng((self.seed, epoch, self.count)))
            return int(self._orders[epoch][(position + skip) % self.count])

    def _order(self, random: np.random.Generator) -> np.ndarray:
        """An epoch's order."""
        return random.permutation(self.count)


class ShardOrder(EpochOrder):
    """As :class:`EpochOrder`, of files in shards, of which few are needed at a time.

    The shards are put into a random order, and each file then moves at random within a window around its
    shard's place, as in "py1e" of mosaicml-streaming. So the shards of one window are read at a time, of one
    and a half near an epoch's ends, and shards are fetched half a window ahead. A dataset that fits into the
    window has the order of :class:`EpochOrder`, which is that of the folder it was made from.

    The window has `index.window` bytes of the whole dataset, and for a part, such as one domain's files, its
    share of them.
    """

    def __init__(self, files: Sequence[ShardPath], seed: int) -> None:
        super().__init__(len(files), seed)
        self.files = files
        index = files[0].store.index
        self.window = math.ceil(len(files) * min(1.0, index.window / index.size))
        _, self.shards = np.unique([file.shard for file in files], return_inverse=True)

    def index(self, k: int, skip: int = 0) -> int:
        ahead = super().index(k + self.window // 2)
        self.files[ahead].prefetch()
        return super().index(k, skip)

    def _order(self, random: np.random.Generator) -> np.ndarray:
        if self.window == self.count:
            return super()._order(random)
        sizes = np.bincount(self.shards)
        shuffled = random.permutation(len(sizes))
        ends = np.empty(len(sizes), np.int64)
        ends[shuffled] = np.cumsum(sizes[shuffled])
        # Windows at both ends are moved inwards, so that an epoch begins and ends as mixed as it goes on.
        first = np.clip(ends - sizes / 2 - self.window / 2, 0, self.count - self.window)
        return np.argsort(first[self.shards] + random.random(self.count) * self.window, kind="stable")


def epoch_order(files: Sequence[File], seed: int) -> EpochOrder:
    """The order in which a dataset's files are read."""
    in_shards = [file for file in files if isinstance(file, ShardPath)]
    return ShardOrder(in_shards, seed) if in_shards else EpochOrder(len(files), seed)
