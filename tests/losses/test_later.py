"""Reading values from a GPU without synchronization, tested with a simulated GPU."""

import copy
import os
import pickle
import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from fastgan.ops import _later
from fastgan.ops._later import PendingRead, can_be_read


class FakeDevice:
    """Simulates a tensor on the second of two GPUs."""

    type, index = "cuda", 1


@pytest.fixture
def second_gpu(monkeypatch):
    """Logs uses of streams and events; the first GPU is the current one."""
    with torch.device("cpu"):
        torch.zeros(())  # torch lists its constructors here once, which must happen before they are replaced
    log = {"current": 0, "capturing": set(), "recorded": []}

    class Event:
        is_complete = False

        def record(self, stream):
            log["recorded"].append(stream)

        def query(self):
            return self.is_complete

        def __reduce__(self):
            raise TypeError("cannot pickle 'Event' object")

    class Current:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            self.before, log["current"] = log["current"], self.device.index

        def __exit__(self, *error):
            log["current"] = self.before

    monkeypatch.setattr(torch.cuda, "current_device", lambda: log["current"])
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: log["current"] in log["capturing"])
    monkeypatch.setattr(torch.cuda, "Event", Event)
    return log


@pytest.mark.parametrize(("capturing", "captured"), [(set(), False), ({0}, True), ({1}, True), ({2}, False)])
def test_captures_of_the_current_and_of_the_tensors_device_are_noticed(second_gpu, capturing, captured):
    second_gpu["capturing"] = capturing
    assert _later.is_captured(FakeDevice()) == captured
    assert second_gpu["current"] == 0


@pytest.mark.parametrize("default", ["cpu", "meta"])
def test_the_copy_is_recorded_on_the_stream_it_runs_on(second_gpu, default, monkeypatch):
    allocations = []
    empty = torch.empty

    def pinned(*shape, pin_memory, **options):
        assert pin_memory
        allocations.append(options)
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", pinned)
    values = torch.tensor([1.0, 2.0], dtype=torch.float64)
    with torch.device(default) if default != "cpu" else nullcontext():
        on_cpu, _ = _later.copy_to_host_async(values)
    assert second_gpu["recorded"] == [f"stream of {values.device}"]
    assert allocations == [{"dtype": torch.float64, "device": "cpu"}]
    assert on_cpu.device.type == "cpu" and on_cpu.tolist() == [1.0, 2.0]


def test_values_arrive_once_and_copies_are_empty(second_gpu, monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda shape, pin_memory, **options: torch.zeros(shape, **options))
    pending = PendingRead()
    assert pending.is_empty and pending.take() is None
    pending.send(torch.tensor([1.0, 2.0]), "note")
    assert not pending.is_empty and pending.take() is None
    for duplicate in (
        copy.deepcopy(pending),
        copy.copy(pending),
        pickle.loads(pickle.dumps(pending)),
    ):
        assert duplicate.is_empty and duplicate.take() is None
    pending._pending[1].is_complete = True
    assert pending.take() == ([1.0, 2.0], "note")
    assert pending.is_empty and pending.take() is None


def test_a_forked_process_does_not_take_values_of_its_parent(second_gpu, monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda shape, pin_memory, **options: torch.zeros(shape, **options))
    pending = PendingRead()
    pending.send(torch.tensor([1.0, 2.0]), "note")
    pending._pending[1].is_complete = True
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        child.setattr(torch.cuda.Event, "query", lambda event: pytest.fail("CUDA: initialization error"))
        assert pending.is_empty and pending.take() is None
    assert not pending.is_empty and pending.take() == ([1.0, 2.0], "note")


def test_tensors_whose_values_can_be_read():
    assert can_be_read(torch.rand(3), nn.Parameter(torch.rand(3)))
    assert not can_be_read(torch.rand(3), torch.rand(0))
    assert not can_be_read(torch.rand(3, device="meta"))

    class Subclass(torch.Tensor):
        pass

    assert not can_be_read(torch.rand(3).as_subclass(Subclass))
    with torch._subclasses.FakeTensorMode():
        assert not can_be_read(torch.rand(3))
    results = []
    torch.vmap(lambda x: results.append(can_be_read(x)) or x)(torch.rand(3, 2))
    torch.compile(lambda x: results.append(can_be_read(x)) or x, backend="eager")(torch.rand(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated
        torch.jit.trace(lambda x: results.append(can_be_read(x)) or 2 * x, torch.rand(3), check_trace=False)
    assert results == [False, False, False]
