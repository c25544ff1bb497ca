"""`fastgan.patch` on forks of a library and on modules that hold objects of an unusual kind."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path

import pytest

import fastgan
from fastgan.compat import starganv2
from fastgan.patching import Patch
from tests.patching.libraries import PACKAGES, SOLVER

OBJECT = """
class Loss:
    def __call__(self, logits, target):
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, fill_value=target))

adv_loss = Loss()
"""
NO_REPR = """
class Odd:
    def __repr__(self):
        raise RuntimeError("no repr")

def moving_average"""
ODD = {
    "a tensor as default": (SOLVER.replace("0.999", "torch.ones(3)"), "moving_average", "signature differs"),
    "a default without repr": (
        SOLVER.replace("0.999", "Odd()").replace("def moving_average", NO_REPR),
        "moving_average",
        "it cannot be compared: RuntimeError: no repr",
    ),
    "a partial": (
        f"{SOLVER}\nimport functools\nadv_loss = functools.partial(adv_loss)\n",
        "adv_loss",
        "neither a function nor a class, but a partial",
    ),
    "an object": (f"{SOLVER}{OBJECT}", "adv_loss", "neither a function nor a class, but a Loss"),
    "a builtin": (f"{SOLVER}\nadv_loss = torch.relu\n", "adv_loss", "its signature cannot be read"),
}
PROXIES = """
class Proxy:
    @property
    def __class__(self):
        raise RuntimeError("outside of a request")

current_app = Proxy()
"""


@pytest.mark.parametrize("first", ["patch", "import"])
@pytest.mark.parametrize("case", sorted(ODD))
def test_an_odd_object_of_a_fork_is_kept_with_a_reason(write, case, first):
    text, name, reason = ODD[case]
    write({**PACKAGES, "core/solver.py": text})
    if first == "import":
        importlib.import_module("core.solver")
    report = fastgan.patch("starganv2", quiet=True)
    importlib.import_module("core.solver")
    assert reason in report.kept[f"core.solver.{name}"]
    assert len(report.replaced) == 2 and not report.waiting


def test_a_proxy_that_refuses_to_tell_its_class_is_passed_over(packages, write):
    write({"a_web_app.py": f"{PROXIES}\nfrom core.solver import adv_loss\n"})
    app = importlib.import_module("a_web_app")
    original = app.adv_loss
    with fastgan.patch("starganv2", quiet=True):
        assert app.adv_loss.__code__ is starganv2.adv_loss.__code__
    assert app.adv_loss is original


def test_a_module_that_is_blocked_is_not_looked_at(packages, monkeypatch):
    monkeypatch.setitem(sys.modules, "core.solver", None)
    assert fastgan.patch("starganv2", quiet=True).waiting


def test_a_patch_that_fails_midway_leaves_nothing(packages, monkeypatch):
    solver = importlib.import_module("core.solver")
    before, rebind, calls = dict(vars(solver)), Patch._rebind, []

    def interrupted_once(self, swaps):
        rebind(self, swaps)
        calls.append(solver.adv_loss)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Patch, "_rebind", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        fastgan.patch("starganv2", quiet=True)
    assert calls[0] is not before["adv_loss"]
    assert all(value is before[name] for name, value in vars(solver).items())
    fastgan.patch("starganv2", quiet=True)


class OldFinder:
    def find_module(self, name, path=None):
        return None


@pytest.mark.filterwarnings("ignore:OldFinder:ImportWarning")
def test_a_missing_module_stays_missing_behind_a_finder_of_the_old_kind(packages, monkeypatch):
    (path,) = importlib.import_module("core").__path__
    Path(path, "solver.py").unlink()
    with monkeypatch.context() as context:
        context.setattr(sys, "meta_path", [*sys.meta_path, OldFinder()])
        with fastgan.patch("starganv2", quiet=True), pytest.raises(ModuleNotFoundError):
            importlib.import_module("core.solver")


def test_a_comparison_may_wait_for_an_import_in_another_thread(write):
    """The thread that imports holds the lock of its module, and so cannot wait for the end of the patch."""
    text = SOLVER.replace(
        "def adv_loss(logits, target):\n", "def adv_loss(logits, target):\n    meanwhile()\n"
    )
    write({**PACKAGES, "core/solver.py": text})
    solver = importlib.import_module("core.solver")
    ended = []

    def meanwhile():
        if not ended:
            thread = threading.Thread(target=importlib.import_module, args=("basicsr.losses",))
            ended.append(None)
            thread.start()
            thread.join(60)
            ended.append(not thread.is_alive())

    solver.meanwhile = meanwhile
    report = fastgan.patch("starganv2", "basicsr", quiet=True)
    assert ended == [None, True]
    assert {"core.solver.adv_loss", "basicsr.losses.gan_loss.GANLoss"} <= set(report.replaced)
    assert vars(sys.modules["basicsr.losses"].GANLoss)["_stands_in_for"]


def test_a_patch_that_has_ended_says_so_and_is_not_entered_again(packages):
    importlib.import_module("core.solver")
    with fastgan.patch("starganv2", "basicsr", quiet=True) as report:
        assert "not imported yet: basicsr" in str(report)
    assert str(report).splitlines()[0] == "fastgan.patch('starganv2', 'basicsr'): ended, all is put back"
    assert "not imported yet" not in str(report) and not report.replaced and not report.waiting
    with pytest.raises(ValueError, match="has ended: call fastgan.patch\\('starganv2', 'basicsr'\\) again"):
        report.__enter__()
