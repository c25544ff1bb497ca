"""Measurements that the benchmarks share: the machine's copy bandwidth, memory above the baseline, times.

A benchmark is one `setup(provider, size)` in `benchmarks/ops/bench_<op>.py`. pytest-benchmark, or on a GPU
CUDA events, time the providers side by side in one run; each row also has the bytes saved for backward, the
peak of extra memory, and the floor: the bytes that must move divided by the copy bandwidth measured in the
same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

MEMORY = ("returned", "kept")
"""The treatment of freed memory on the CPU.

returned: glibc returns large blocks to the system, and each page of the next tensor costs a page fault, as in
    a process with default settings.
kept: the next tensor reuses it, as in fastgan's trainers (`fastgan.training.memory`).
"""


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def copy_bandwidth(device: str, repeats: int = 30) -> float:
    """Bytes per second, read plus written, of the fastest half of large copies on all cores."""
    elements = (64 if device == "cpu" else 512) * 2**20
    source, target = torch.rand(2, elements, device=device)
    times = []
    if device == "cuda":
        times = DeviceTimer().times(lambda: target.copy_(source), repeats)[0]
    else:
        for _ in range(repeats):
            begin = time.perf_counter()
            target.copy_(source)
            times.append(time.perf_counter() - begin)
    return 2 * 4 * elements / statistics.median(sorted(times)[: repeats // 2])


class DeviceTimer:
    """Times runs on the GPU by events, each after filling the L2 cache with other data.

    The filling also keeps the GPU busy while the host issues the run, so that the timed part has no gaps in
    which the GPU waits for the host, whose time is measured separately. The filling leaves bytes in the cache
    that are not yet written to memory; the run pays for these, as it would in a training step.
    """

    def __init__(self, device: str = "cuda") -> None:
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        self._other = torch.empty(4 * cache, dtype=torch.uint8, device=device)
        self._filling_s = statistics.median(self._timed(self._fill, 1)[0] for _ in range(10))

    def times(self, run: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
        """Seconds that each run takes on the GPU, and that the host takes to issue it."""
        # The host's time says how long to keep the GPU busy before the run.
        host = statistics.median(self._timed(run, 1)[1] for _ in range(5))
        fillings = min(50, 1 + int(1.5 * host / self._filling_s))
        pairs = [self._timed(run, fillings) for _ in range(repeats)]
        return [on_device for on_device, _ in pairs], [host for _, host in pairs]

    def repeats_in(self, run: Callable[[], object], seconds: float, least: int, most: int) -> int:
        """The number of runs that take about that long, including the filling around each."""
        begin = time.perf_counter()
        self.times(run, 1)
        return max(least, min(most, int(6 * seconds / (time.perf_counter() - begin))))

    def _fill(self) -> None:
        self._other.zero_()

    def _timed(self, run: Callable[[], object], fillings: int) -> tuple[float, float]:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(fillings):
            self._fill()
        begin.record()
        before = time.perf_counter()
        run()
        host = time.perf_counter() - before
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3, host


def saved_bytes(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...]) -> int:
    """Bytes that autograd keeps for backward, beyond the inputs themselves, each storage once."""
    known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    del loss
    return sum(storages.values())


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """The peak of tensors' memory above the baseline during `run`."""
    run()  # compile and warm up
    if device == "cuda":
        torch.cuda.synchronize()
        baseline = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - baseline
    return _peak_of_allocations(_allocations(run))


def flops(run: Callable[[], object]) -> int:
    """Floating-point operations of convolutions and matrix products, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def ratio_in_turn(run: Callable[[], object], other: Callable[[], object], turns: int = 40) -> float:
    """The ratio of the times of `run` and `other`: the median over alternating turns of 50 ms each.

    Virtual cores change their speed within seconds, by up to a factor of two, so that measurements one after
    the other are not comparable; neighbouring turns are.
    """

    def median_in_a_turn(function: Callable[[], object]) -> float:
        function()  # warms up memory and caches after the other's turn
        times: list[float] = []
        while len(times) < 3 or sum(times) < 0.05:
            begin = time.perf_counter()
            function()
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    return statistics.median(median_in_a_turn(run) / median_in_a_turn(other) for _ in range(turns))


def page_faults(run: Callable[[], object], repeats: int = 50) -> float:
    """Page faults per run, which for fresh large allocations cost more than writing to them.

    Their number depends on the memory that the allocator kept from earlier calls, so the same code may take a
    third longer in another process; rows with and without faults are not comparable.
    """
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(repeats):
        run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / repeats


def _allocations(run: Callable[[], object]) -> Iterator[int]:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            yield event.nbytes()


def _peak_of_allocations(sizes: Iterator[int]) -> int:
    current = peak = 0
    for size in sizes:
        current += size
        peak = max(peak, current)
    return peak
