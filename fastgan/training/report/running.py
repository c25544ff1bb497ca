"""The report of a run that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fastgan._names import LAYOUT, printable
from fastgan.monitor.diagnosis import Diagnosis

LARGEST_SHARE = 0.05
"""Of the time since the last report, which writing one may take: with thousands of rows it takes a second,
and some runs evaluate every few seconds."""


class RunningReport:
    """report.html, written again at every evaluation, without pictures of its curves.

    Args:
        folder: the run's folder.
        title: that of the page.
        say: what a failure is told to; it does not stop the run.
    """

    def __init__(self, folder: Path, title: str, say: Callable[[str], None]) -> None:
        self.folder, self.title, self.say = folder, title, say
        self.not_before = 0.0

    def write(self, diagnosis: Diagnosis, is_last: bool = False) -> None:
        """Writes the report, unless the last one took too much of the time since then.

        Args:
            diagnosis: of all rows so far.
            is_last: whether to write it in any case.
        """
        begin = time.monotonic()
        if begin < self.not_before and not is_last:
            return
        try:
            # Through the package, where whoever follows a run replaces it.
            from fastgan.training import report

            report.write_report(self.folder, self.title, diagnosis=diagnosis, pictures_of_curves=False)
        except Exception as error:
            self.say(f"warning: report.html is not written: {printable(error, keep=LAYOUT)}")
        end = time.monotonic()
        self.not_before = end + (end - begin) / LARGEST_SHARE
