"""What is public: the names of the public modules, and the methods of their classes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

from fastgan import compat
from fastgan.losses._borrowed import BORROWED

NAMESPACES = (
    "ops", "losses", "augment", "optim", "metrics", "monitor", "training.balance",
    *(f"compat.{module.name}" for module in pkgutil.iter_modules(compat.__path__) if module.name[0] != "_"),
)  # fmt: skip

EXEMPT = {
    "losses.AdversarialStatistics": "a named tuple of results",
    "losses.ImageFeatures": "a named tuple of results",
    "losses.PathLengthTerm": "a named tuple of results",
    "losses.PathLengths": "a named tuple of results",
    "losses.PenaltyTerm": "a named tuple of results",
    "losses.SideStatistics": "a named tuple of results",
    "losses.VGGFeatures": "a named tuple of results",
    "monitor.BudgetedLoss": "a named tuple of results",
    "monitor.Evidence": "a named tuple of results",
    "monitor.LossBudget.forward": "it says that there is none",
    "monitor.Shares": "results",
    "monitor.Verdict": "results",
    "ops.Conv2d": "the constructor is that of torch.nn.Conv2d",
    "optim.StepStatistics": "a named tuple of results",
    "training.balance.Judged": "a named tuple of results",
}
# Of torch.nn.Module, and not called by users with anything that could be wrong.
EXEMPT_METHODS = ("extra_repr", "train")


def public_callables() -> Iterator[str]:
    """The paths below `fastgan` of public functions, classes and methods, EXEMPT among them."""
    for namespace in NAMESPACES:
        module = importlib.import_module(f"fastgan.{namespace}")
        names = getattr(module, "__all__", None) or _own_names(module)
        for name in [*names, *(BORROWED if namespace == "losses" else ())]:
            value, path = getattr(module, name), f"{namespace}.{name}"
            if callable(value):
                yield path
            if inspect.isclass(value) and path not in EXEMPT:
                yield from (f"{path}.{method}" for method in _public_methods(value))


def _own_names(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _public_methods(cls: type) -> Iterator[str]:
    """Those that fastgan defines and that take an argument."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("fastgan")]
    for name in dict.fromkeys(name for base in bases for name in vars(base)):
        method = inspect.getattr_static(cls, name)
        if name in EXEMPT_METHODS or (name.startswith("_") and name != "__call__"):
            continue
        if inspect.isfunction(method) or isinstance(method, classmethod):
            takes = inspect.signature(getattr(method, "__func__", method)).parameters
            if len(takes) > 1:
                yield name
