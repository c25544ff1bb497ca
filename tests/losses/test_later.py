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
    """Logs uses of streams and events while the first GPU is the current one."""
    with torch.device("cpu"):
        torch.zeros(())  # torch keeps a list of its constructors from here on, which must not have stand-ins
    done = {"current": 0, "capturing": set(), "recorded": []}

    class Event:
        there = False

        def record(self, stream):
            done["recorded"].append(stream)

        def query(self):
            return self.there

        def __reduce__(self):
            raise TypeError("cannot pickle 'Event' object")

    class Current:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            self.before, done["current"] = done["current"], self.device.index

        def __exit__(self, *error):
            done["current"] = self.before

    monkeypatch.setattr(torch.cuda, "current_device", lambda: done["current"])
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(
        torch.cuda, "is_current_stream_capturing", lambda: done["current"] in done["capturing"]
    )
    monkeypatch.setattr(torch.cuda, "Event", Event)
    return done


@pytest.mark.parametrize(("capturing", "captured"), [(set(), False), ({0}, True), ({1}, True), ({2}, False)])
def test_captures_of_the_current_stream_and_of_the_tensors_are_seen(second_gpu, capturing, captured):
    second_gpu["capturing"] = capturing
    assert _later.is_captured(FakeDevice()) == captured
    assert second_gpu["current"] == 0


@pytest.mark.parametrize("default", ["cpu", "meta"])
def test_the_copy_is_recorded_on_the_stream_it_runs_on(second_gpu, default, monkeypatch):
    made = []
    empty = torch.empty

    def pinned(*shape, pin_memory, **options):
        assert pin_memory
        made.append(options)
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", pinned)
    values = torch.tensor([1.0, 2.0], dtype=torch.float64)
    with torch.device(default) if default != "cpu" else nullcontext():
        here, _ = _later.copy_to_host_async(values)
    assert second_gpu["recorded"] == [f"stream of {values.device}"]
    assert made == [{"dtype": torch.float64, "device": "cpu"}]
    assert here.device.type == "cpu" and here.tolist() == [1.0, 2.0]


def test_what_is_sent_arrives_once_and_is_left_out_of_copies(second_gpu, monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda shape, pin_memory, **options: torch.zeros(shape, **options))
    pending = PendingRead()
    assert pending.is_empty and pending.take() is None
    pending.send(torch.tensor([1.0, 2.0]), "note")
    assert not pending.is_empty and pending.take() is None
    for twin in (
        copy.deepcopy(pending),
        copy.copy(pending),
        pickle.loads(pickle.dumps(pending)),
    ):
        assert twin.is_empty and twin.take() is None
    pending._pending[1].there = True
    assert pending.take() == ([1.0, 2.0], "note")
    assert pending.is_empty and pending.take() is None


def test_a_forked_process_leaves_the_look_of_its_parent_alone(second_gpu, monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda shape, pin_memory, **options: torch.zeros(shape, **options))
    pending = PendingRead()
    pending.send(torch.tensor([1.0, 2.0]), "note")
    pending._pending[1].there = True
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        child.setattr(torch.cuda.Event, "query", lambda event: pytest.fail("CUDA: initialization error"))
        assert pending.is_empty and pending.take() is None
    assert not pending.is_empty and pending.take() == ([1.0, 2.0], "note")


def test_what_can_be_read():
    assert can_be_read(torch.rand(3), nn.Parameter(torch.rand(3)))
    assert not can_be_read(torch.rand(3), torch.rand(0))
    assert not can_be_read(torch.rand(3, device="meta"))

    class Subclass(torch.Tensor):
        pass

    assert not can_be_read(torch.rand(3).as_subclass(Subclass))
    with torch._subclasses.FakeTensorMode():
        assert not can_be_read(torch.rand(3))
    seen = []
    torch.vmap(lambda x: seen.append(can_be_read(x)) or x)(torch.rand(3, 2))
    torch.compile(lambda x: seen.append(can_be_read(x)) or x, backend="eager")(torch.rand(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated
        torch.jit.trace(lambda x: seen.append(can_be_read(x)) or 2 * x, torch.rand(3), check_trace=False)
    assert seen == [False, False, False]
