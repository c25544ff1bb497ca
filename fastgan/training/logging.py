"""Outputs of a run's figures: a progress bar with aligned lines, CSV files, TensorBoard."""

from __future__ import annotations

import contextlib
import csv
import math
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from fastgan._files import appending, naming
from fastgan._tables import CsvTable
from fastgan.monitor.verdict import Verdict


class Logger:
    """All outputs of one run; made only in the main process.

    Args:
        folder: the run's folder.
        start, total: steps done, and to do in all, for the progress bar.
        console: names of the metrics on the console's line.
        minutes: time limit of the run; 0: none.
    """

    def __init__(
        self, folder: Path, start: int, total: int, console: tuple[str, ...], minutes: float = 0
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.metrics = CsvTable(folder / "metrics.csv")
        self.evaluation = CsvTable(folder / "evaluation.csv")
        self.folder = folder
        self.events = folder / "events.out.tfevents"  # TensorBoard appends time, host and process
        with naming(self.events):
            self.tensorboard = SummaryWriter(str(folder), purge_step=start if start else None)
        self.progress = tqdm(
            total=total, initial=start, unit="step", dynamic_ncols=True, smoothing=0.1, disable=None
        )
        self.console = console
        self.total, self.start = total, start
        self.seconds = 60 * minutes or math.inf
        self.began = time.monotonic()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        self.metrics.write(step, metrics)
        self._to_tensorboard(metrics, step)
        figures = "  ".join(f"{name} {metrics[name]:>8.4g}" for name in self.console if name in metrics)
        elapsed = time.monotonic() - self.began
        left = max(0.0, min(elapsed / (step - self.start) * (self.total - step), self.seconds - elapsed))
        self.say(f"{step:>7}  {figures}  ETA {timedelta(seconds=round(left))}")

    def write_evaluation(self, step: int, figures: dict[str, float]) -> None:
        self.evaluation.write(step, figures)
        self._to_tensorboard({f"evaluation/{name}": value for name, value in figures.items()}, step)
        shown = (f"{n} {v:.4g}" for n, v in figures.items() if not n.startswith("probe_"))
        self.say(f"{step:>7}  held out:  " + "  ".join(shown))

    def write_verdicts(self, step: int, new: Iterable[Verdict], past: Iterable[Verdict]) -> None:
        """Prints verdicts that are new, and those that were taken back; report.html and `fastgan diagnose`
        work all of them out anew.
        """
        for verdict in new:
            self.say(f"{step:>7}  {verdict}")
        for verdict in past:
            self.say(f"{step:>7}  passed: {verdict.title}, from step {verdict.step} to {verdict.ended}")

    def write_images(self, step: int, images: dict[str, Tensor]) -> None:
        with naming(self.events):
            for name, batch in images.items():
                self.tensorboard.add_images(name, batch.detach().float().clamp(0, 1).cpu(), step)

    def _to_tensorboard(self, figures: dict[str, float], step: int) -> None:
        with naming(self.events):
            for name, value in figures.items():
                self.tensorboard.add_scalar(name, value, step)

    def warn(self, step: int, text: str) -> None:
        """Prints a warning and adds it to warnings.csv, which the report shows."""
        path = self.folder / "warnings.csv"
        new = not path.exists()
        with appending(path) as file:
            csv.writer(file).writerows([["step", "warning"]] * new + [[step, text]])
        self.say(f"{step:>7}  warning: {text}")

    def say(self, text: str) -> None:
        self.progress.write(text)

    def advance(self) -> None:
        self.progress.update()

    def close(self) -> None:
        self.progress.close()
        with naming(self.events):
            self.tensorboard.close()


@contextlib.contextmanager
def one_error_from_tensorboard() -> Iterator[None]:
    """Silences the traceback of TensorBoard's thread for an OSError, which its next call raises anyway."""
    before = threading.excepthook

    def hook(failed: Any) -> None:
        expected = isinstance(failed.exc_value, OSError)
        if not (expected and type(failed.thread).__module__.startswith("tensorboard.")):
            before(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def check_finite(metrics: dict[str, float], step: int) -> None:
    """Raises FloatingPointError for the first term that is NaN or infinite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name} became {value} within the steps before {step}: lower the learning rates, or "
                "look at the other terms in metrics.csv to see which grew first"
            )
