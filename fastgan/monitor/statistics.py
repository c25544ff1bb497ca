"""Means of reported values, gathered on the device until they are asked for."""

from __future__ import annotations

from collections.abc import Callable
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
            device = _device_of(values)
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = _total(values, device) + total, count + MOST_KEPT
            values.clear()

    def take(
        self,
        device: torch.device | None = None,
        gather: Callable[[Any], list[Any]] = lambda value: [value],
    ) -> dict[str, float]:
        """The mean of each name since the last call, in the order of first reports; resets them.

        This is where the host waits for the device.

        Args:
            device: where the values are summed; None: that of the first tensor, or the CPU.
            gather: returns the values of all processes, by rank, for a value of this one, so that every
                process gets the means over all reports.
        """
        values, self._values = self._values, {}
        device = device or _device_of([value for each in values.values() for value in each])
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


def _device_of(values: list[Tensor | float]) -> torch.device:
    return next((value.device for value in values if isinstance(value, Tensor)), torch.device("cpu"))


def _total(values: list[Tensor | float], device: torch.device) -> Tensor:
    if any(isinstance(value, Tensor) for value in values):
        return torch.stack([torch.as_tensor(value, device=device).float() for value in values]).sum()
    return torch.full((), float(sum(values)), device=device)


def _weighted_mean(parts: list[tuple[float, int]]) -> float:
    count = sum(count for _, count in parts)
    return sum(mean * count for mean, count in parts) / count
