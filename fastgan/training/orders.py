"""Orders of a dataset's files, in which place k is a function of the dataset and (seed, k) alone.

Of a folder, the number of its files is all that counts; of shards, also which files each shard has, its size,
and the window of the index, see :class:`ShardOrder`.
"""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fastgan._names import printable
from fastgan.training.shards.cache import LIMIT
from fastgan.training.shards.paths import File, ShardPath

# Shards that even an order with a tiny window needs: that of the file being read, and of those before and
# after it, which other threads still read or are to read.
FEWEST_SHARDS = 3


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

    Raises:
        ValueError: the cache of a URL's shards is too small for what all orders need at a time.
    """

    def __init__(self, files: Sequence[ShardPath], seed: int) -> None:
        super().__init__(len(files), seed)
        self.files = files
        index = files[0].store.index
        share = min(1.0, index.window / index.size)
        self.window = math.ceil(len(files) * share)
        numbers, self.shards = np.unique([file.shard for file in files], return_inverse=True)
        sizes = [index.shards[number].size for number in numbers]
        # A window, and what is fetched ahead of it.
        self.needed = min(sum(sizes), max(math.ceil(2 * share * sum(sizes)), FEWEST_SHARDS * max(sizes)))
        _in_use.add(self)
        _check_cache(files[0])

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


_in_use: weakref.WeakSet[ShardOrder] = weakref.WeakSet()


def _check_cache(file: ShardPath) -> None:
    """Raises a ValueError if a file's cache cannot hold what the orders in use need at a time."""
    cache = file.store.source.cache
    if cache is None or _needed() <= cache.limit:
        return
    gc.collect()  # orders of datasets that nobody uses any more
    if (needed := _needed()) > cache.limit:
        raise ValueError(
            f"{LIMIT} must be at least {_gigabytes(needed)} for {printable(file.store.place)} and all that "
            f"is read with it, got {cache.limit / 1e9:.2g}"
        )


def _needed() -> int:
    """Bytes of shards of URLs that all orders together need at a time, at most those of their datasets."""
    needed: Counter[str] = Counter()
    most: dict[str, int] = {}
    for order in _in_use:
        store = order.files[0].store
        if store.source.cache is not None:
            needed[store.source.identity] += order.needed
            most[store.source.identity] = store.index.size
    return sum(min(size, most[identity]) for identity, size in needed.items())


def _gigabytes(size: int) -> str:
    """With two digits, rounded up, so that the number is enough."""
    step = 10 ** max(0, len(str(size)) - 2)
    return f"{math.ceil(size / step) * step / 1e9:.2g}"


def epoch_order(files: Sequence[File], seed: int) -> EpochOrder:
    """The order in which a dataset's files are read."""
    in_shards = [file for file in files if isinstance(file, ShardPath)]
    return ShardOrder(in_shards, seed) if in_shards else EpochOrder(len(files), seed)
