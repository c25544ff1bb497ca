"""The usual ways to copy networks, losses and optimizers."""

from __future__ import annotations

import copy
import io
import pickle
from typing import TypeVar

import torch

Thing = TypeVar("Thing")


def _through_torch_save(thing: Thing) -> Thing:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "torch.save": _through_torch_save,
}
