"""The `measure` fixture: pytest-benchmark's timing, with memory and the bandwidth floor in each row."""

from __future__ import annotations

import statistics
import sys

import pytest
import torch

from fastgan.bench import harness
from fastgan.training.measurement import rounds_in
from fastgan.training.memory import keep_freed_memory

CASES = pytest.StashKey[list[tuple[str, ...]]]()
"""Each case that a benchmark sets up, in their order, also if it is then skipped."""


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", choices=["cpu", "cuda"])
    parser.addoption("--memory", default="returned", choices=harness.MEMORY)
    parser.addoption("--quick", action="store_true", help="few rounds, and nothing that compiles for long")


def pytest_configure(config):
    config.stash[CASES] = []


def pytest_benchmark_update_json(config, output_json):
    output_json["cases"] = config.stash[CASES]


@pytest.fixture(scope="session")
def memory(request, device) -> str | None:
    """The treatment of freed memory on the CPU for the whole session; None on other devices."""
    if device != "cpu":
        return None
    state = request.config.getoption("--memory")
    if state == "kept" and not keep_freed_memory():
        pytest.skip("this C library cannot be told to keep freed memory")
    return state


@pytest.fixture(scope="session")
def device(request) -> str:
    return request.config.getoption("--device")


@pytest.fixture(scope="session")
def bandwidth(device) -> float:
    return harness.copy_bandwidth(device)


@pytest.fixture(scope="session")
def device_timer() -> harness.DeviceTimer:
    return harness.DeviceTimer()


@pytest.fixture
def measure(request, benchmark, device, memory, bandwidth):
    quick = request.config.getoption("--quick")
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # a line that every case compiles anew would reach the limit of recompilations

    def run_one(
        *, op, provider, size, mode, run, floor_bytes, forward=None, inputs=(), rounds=None,
        per_element=None, compiles=False, counts_flops=False,
    ):  # fmt: skip
        request.config.stash[CASES].append((op, provider, size, mode))
        if quick and (compiles or "compiled" in provider):
            pytest.skip("compiles for long")

        def timed():
            run()
            harness.synchronize(device)

        run()  # compiles first, which cannot be done under the hooks of saved_bytes
        benchmark.group = f"{op} {mode} {size}"
        benchmark.extra_info.update(
            op=op,
            provider=provider,
            size=size,
            mode=mode,
            memory=memory,
            floor_s=floor_bytes / bandwidth,
            copy_gb_per_s=bandwidth / 1e9,
            saved_bytes=harness.saved_bytes(forward, inputs) if forward else None,
            peak_bytes=harness.peak_bytes(run, device),
        )
        if counts_flops:
            benchmark.extra_info["flops"] = harness.flops(run)
        if device == "cuda":
            timer = request.getfixturevalue("device_timer")
            least, most = (10, 50) if quick else (30, 500)
            count = timer.repeats_in(run, 0.1 if quick else 1.0, least, most)
            on_device, host = timer.times(run, count)
            benchmark.extra_info.update(host_s=statistics.median(host), device_seconds=on_device)
            benchmark.pedantic(timed, rounds=1)  # so that pytest-benchmark writes a row
            return
        if per_element:  # (elements, a smaller run, its elements)
            elements, first, first_elements = per_element

            def first_timed() -> None:
                first()
                harness.synchronize(device)

            ratio = harness.ratio_in_turn(timed, first_timed)
            benchmark.extra_info["per_element_ratio"] = ratio * first_elements / elements
        # Slow benchmarks give their number of rounds.
        benchmark.extra_info["page_faults"] = harness.page_faults(timed, repeats=1 if rounds else 50)
        count = rounds or rounds_in(timed, seconds=0.2 if quick else 1.0, least=20 if quick else 100)
        benchmark.pedantic(timed, rounds=count, warmup_rounds=0 if rounds else count // 10)

    return run_one
