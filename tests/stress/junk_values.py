"""Junk: values of all types that a caller might pass by mistake, some derived from the valid value."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN: dict[str, Callable[[], Any]] = {
    "None": lambda: None, "True": lambda: True, "False": lambda: False, "Ellipsis": lambda: ...,
    "empty string": str, "word": lambda: "strong", "number as string": lambda: "0.5", "bytes": lambda: b"ab",
    "0": lambda: 0, "1": lambda: 1, "-1": lambda: -1, "3": lambda: 3, "10**30": lambda: 10**30,
    "-10**400": lambda: -(10**400), "0.5": lambda: 0.5, "-0.5": lambda: -0.5, "1.5": lambda: 1.5,
    "1e30": lambda: 1e30, "-0.0": lambda: -0.0, "nan": lambda: math.nan, "inf": lambda: math.inf,
    "-inf": lambda: -math.inf, "complex": lambda: 1j,
    "empty list": list, "list": lambda: [1.0], "list of 3": lambda: [1, 2, 3], "empty tuple": tuple,
    "pair": lambda: (1, 2), "pair of nan": lambda: (math.nan, math.nan), "strings": lambda: ("a", "b"),
    "nested list": lambda: [[1.0, 2.0], [3.0]], "list of None": lambda: [None, None],
    "range": lambda: range(3), "empty dict": dict, "dict": lambda: {"a": 1}, "set": lambda: {1, 2},
    "iterator": lambda: iter([1, 2]),
    "numpy float32": lambda: np.float32(0.5), "numpy float64": lambda: np.float64(-1.0),
    "numpy int": lambda: np.int64(3), "numpy bool": lambda: np.bool_(True),
    "numpy nan": lambda: np.float32("nan"), "numpy 0-d": lambda: np.array(0.5),
    "numpy vector": lambda: np.ones(3), "numpy strings": lambda: np.array(["a", "b"]),
    "numpy image": lambda: np.zeros((2, 3, 16, 16), np.float32),
    "object": object, "class": lambda: int, "function": lambda: _returns_none, "module": nn.Identity,
    "layer": lambda: nn.Linear(2, 2), "dtype": lambda: torch.float32, "device": lambda: torch.device("cpu"),
    "generator": torch.Generator, "list of tensors": lambda: [torch.ones(2), torch.ones(2)],
}  # fmt: skip


def _returns_none(*args: Any, **options: Any) -> None:
    return None


def _quantized(x: Tensor) -> Tensor:
    return torch.quantize_per_tensor(x.detach().float(), 0.1, 0, torch.quint8)


def _nested(x: Tensor) -> Tensor:
    return torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)])


FROM_TENSOR: dict[str, Callable[[Tensor], Any]] = {
    "COO": lambda x: x.detach().to_sparse(),
    "CSR": lambda x: x.detach().flatten(1).to_sparse_csr() if x.dim() > 1 else torch.eye(3).to_sparse_csr(),
    "quantized": _quantized,
    "nested": _nested,
    "jagged": lambda x: torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)], layout=torch.jagged),
    "complex": lambda x: x.detach().to(torch.complex64),
    "int64": lambda x: x.detach().to(torch.int64),
    "uint8": lambda x: x.detach().to(torch.uint8),
    "bool": lambda x: x.detach() > 0,
    "float16": lambda x: x.detach().half(),
    "float64": lambda x: x.detach().double(),
    "float8": lambda x: x.detach().to(torch.float8_e4m3fn),
    "numpy": lambda x: x.detach().numpy(),
    "list": lambda x: x.tolist(),
    "meta": lambda x: x.detach().to("meta"),
    "Parameter": lambda x: nn.Parameter(x.detach().float()),
    "requires grad": lambda x: x.detach().clone().float().requires_grad_(),
    "detached": lambda x: x.detach().clone(),
    "0-d": lambda x: torch.tensor(0.5),
    "scalar of int": lambda x: torch.tensor(3),
    "vector": lambda x: torch.rand(3),
    "no sample": lambda x: x.detach()[:0] if x.dim() else torch.empty(0),
    "no pixel": lambda x: x.detach()[..., :0] if x.dim() else torch.empty(0, 3),
    "one more dimension": lambda x: x.detach()[None],
    "one dimension less": lambda x: x.detach()[0] if x.dim() else x.detach(),
    "flat": lambda x: x.detach().flatten(),
    "more channels": lambda x: torch.cat([x.detach()] * 2, dim=1) if x.dim() > 1 else torch.rand(2, 7),
    "one sample": lambda x: x.detach()[:1] if x.dim() else x.detach(),
    "odd size": lambda x: torch.rand(2, 3, 5, 7),
    "nan": lambda x: torch.full_like(x.detach().float(), math.nan),
    "negative": lambda x: -1 - x.detach().float(),
    "huge": lambda x: torch.full_like(x.detach().float(), 1e30),
}  # fmt: skip


def junk(random: Random, valid: Any) -> tuple[str, Any]:
    """A description, and the value."""
    wants_tensor = isinstance(valid, Tensor)
    if random.random() < (0.6 if wants_tensor else 0.2):
        label, make = random.choice(list(FROM_TENSOR.items()))
        return f"tensor, {label}", make(valid if wants_tensor else torch.rand(2, 3))
    label, make_plain = random.choice(list(PLAIN.items()))
    return label, make_plain()
