"""Which imports get fastgan's extensions under a patch, and that `load` is torch's again after them."""

from __future__ import annotations

import importlib
import sys
import threading
from types import SimpleNamespace

import pytest
import torch.utils.cpp_extension

import fastgan
from fastgan.patching._stylegan2_ops import FUSED_BIAS_ACT

LOADS = 'from torch.utils.cpp_extension import load\nfused = load("fused", sources=["fused.cu"])\n'
OP, COPY = "op.fused_act", "models.stylegan2.op.fused_act"
PACKAGES = {f"{name}/__init__.py": "" for name in ("op", "models", "models/stylegan2", "models/stylegan2/op")}


@pytest.fixture
def compiles(monkeypatch):
    """What stands for torch's function."""

    def load(name, sources):
        return f"compiled {name}"

    monkeypatch.setattr(torch.utils.cpp_extension, "load", load)
    return load


@pytest.fixture
def imported(write, compiles):
    """Writes the two modules that `fastgan.patch("rosinality.op")` serves, and imports the first."""

    def imported(op, copy=LOADS, **others):
        files = {f"{OP.replace('.', '/')}.py": op, f"{COPY.replace('.', '/')}.py": copy}
        write({**PACKAGES, **files, **{f"{name}.py": text for name, text in others.items()}})
        with fastgan.patch("rosinality.op", quiet=True):
            return importlib.import_module(OP)

    return imported


def test_a_module_that_is_imported_meanwhile_compiles_its_extension_of_the_same_name(imported, compiles):
    module = imported(f"import unrelated\n{LOADS}", unrelated=LOADS)
    assert module.fused is FUSED_BIAS_ACT and module.unrelated.fused == "compiled fused"
    assert torch.utils.cpp_extension.load is module.load is module.unrelated.load is compiles


def test_two_served_modules_of_which_one_imports_the_other(imported, compiles):
    module = imported(f"import {COPY} as copy\n{LOADS}")
    assert module.fused is module.copy.fused is FUSED_BIAS_ACT
    assert torch.utils.cpp_extension.load is module.load is module.copy.load is compiles


def test_an_import_that_fails_ends_nothing_but_itself(imported, compiles):
    attempt = f"try:\n    import {COPY}\nexcept ZeroDivisionError:\n    failed = True\n"
    module = imported(attempt + LOADS, copy=f"{LOADS}1 / 0\n")
    assert module.failed and module.fused is FUSED_BIAS_ACT
    assert torch.utils.cpp_extension.load is module.load is compiles


def test_an_import_that_fails_leaves_torchs_function(imported, compiles):
    with pytest.raises(ZeroDivisionError):
        imported(f"{LOADS}1 / 0\n")
    assert torch.utils.cpp_extension.load is compiles


def test_what_keeps_the_function_out_of_reach_compiles_afterwards(imported):
    later = 'kept = (load,)\ndef again():\n    return kept[0]("fused", sources=[])\n'
    module = imported(LOADS + later)
    assert module.fused is FUSED_BIAS_ACT and module.again() == "compiled fused"


def test_imports_of_two_threads_that_overlap(write, compiles, monkeypatch):
    """The first to begin is the first to end."""
    both, first_ended = threading.Barrier(2, timeout=30), threading.Event()
    gate = SimpleNamespace(both=both.wait, first_ended=lambda: first_ended.wait(30))
    monkeypatch.setitem(sys.modules, "gate", gate)
    begins = f"import gate\ngate.both()\n{LOADS}"
    ends = "gate.first_ended()\nlater = load('fused', sources=[])\n"
    write({**PACKAGES, "op/fused_act.py": begins, "models/stylegan2/op/fused_act.py": begins + ends})

    def import_first():
        importlib.import_module(OP)
        first_ended.set()

    with fastgan.patch("rosinality.op", quiet=True):
        threads = [
            threading.Thread(target=target, daemon=True)
            for target in (import_first, lambda: importlib.import_module(COPY))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    first, second = sys.modules[OP], sys.modules[COPY]
    assert first.fused is second.fused is second.later is FUSED_BIAS_ACT
    assert torch.utils.cpp_extension.load is first.load is second.load is compiles
