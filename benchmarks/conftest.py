"""The `measure` fixture: pytest-benchmark's timing, with memory and the bandwidth floor in each row."""

from __future__ import annotations

import pytest
from fastgan.bench import harness


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", choices=["cpu", "cuda"])


@pytest.fixture(scope="session")
def device(request) -> str:
    return request.config.getoption("--device")


@pytest.fixture(scope="session")
def bandwidth(device) -> float:
    return harness.copy_bandwidth(device)


@pytest.fixture
def measure(benchmark, device, bandwidth):
    def run_one(*, op, provider, size, mode, run, floor_bytes, forward=None, inputs=()):
        def timed():
            run()
            harness.synchronize(device)

        benchmark.group = f"{op} {mode} {size}"
        benchmark.extra_info.update(
            op=op,
            provider=provider,
            size=size,
            mode=mode,
            floor_s=floor_bytes / bandwidth,
            copy_gb_per_s=bandwidth / 1e9,
            saved_bytes=harness.saved_bytes(forward, inputs) if forward else None,
            peak_bytes=harness.peak_bytes(run, device),
        )
        rounds = harness.rounds_in(timed, seconds=1.0)
        benchmark.extra_info["page_faults"] = harness.page_faults(timed)
        benchmark.pedantic(timed, rounds=rounds, warmup_rounds=rounds // 10)

    return run_one
