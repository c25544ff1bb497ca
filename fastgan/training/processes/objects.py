"""Objects as bytes and tensors, which are sent one by one, as they are."""

from __future__ import annotations

import io
import pickle
from typing import Any

from torch import Tensor


class _WithoutTensors(pickle.Pickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        self.tensors.append(value.detach().cpu().contiguous())
        return len(self.tensors) - 1


class _WithTensors(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, number: int) -> Tensor:
        return self.tensors[number]


def pickled(value: Any, tensors: list[Tensor]) -> bytes:
    """The value without its tensors, which are appended to the list."""
    file = io.BytesIO()
    _WithoutTensors(file, tensors).dump(value)
    return file.getvalue()


def unpickled(content: bytes, tensors: list[Tensor]) -> Any:
    """The value with its tensors, in the order in which they were taken out."""
    return _WithTensors(io.BytesIO(content), tensors).load()
