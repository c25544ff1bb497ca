"""Random tensors for valid calls: sizes, dtypes, memory layouts, and rare special numbers."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Draws:
    """The random inputs of one call, determined by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = self.random.choice(DTYPES)
        # Most calls have ordinary numbers only, so that differences in these are noticed.
        self.special = self.random.random() < 0.4
        self.left_out: tuple[str, ...] = ()  # kinds of special numbers

    def one_of(self, *choices):
        return self.random.choice(choices)

    def size(self, most: int = 19) -> int:
        """A side or a count; often 1, 2 or a multiple of what kernels take at once."""
        return self.one_of(1, 2, 8, 16, 17, *(self.random.randint(1, most) for _ in range(5)))

    def image(self, channels: int | None = 3, *, dtype: torch.dtype | None = None) -> Tensor:
        """N C H W, mostly in [0, 1], that requires grad."""
        shape = (self.one_of(1, 1, 2, 3), channels or self.one_of(1, 2, 3, 5), self.size(), self.size())
        kind = self.one_of("unit", "unit", "beyond", "grey levels", "flat", "black and white")
        values = self.uniform(*shape)
        if kind == "beyond":
            values = 1.6 * values - 0.3
        elif kind == "grey levels":
            values = (255 * values).round() / 255
        elif kind == "flat":
            values = ((255 * values[:, :1, :1, :1]).round() / 255).expand(shape).clone()
        elif kind == "black and white":
            values = values.round()
        return self.tensor(values, dtype=dtype)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def tensor(self, values: Tensor, *, dtype: torch.dtype | None = None, special: bool = True) -> Tensor:
        """The values in a dtype and a layout, some of them replaced by special ones, requiring grad."""
        dtype = dtype or self.dtype
        values = values.to(dtype).contiguous()
        if self.special and special and values.numel():
            self._strew(values)
        return self._laid_out(values).requires_grad_()

    def _strew(self, values: Tensor) -> None:
        limits = torch.finfo(values.dtype)
        kinds: dict[str, list[float]] = {
            "nan": [math.nan],
            "infinite": [math.inf, -math.inf],
            "zero": [0.0, -0.0],
            "tiny": [limits.tiny, limits.smallest_normal / 4, -limits.smallest_normal / 8],
            "huge": self._huge(values.dtype),
            "bound": [0.0, 0.5, 1.0, -1.0],
        }
        chosen = self.random.sample([kind for kind in kinds if kind not in self.left_out], 2)
        pool = [number for kind in chosen for number in kinds[kind]]
        flat = values.view(-1)
        if self.random.random() < 0.1:  # all alike
            flat.fill_(self.random.choice(pool))
            return
        for _ in range(self.one_of(1, 2, 3, 1 + flat.numel() // 8)):
            flat[self.random.randrange(flat.numel())] = self.random.choice(pool)

    @staticmethod
    def _huge(dtype: torch.dtype) -> list[float]:
        """Numbers whose squares overflow; none of these in float64, the reference for the others."""
        if dtype == torch.float64:
            return [1e100, -1e100]
        most = torch.finfo(dtype).max
        return [most, -most, most / 3, -math.sqrt(most)]

    def _laid_out(self, values: Tensor) -> Tensor:
        layout = self.one_of("contiguous", "contiguous", "channels_last", "sliced", "transposed")
        if values.dim() < 2 or layout == "contiguous":
            return values.detach()
        if layout == "channels_last":
            return values.movedim(1, -1).contiguous().movedim(-1, 1).detach()
        if layout == "transposed":
            return values.transpose(-1, -2).contiguous().transpose(-1, -2).detach()
        wider = values.new_zeros([side + 2 for side in values.shape])
        wider[tuple(slice(1, -1) for _ in values.shape)] = values
        return wider[tuple(slice(1, -1) for _ in values.shape)].detach()
