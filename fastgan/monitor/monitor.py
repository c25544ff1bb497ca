"""The monitor of a training loop: reported figures become verdicts."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from fastgan._names import printable
from fastgan._tables import rounded
from fastgan.monitor._processes import from_all, is_first_process
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.facts import Facts
from fastgan.monitor.look import measures_of_images
from fastgan.monitor.probes import checked_inputs, evaluating, probe
from fastgan.monitor.shares import Shares
from fastgan.monitor.statistics import Statistics
from fastgan.monitor.verdict import Verdict
from fastgan.monitor.watched import Watched, optimizers_of
from fastgan.ops._checks import (
    as_number,
    as_whole_number,
    check_instance,
    check_real,
    described,
)

if TYPE_CHECKING:
    from fastgan.monitor._folder import MonitorFolder

ADVERSARIAL = ("gan", "adv", "adversarial")
"""Names of terms that are taken for :attr:`Facts.adversarial_term`."""


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
            `fastgan diagnose` and `fastgan report` can read the run. It is this monitor's alone until
            :meth:`close`, until nothing refers to the monitor any more, or until the process ends. A folder
            of an earlier monitor is gone on with: a trainer that resumes gives its step to :meth:`verdicts`,
            which drops what comes after it. None: all is kept in memory.
        facts: what is known of the run beside its figures, above all its adversarial loss; they replace those
            in the folder. None: the folder's; where there are none, the rules that need them say nothing.

    Attributes:
        diagnosis: the verdicts so far; another object once :meth:`verdicts` has gone back.

    A monitor belongs to its process, whose threads may report at once, and is neither copied nor pickled;
    networks and optimizers that it watches may be. Copies of them are not watched.

    Raises:
        TypeError: facts that are no :class:`Facts`.
        FileExistsError: metrics.csv in the folder is of another program; nothing is changed there.
        NotADirectoryError: the folder, or what it would be in, is a file.
        OSError: the folder cannot be used; also if another monitor or run writes there, which is named.
        ValueError: metrics.csv in it cannot be read as a table, or facts.json does not hold facts.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, facts: Facts | None = None) -> None:
        if facts is not None:
            check_instance("facts", facts, Facts, "a fastgan.monitor.Facts")
        if folder is not None:
            check_instance("folder", folder, (str, os.PathLike), "a path")
        self.folder = None if folder is None else Path(folder)
        self._statistics = Statistics()
        self._reports: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._has_gone_on = False  # whether the last row is of this object, and not of the folder
        self._is_closed = False
        self.watched = Watched(self._statistics.add)
        self._kept: MonitorFolder | None = None
        if self.folder is not None:
            from fastgan.monitor._folder import MonitorFolder  # its locks are not there on every platform

            self._kept = MonitorFolder(self.folder, facts, writes=is_first_process())
            self._rows, facts = self._kept.rows, self._kept.facts
        self.diagnosis = Diagnosis(facts)
        for step, row in self._rows:
            self.diagnosis.add(step, row)

    def close(self) -> None:
        """Takes the hooks off the optimizers and lets others write to the folder.

        What was found so far can still be read.
        """
        self._is_closed = True
        self.watched.remove()
        if self._kept is not None:
            self._kept.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "a Monitor cannot be copied or pickled, since it watches networks of this process: keep it out "
            "of what is copied; a new Monitor of its folder goes on with its figures"
        )

    def report(self, **values: Tensor | float) -> None:
        """Adds figures of a step: numbers, or tensors with one element, whose graph is not kept.

        They may be called D_real or anything else, reported once or several times a step, or in some steps
        only; a name's figures are averaged until the next call of :meth:`verdicts`. Shares of G's gradient
        are called share_NAME; NAME_share is taken for that. NAME may be gan, adv or adversarial for
        :attr:`Facts.adversarial_term`.

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
                value = value.detach().clone()  # the trainer may change it in place before the next log line
            else:
                value = as_number(name, value)
            share = re.fullmatch(r"share_(.+)|(.+)_share", name)
            self._statistics.add(f"share_{self._term(share[1] or share[2])}" if share else name, value)
        with self._counting:
            self._reports.update(values.keys())

    def report_shares(self, shares: Shares) -> None:
        """Adds what a :class:`LossBudget` has measured in a step: share_NAME, cosine_A_B and NAME_weight.

        The term called gan, adv or adversarial counts as :attr:`Facts.adversarial_term`, if none has that
        name. Weights that an :class:`AdaptiveWeight` computes are left out: rules take weights that change
        for ramps, and wait for their end.

        Raises:
            TypeError: no :class:`Shares`.
        """
        check_instance("shares", shares, Shares, "the Shares that a LossBudget returns")
        names = {
            name: name if self._adversarial in shares.names else self._term(name) for name in shares.names
        }
        if len(set(names.values())) < len(names):  # several of ADVERSARIAL
            names = {name: name for name in shares.names}
        for name, share in shares.share.items():
            self._statistics.add(f"share_{names[name]}", share)
        for (first, second), cosine in shares.cosines().items():
            self._statistics.add(f"cosine_{names[first]}_{names[second]}", cosine)
        for name, weight in shares.weight.items():
            if name not in shares.ratio:
                self._statistics.add(f"{names[name]}_weight", weight)

    @property
    def _adversarial(self) -> str:
        return self.diagnosis.facts.adversarial_term

    def _term(self, name: str) -> str:
        return self._adversarial if name in ADVERSARIAL else name

    def look(self, real: Tensor, fake: Tensor) -> None:
        """Measures real and fake images, N C H W, as D sees them: ranges, and how much they differ.

        Once in some steps is enough.
        """
        for name, value in measures_of_images(real, fake).items():
            self._statistics.add(name, value)

    def probe(
        self,
        *,
        train: Tensor,
        fake: Tensor,
        held_out: Tensor | None = None,
        discriminator: nn.Module | None = None,
        score: Callable[[Tensor], Tensor] | None = None,
        null: tuple[Tensor, Tensor] | None = None,
        sign: int | None = None,
    ) -> None:
        """Measures at an evaluation what no curve shows, by a few forward passes; the host waits for them.

        With scores: `probe_auc_fake`, how well D tells these fakes; with held-out images too,
        `probe_overfitting` and `probe_auc_held_out`: whether it knows its training images by heart; with
        `null`, `probe_auc_null`: whether it judges the pipeline rather than G. With held-out images:
        `probe_distance_ratio`, `probe_memorized` and `probe_duplicates`: how many different images G makes,
        and whether they are training images. With D: `probe_stable_rank`.

        Some dozens of images of each kind are enough. In several processes, figures are means over those that
        call it.

        Args:
            train: real images that D is trained on, N C H W, as D sees them, of any range.
            fake: the generator's images; like the others of the same C H W, but not of the same N.
            held_out: real images that D is not trained on.
            discriminator: D, for its stable rank, and for scores if `score` is None. It scores in eval mode.
            score: D's scores (N, ...) of images (N, C, H, W), for a D that takes or returns more than that.
            null: (real, null): real images as D sees them, and what the generator's pipeline makes of them
                without the generator's contribution.
            sign: -1: D's scores are high for fakes. None: :attr:`Facts.critic_sign`.

        Raises:
            TypeError, ValueError: images that are no floating-point tensors, empty, or of unlike shapes;
                scores whose number is not that of the images; another sign.
        """
        sign = self.diagnosis.facts.critic_sign if sign is None else sign
        inputs = checked_inputs(train, fake, held_out, discriminator, score, null, sign)
        with evaluating(discriminator):
            figures = probe(inputs, discriminator)
        for name, figure in figures.items():
            self._statistics.add(name, figure)

    def watch(
        self,
        *,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        optimizers: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] = (),
        **networks: nn.Module,
    ) -> None:
        """Measures networks' updates from now on, by hooks on the optimizers.

        Args:
            generator, discriminator: whose measures begin with G and D.
            optimizers: all that train the networks, a list or a single one. In a wrapper, such as those of
                accelerate and Lightning, the one inside is watched.
            networks: further ones, by name.

        Raises:
            TypeError, ValueError: no network at all, or of a wrong type, or watched already; a further one
                that is called G or D beside a generator or discriminator; no optimizer.
        """
        for name, own, network in (("generator", "G", generator), ("discriminator", "D", discriminator)):
            if network is not None and own in networks:
                raise ValueError(
                    f"{name} and {own} are two networks whose measures would both begin with {own}"
                )
        for name, network in {"generator": generator, "discriminator": discriminator, **networks}.items():
            if network is not None:
                check_instance(name, network, nn.Module, "a torch.nn.Module")
        named = {"G": generator, "D": discriminator, **networks}
        given = {name: network for name, network in named.items() if network is not None}
        listed = optimizers_of(optimizers)
        if not given:
            raise ValueError("generator, discriminator or another network must be given, got None for all")
        self.watched.add(given, listed)

    def verdicts(self, step: int | None = None) -> list[Verdict]:
        """What holds now, gravest first. Called at log lines: here the host waits for the device.

        In several processes (`torch.distributed`) all must call it; figures are means over all of them.

        Args:
            step: training steps done so far. One below that of the last call says that the training has gone
                back, as a trainer does that resumes from a checkpoint before its last log line: rows from
                there on are dropped, in the file as well. None: that of the last call plus the number of
                reports since then, in the process with most: of the figure, among those called G_..., that
                was reported most often; without any, of all figures. D's alone count too often where D takes
                several updates per step of G. A trainer that resumes must give its step.

        Raises:
            TypeError, ValueError: a step that is no whole number, or below 0; a monitor that is closed.
            OSError: the folder cannot be written, was removed, or is another process's: one that has taken
                it, or the one that this one was forked from.
        """
        if self._is_closed:
            of = "" if self.folder is None else f" of {printable(self.folder)}"
            raise ValueError(f"the monitor{of} is closed, and takes no more figures")
        given = None if step is None else as_whole_number("step", step, least=0)
        self.watched.finish()
        row, step, is_given = self._take(given)
        if row:
            last = self._rows[-1][0] if self._rows else -1
            # Of one step, this object may add several rows, but it repeats a row that it found.
            if step < last or (step == last and is_given and not self._has_gone_on):
                self._go_back(step)
            self._has_gone_on = True
            if self._kept is not None:
                self._kept.write(step, row)
            self._rows.append((step, rounded(row)))
            self.diagnosis.add(*self._rows[-1])
        return self.diagnosis.verdicts()

    def _take(self, given: int | None) -> tuple[dict[str, float], int, bool]:
        """The means of all processes, the step (the largest given, or by reports), and if any was given."""
        steps: list[int] = []
        reports: Counter[str] = Counter()
        with self._counting:
            counted, self._reports = self._reports, Counter()

        def gather(means: object) -> list[Any]:
            gathered = from_all((means, given, counted))
            for _, step, counts in gathered:
                steps.extend([] if step is None else [step])
                reports.update(counts - reports)  # the larger count of each
            return [each for each, _, _ in gathered]

        row = self._statistics.take(gather=gather)
        of_g = [count for name, count in reports.items() if name.startswith("G_")]
        last = self._rows[-1][0] if self._rows else 0
        return row, max(steps, default=last + max(of_g or reports.values(), default=0)), bool(steps)

    def _go_back(self, step: int) -> None:
        """Drops the rows from this step on, which a resumed training repeats."""
        self._rows = [(each, row) for each, row in self._rows if each < step]
        self.diagnosis = Diagnosis(self.diagnosis.facts, self.diagnosis.rules)
        for each, row in self._rows:
            self.diagnosis.add(each, row)
        if self._kept is not None:
            self._kept.drop_rows_from(step)
