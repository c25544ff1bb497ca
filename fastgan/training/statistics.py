"""What a training step reports: values gathered on the device until a log line is due.

A term is reported where it is computed; none, one or several times a step:

.. code-block:: python

    statistics = Statistics()
    with gathering(statistics):
        for step in range(100):
            train_step()                        # somewhere in it: report("G_loss", loss)
    means = statistics.take(device)             # waits for the device; {"G_loss": ...}

Source: the manner of `torch_utils/training_stats.py` of StyleGAN3 (Karras et al., 2021).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class Statistics:
    """Means of reported values, weighing each report alike."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor | float]] = {}

    def add(self, name: str, value: Tensor | float) -> None:
        """Adds one value to the mean of this name, see :func:`report`."""
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(
                    f"{name} must be reported as one number, got a tensor of shape {tuple(value.shape)}"
                )
            value = value.detach().reshape(())
        self._values.setdefault(name, []).append(value)

    def take(
        self, device: torch.device, gather: Callable[[Any], list[Any]] = lambda value: [value]
    ) -> dict[str, float]:
        """The mean of each name since the last call, in the order of first reports; starts anew.

        This is where the host waits for the device.

        Args:
            device: where the values are.
            gather: from a value of this process, those of all of them in their order; every process gets the
                means over the reports of all.
        """
        values, self._values = self._values, {}
        if not values:
            totals = torch.zeros(0)
        else:
            totals = torch.stack([_total(of_one, device) / len(of_one) for of_one in values.values()])
        means = dict(zip(values, totals.tolist(), strict=True))
        everywhere = gather({name: (mean, len(values[name])) for name, mean in means.items()})
        if len(everywhere) == 1:
            return means
        names = dict.fromkeys(name for of_process in everywhere for name in of_process)
        return {name: _weighted_mean([each[name] for each in everywhere if name in each]) for name in names}


_active: list[Statistics] = []


@contextlib.contextmanager
def gathering(statistics: Statistics) -> Iterator[Statistics]:
    """What is reported within the block, in whichever thread, goes to these statistics."""
    _active.append(statistics)
    try:
        yield statistics
    finally:
        _active.remove(statistics)


def report(name: str, value: Tensor | float) -> None:
    """Reports one value of a step, to be averaged over all reports of that name until the next log line.

    Nothing happens outside of :func:`gathering`. The host does not wait for the device, and the graph of a
    tensor is not kept.

    Args:
        name: its column in metrics.csv.
        value: a number, or a tensor of one element on the device of the run.

    Raises:
        ValueError: a tensor of none or several elements.
    """
    if _active:
        _active[-1].add(name, value)


def report_all(values: Mapping[str, Tensor | float], suffix: str = "") -> None:
    """Reports each of several values, see :func:`report`.

    Args:
        suffix: appended to each name.
    """
    for name, value in values.items():
        report(name + suffix, value)


def _total(values: list[Tensor | float], device: torch.device) -> Tensor:
    if any(isinstance(value, Tensor) for value in values):
        return torch.stack([torch.as_tensor(value, device=device).float() for value in values]).sum()
    return torch.full((), float(sum(values)), device=device)


def _weighted_mean(parts: list[tuple[float, int]]) -> float:
    count = sum(count for _, count in parts)
    return sum(mean * count for mean, count in parts) / count
