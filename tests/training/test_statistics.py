"""Reports of steps, and the table of their means."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch

from fastgan._tables import read_table
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.statistics import _sums
from fastgan.training.logging import CsvTable
from fastgan.training.report.curves import plots_of
from fastgan.training.statistics import Statistics, gathering, report, report_all

CPU = torch.device("cpu")


def test_means_are_over_the_reports_of_each_name():
    with gathering(Statistics()) as statistics:
        report("G_loss", torch.tensor([1.0], requires_grad=True))
        report_all({"G_loss": torch.tensor(2.0, dtype=torch.float64), "lr": 0.5})
        report("G_loss", 6)
        report("D_updated", torch.tensor(True))
        report_all({"lr": 1.5}, suffix="_d")
    assert statistics.take(CPU) == {"G_loss": 3.0, "lr": 0.5, "D_updated": 1.0, "lr_d": 1.5}
    assert statistics.take(CPU) == {}, "a log line starts anew"


def test_threads_that_report_at_once_lose_no_value(monkeypatch):
    statistics = Statistics()
    other = threading.Thread(target=statistics.add, args=("G_loss", 7.0))

    def summed(values, device):
        if not other.ident:  # another thread reports while this one sums
            other.start()
            other.join(0.1)
        return _sums(values, device)

    monkeypatch.setattr("fastgan.monitor.statistics.MOST_KEPT", 2)
    monkeypatch.setattr("fastgan.monitor.statistics._sums", summed)
    for value in (1.0, 1.0):
        statistics.add("G_loss", value)
    other.join()
    assert statistics.take(CPU) == {"G_loss": 3.0}


def test_many_reports_are_summed_on_the_way(monkeypatch):
    monkeypatch.setattr("fastgan.monitor.statistics.MOST_KEPT", 4)
    with gathering(Statistics()) as statistics:
        for value in range(10):
            report("tensor", torch.tensor(float(value)))
            report("number", value)
            if value < 4:
                report("early", torch.tensor(float(value)))
            assert max(map(len, statistics._values.values())) < 4
    assert statistics.take(CPU) == {"tensor": 4.5, "number": 4.5, "early": 1.5}
    assert statistics.take(CPU) == {}


@pytest.mark.parametrize("kept", [4, 1000])
def test_numbers_and_tensors_on_the_cpu_are_not_copied_to_an_accelerator(monkeypatch, kept):
    """Copies to an accelerator would make the host wait, between log lines too."""
    monkeypatch.setattr("fastgan.monitor.statistics.MOST_KEPT", kept)
    copied = []
    monkeypatch.setattr(torch, "as_tensor", lambda *_, **__: copied.append("as_tensor"))
    move = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *given: copied.append(self.device.type) or move(self, *given)
    )
    statistics = Statistics()
    for _ in range(3):
        for value in (1.0, torch.ones(()), torch.ones((), device="meta")):
            statistics.add("mixed", value)
    device = torch.device("meta")
    on_device, on_host, _ = statistics._sums.get("mixed", (None, 0.0, 0))
    values = [*statistics._values["mixed"], *([] if on_device is None else [on_device])]
    on_device, added = _sums(values, device)
    assert on_device.device == device and on_host + added == 6
    assert set(copied) <= {"meta"}


def test_what_nobody_gathers_is_dropped():
    report("G_loss", torch.ones(3))  # not checked outside of `gathering`
    with gathering(Statistics()) as outer:
        with gathering(Statistics()) as inner:
            report("a", 1.0)
        report("b", 2.0)
    assert (inner.take(CPU), outer.take(CPU)) == ({"a": 1.0}, {"b": 2.0})


@pytest.mark.parametrize("value", [torch.ones(2), torch.ones(0)])
def test_several_values_at_once_are_refused(value):
    with gathering(Statistics()), pytest.raises(ValueError, match=r"G_loss must be reported as one number"):
        report("G_loss", value)


def test_graphs_are_not_kept():
    weight = torch.ones(1000, requires_grad=True)
    hidden = weight * 2
    dropped = weakref.ref(hidden)
    with gathering(Statistics()):
        report("loss", hidden.exp().sum())
        del hidden
        gc.collect()
        assert dropped() is None


def test_processes_may_report_different_terms():
    statistics, others = Statistics(), {"a": (4.0, 3), "c": (7.0, 2)}
    with gathering(statistics):
        report("a", 8.0)
        report("b", 1.0)
    assert statistics.take(CPU, lambda own: [own, others]) == {"a": 5.0, "b": 1.0, "c": 7.0}


def test_cells_of_terms_that_were_not_reported_are_empty(tmp_path):
    table = CsvTable(tmp_path / "metrics.csv")
    table.write(1, {"G_loss": 0.5})
    table.write(2, {"D_loss": 0.25})
    table.write(3, {"G_loss": 0.75, "D_loss": 1.0})
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == ["step,G_loss,D_loss", "1,0.5,", "2,,0.25", "3,0.75,1"]
    columns = read_table(tmp_path / "metrics.csv")
    assert columns["step"] == [1, 2, 3]
    assert str(columns["D_loss"]) == "[nan, 0.25, 1.0]"


def test_curves_connect_what_was_reported(tmp_path):
    table = CsvTable(tmp_path / "metrics.csv")
    for step in range(1, 9):
        table.write(step, {"D_loss": 1.0 / step} if step % 2 else {"G_loss": 2.0})
    plots = plots_of(read_table(tmp_path / "metrics.csv"), {}, Diagnosis())
    curves = {name: values for plot in plots for name, values in plot.curves.items()}
    assert curves["D_loss"][::2] == pytest.approx([1, 1 / 3, 0.2, 1 / 7])
    assert curves["D_loss"][1::2] == [""] * 4
    assert curves["G_loss"] == ["", 2.0] * 4


def test_tables_of_older_runs_have_nan_for_what_was_not_there(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,G_loss,D_loss\n1,nan,2\n")
    CsvTable(tmp_path / "metrics.csv").write(2, {"G_loss": 1.0})
    assert str(read_table(tmp_path / "metrics.csv")["G_loss"]) == "[nan, 1.0]"
