"""The monitor of a training loop: reported figures become verdicts."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastgan._files import replacing
from fastgan._tables import CsvTable, read_rows, rounded
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.facts import Facts
from fastgan.monitor.look import measures_of_images
from fastgan.monitor.statistics import Statistics
from fastgan.monitor.verdict import Verdict
from fastgan.monitor.watched import Watched
from fastgan.ops._checks import as_list, as_number, as_whole_number, check_instance, check_real, described

FACTS = "facts.json"


class Monitor:
    """Measures a training and says what is wrong with it, in any trainer.

    .. code-block:: python

        monitor = Monitor("runs/mine", Facts(adversarial="hinge"))
        monitor.watch(generator=G, discriminator=D, optimizers=[g_optimizer, d_optimizer])
        for step in range(steps):
            ...
            monitor.report(D_real=real_logits.mean(), D_fake=fake_logits.mean(), D_loss=d_loss, G_loss=g_loss)
            if step % 100 == 99:
                for verdict in monitor.verdicts():
                    print(verdict)

    Names of figures that rules know are those of the recipes, listed in the documentation; others are kept
    and shown. Nothing waits for the device but :meth:`verdicts`.

    Args:
        folder: where metrics.csv, one row per call of :meth:`verdicts`, and facts.json are kept, so that
            `fastgan diagnose` and `fastgan report` can read the run. A folder with a metrics.csv is gone on
            with. None: all is kept in memory.
        facts: what is known of the run beside its figures, above all its adversarial loss. Without it, the
            rules that need it say nothing.

    Raises:
        TypeError: facts that are no :class:`Facts`.
        OSError: the folder cannot be used.
        ValueError: metrics.csv in it cannot be read as a table.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, facts: Facts | None = None) -> None:
        if facts is not None:
            check_instance("facts", facts, Facts, "a fastgan.monitor.Facts")
        if folder is not None:
            check_instance("folder", folder, (str, os.PathLike), "a path")
        self.folder = None if folder is None else Path(folder)
        self._table: CsvTable | None = None
        self._statistics = Statistics()
        self._reports: Counter[str] = Counter()
        self._step = 0
        self.watched = Watched(self._statistics.add)
        self.diagnosis = Diagnosis(facts)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "metrics.csv"
            for step, row in rows_of(path) if path.exists() else ():
                self.diagnosis.add(step, row)
                self._step = step
            if _is_first_process():
                self._table = CsvTable(path)
                write_facts(self.folder, self.diagnosis.facts)

    def report(self, **values: Tensor | float) -> None:
        """Adds figures of a step: numbers, or tensors with one element, whose graph is not kept.

        They may be called D_real or anything else, reported once or several times a step, or in some steps
        only; a name's figures are averaged until the next call of :meth:`verdicts`.

        Raises:
            TypeError: a value that is no number.
            ValueError: a tensor of several elements, or the name "step".
        """
        for name, value in values.items():
            if name == "step":
                raise ValueError("a figure must not be called step, which is given to verdicts")
            if isinstance(value, Tensor):
                check_real(name, value)
                if value.numel() != 1:
                    raise ValueError(f"{name} must be one number, got {described(value)}")
            else:
                value = as_number(name, value)
            self._statistics.add(name, value)
        self._reports.update(values.keys())

    def look(self, real: Tensor, fake: Tensor) -> None:
        """Measures real and fake images, N C H W, as D sees them: ranges, and how much they differ.

        Once in some steps is enough.
        """
        for name, value in measures_of_images(real, fake).items():
            self._statistics.add(name, value)

    def watch(
        self,
        *,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        optimizers: Iterable[torch.optim.Optimizer] = (),
        **networks: nn.Module,
    ) -> None:
        """Measures networks' updates from now on, by hooks on the optimizers.

        Args:
            generator, discriminator: whose measures begin with G and D.
            optimizers: all that train the networks.
            networks: further ones, by name.

        Raises:
            TypeError, ValueError: no network at all, or of a wrong type, or watched already; no optimizer.
        """
        for name, network in {"generator": generator, "discriminator": discriminator, **networks}.items():
            if network is not None:
                check_instance(name, network, nn.Module, "a torch.nn.Module")
        named = {"G": generator, "D": discriminator, **networks}
        given = {name: network for name, network in named.items() if network is not None}
        listed = as_list("optimizers", optimizers)
        if not listed or any(not isinstance(each, torch.optim.Optimizer) for each in listed):
            raise TypeError(
                f"optimizers must be at least one torch.optim.Optimizer, got {described(optimizers)}"
            )
        if not given:
            raise ValueError("generator, discriminator or another network must be given, got None for all")
        self.watched.add(given, cast(list[torch.optim.Optimizer], listed))

    def verdicts(self, step: int | None = None) -> list[Verdict]:
        """What holds now, gravest first. Called at log lines: here the host waits for the device.

        In several processes (`torch.distributed`) all must call it; figures are means over all of them.

        Args:
            step: training steps done so far, not below that of the last call. None: that of the last call
                plus the number of reports, since then, of the figure that was reported most often.

        Raises:
            TypeError, ValueError: a step that is no whole number, or below the last one.
        """
        if step is None:
            step = self._step + max(self._reports.values(), default=0)
        step = as_whole_number("step", step, least=self._step)
        self.watched.finish()
        row = self._statistics.take(gather=_gather)
        self._reports.clear()
        if row:
            self._step = step
            if self._table is not None:
                self._table.write(step, row)
            self.diagnosis.add(step, rounded(row))
        return self.diagnosis.verdicts()


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """The rows of a table: step and figures. Empty cells are left out; torn rows too.

    Raises:
        ValueError: the file has no column "step".
    """
    header, *rows = read_rows(path) or [[]]
    if "step" not in header:
        raise ValueError(f"{path} has no column 'step'")
    place = header.index("step")
    for cells in rows:
        try:
            values = {name: float(cell) for name, cell in zip(header, cells, strict=True) if cell}
            step = int(cells[place])
        except (ValueError, IndexError, OverflowError):
            continue
        values.pop("step", None)
        if 0 <= step < 2**63:
            yield step, values


def write_facts(folder: Path, facts: Facts) -> None:
    """Writes facts.json."""
    with replacing(folder / FACTS) as file:
        file.write(json.dumps(dataclasses.asdict(facts), indent=1) + "\n")


def read_facts(folder: Path) -> Facts | None:
    """The facts of a run's folder; None if there are none.

    Raises:
        ValueError: the file does not hold facts.
    """
    path = folder / FACTS
    if not path.exists():
        return None
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(Facts)}
        given = {name: value for name, value in values.items() if name in known}
        if given.get("value_range") is not None:
            low, high = map(float, given["value_range"])
            given["value_range"] = (low, high)
        if isinstance(given.get("decaying"), list):
            given["decaying"] = tuple(given["decaying"])
        facts = Facts(**given)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold facts of a run: {error}") from error
    return facts


def _is_first_process() -> bool:
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def _gather(value: Any) -> list[Any]:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered
