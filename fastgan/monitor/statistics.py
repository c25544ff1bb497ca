"""Means of reported values, gathered on the device until they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan._tables import as_figure

MOST_KEPT = 1000  # values of a name, until they are summed: log lines may be whole epochs apart


class Statistics:
    """Means of reported values, in which all reports have the same weight; threads may report at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, list[Tensor | float]] = {}
        # Of values that are kept no more: sums on the device and on the host, and their number.
        self._sums: dict[str, tuple[Tensor | None, float, int]] = {}

    def add(self, name: str, value: Tensor | float) -> None:
        """Adds one value to the mean of this name, see :func:`report`."""
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(
                    f"{name} must be reported as one number, got a tensor of shape {tuple(value.shape)}"
                )
            value = value.detach().reshape(())
        with self._lock:
            values = self._values.setdefault(name, [])
            values.append(value)
            if len(values) == MOST_KEPT:
                on_device, on_host, count = self._sums.get(name, (None, 0.0, 0))
                kept = values if on_device is None else [*values, on_device]
                on_device, added = _sums(kept, _device_of(kept))
                self._sums[name] = on_device, on_host + added, count + MOST_KEPT
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
        with self._lock:
            values, self._values = self._values, {}
            sums, self._sums = self._sums, {}
        for name, (on_device, _, _) in sums.items():
            if on_device is not None:
                values[name].append(on_device)
        device = device or _device_of([value for each in values.values() for value in each])
        counts, means_on_device = {}, []
        for name, reports in values.items():
            on_device, on_host, count = sums.get(name, (None, 0.0, 0))
            counts[name] = count + len(reports) - (on_device is not None)
            on_device, added = _sums(reports, device)
            # A number that float32 does not have would be refused by `full` and by the sum.
            on_host = as_figure(on_host + added)
            total = torch.full((), on_host, device=device) if on_device is None else on_device + on_host
            means_on_device.append(total / counts[name])
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
    """That of the first tensor on an accelerator; values on the CPU are there to be read without waiting."""
    devices = [value.device for value in values if isinstance(value, Tensor)]
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))


def _sums(values: Sequence[Tensor | float], device: torch.device) -> tuple[Tensor | None, float]:
    """The sum of the tensors on this device, and that of the other values on the host.

    Numbers and tensors on the CPU are not copied to an accelerator, for which the host would wait.
    """
    on_device, on_host = [], 0.0
    for value in values:
        if isinstance(value, Tensor) and value.device.type == device.type == "cpu":
            on_device.append(value.float())
        elif isinstance(value, Tensor) and value.device.type != "cpu":
            on_device.append(value.float().to(device))
        else:
            on_host += float(value)
    return (torch.stack(on_device).sum() if on_device else None), on_host


def _weighted_mean(parts: list[tuple[float, int]]) -> float:
    count = sum(count for _, count in parts)
    return sum(mean * count for mean, count in parts) / count
