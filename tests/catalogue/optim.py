"""Entries of fastgan.optim."""

from __future__ import annotations

import functools

from fastgan import optim
from tests.catalogue.entry import constructor, entry, method
from tests.catalogue.inputs import network, parameters

_MODEL = network()


def _average() -> optim.EMA:
    return optim.EMA(_MODEL)


constructor("optim.EMA", lambda: {"model": network()}, lambda ema: ema.update())
method("optim.EMA.average_of", lambda: {"parameter": next(_MODEL.parameters())}, _average)
method("optim.EMA.check_updated_by", lambda: {"parameters": list(_MODEL.parameters())}, _average)
method("optim.EMA.follow_all_but", lambda: {"done": set(), "found_inf": None}, _average)
method("optim.EMA.load_state_dict", lambda: {"state": _average().state_dict()}, _average)
entry("optim.update_ema", lambda: {"model": network(), "average": network(), "decay": 0.9})


def _optimizer(name: str) -> optim.Adam:
    return getattr(optim, name)(parameters(), 0.1)


for _name in ("Adam", "AdamW", "RMSprop"):
    _make = functools.partial(_optimizer, _name)
    constructor(f"optim.{_name}", lambda: {"params": parameters()}, lambda made: made.step())
    method(f"optim.{_name}.step", dict, _make)
    method(f"optim.{_name}.add_param_group", lambda: {"param_group": {"params": parameters()}}, _make)
    method(
        f"optim.{_name}.load_state_dict",
        lambda make=_make: {"state_dict": make().state_dict()},
        _make,
    )
constructor(
    "optim.RMSprop.tensorflow_style",
    lambda: {"params": parameters(), "lr": 0.1},
    lambda made: made.step(),
)
