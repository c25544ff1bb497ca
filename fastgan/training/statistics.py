"""Reported values of training steps, gathered on the device until a log line is due.

A term is reported where it is computed, any number of times a step:

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

MOST_KEPT = 1000  # values of a name, until they are summed: log lines may be whole epochs apart


class Statistics:
    """Means of reported values, in which all reports have the same weight."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor | float]] = {}
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def add(self, name: str, value: Tensor | float) -> None:
        """Adds one value to the mean of this name, see :func:`report`."""
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(
                    f"{name} must be reported as one number, got a tensor of shape {tuple(value.shape)}"
                )
            value = value.detach().reshape(())
        values = self._values.setdefault(name, [])
        values.append(value)
        if len(values) == MOST_KEPT:
            device = next((each.device for each in values if isinstance(each, Tensor)), torch.device("cpu"))
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = _total(values, device) + total, count + MOST_KEPT
            values.clear()

    def take(
        self, device: torch.device, gather: Callable[[Any], list[Any]] = lambda value: [value]
    ) -> dict[str, float]:
        """The mean of each name since the last call, in the order of first reports; resets them.

        This is where the host waits for the device.

        Args:
            device: that of the values.
            gather: returns the values of all processes, by rank, for a value of this one, so that every
                process gets the means over all reports.
        """
        values, self._values = self._values, {}
        sums, self._sums = self._sums, {}
        counts, means_on_device = {}, []
        for name, reports in values.items():
            total, count = sums.get(name, (0.0, 0))
            counts[name] = count + len(reports)
            means_on_device.append((_total(reports, device) + total) / counts[name])
        stacked = torch.stack(means_on_device) if means_on_device else torch.zeros(0)
        means = dict(zip(values, stacked.tolist(), strict=True))
        means_by_process = gather({name: (mean, counts[name]) for name, mean in means.items()})
        if len(means_by_process) == 1:
            return means
        names = dict.fromkeys(name for process_means in means_by_process for name in process_means)
        return {
            name: _weighted_mean([each[name] for each in means_by_process if name in each]) for name in names
        }


_active: list[Statistics] = []


@contextlib.contextmanager
def gathering(statistics: Statistics) -> Iterator[Statistics]:
    """Within the block, values reported in any thread go to these statistics."""
    _active.append(statistics)
    try:
        yield statistics
    finally:
        _active.remove(statistics)


def report(name: str, value: Tensor | float) -> None:
    """Reports one value of a step, to be averaged over all reports of that name until the next log line.

    Does nothing outside of :func:`gathering`. The host does not wait for the device, and the tensor's graph
    is not kept.

    Args:
        name: its column in metrics.csv.
        value: a number, or a tensor of one element on the device of the run.

    Raises:
        ValueError: a tensor that does not have exactly one element.
    """
    if _active:
        _active[-1].add(name, value)


def report_all(values: Mapping[str, Tensor | float], *, prefix: str = "", suffix: str = "") -> None:
    """Reports each of several values, see :func:`report`.

    Args:
        prefix, suffix: put before and after each name.
    """
    for name, value in values.items():
        report(prefix + name + suffix, value)


def _total(values: list[Tensor | float], device: torch.device) -> Tensor:
    if any(isinstance(value, Tensor) for value in values):
        return torch.stack([torch.as_tensor(value, device=device).float() for value in values]).sum()
    return torch.full((), float(sum(values)), device=device)


def _weighted_mean(parts: list[tuple[float, int]]) -> float:
    count = sum(count for _, count in parts)
    return sum(mean * count for mean, count in parts) / count
