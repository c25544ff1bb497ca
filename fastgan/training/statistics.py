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
from collections.abc import Iterator, Mapping

from torch import Tensor

from fastgan.monitor.statistics import Statistics as Statistics

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
