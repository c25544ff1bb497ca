"""Names of other libraries are defined in `fastgan.compat` and importable from `fastgan.losses`, too."""

from __future__ import annotations

import importlib

import pytest
import torch

from fastgan import losses
from fastgan.losses._borrowed import BORROWED
from tests.processes import in_forks


@pytest.mark.parametrize("name", BORROWED)
def test_borrowed_names_are_those_of_compat(name):
    value = getattr(losses, name)
    assert value is getattr(importlib.import_module(BORROWED[name]), name)
    assert value.__module__ == BORROWED[name] and name not in losses.__all__
    for module in ("labels", "jpeg"):  # where they once were defined, as old pickles say
        assert getattr(importlib.import_module(f"fastgan.losses.{module}"), name) is value


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="module 'fastgan.losses' has no attribute 'nothing'"):
        losses.nothing  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        from fastgan.losses import nothing  # type: ignore[attr-defined] # noqa: F401


def test_no_order_of_imports_is_circular(tmp_path):
    scripts = [
        "from fastgan.losses import adv_loss, diff_jpeg_coding, BinaryLoss, CategoryLoss",
        *(f"import {module}; from fastgan.losses import {name}" for name, module in BORROWED.items()),
        # Dynamo is the first to look the name up.
        "import torch\nfrom fastgan import losses\n"
        "f = torch.compile(lambda x: losses.adv_loss(x, 1), fullgraph=True, backend='eager')\n"
        "assert f(torch.zeros(2)).item() > 0.69",
    ]
    ends = in_forks(scripts, tmp_path)
    assert [(script, said) for script, (code, said) in zip(scripts, ends, strict=True) if code] == []


def test_category_loss_draws_no_random_numbers():
    before = torch.get_rng_state()
    losses.CategoryLoss(4)
    assert torch.equal(torch.get_rng_state(), before)
