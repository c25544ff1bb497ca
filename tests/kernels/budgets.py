"""Writes docs/gpu-budgets.md: the cost of each op's launches on a GPU, determined without one.

`make budgets` (`python -m tests.kernels.budgets`) writes the page; with names of ops as arguments, only their
rows anew. `tests/kernels/test_budgets.py` checks the kernels against it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
import triton

from tests.kernels import cuda_code
from tests.kernels.budget_cases import CASES, Case
from tests.kernels.cuda_cases import CASES as CUDA_CASES
from tests.kernels.cuda_cases import CudaCase
from tests.kernels.fake_cuda import Log, backward, fake_cuda
from tests.kernels.machine_code import bytes_moved, instructions, machine_code
from tests.op_names import chosen_names

PAGE = Path(__file__).parents[2] / "docs" / "gpu-budgets.md"
ARCHITECTURES = (80, 90, 100)
# An H100's copy bandwidth in bytes per second, and its thread instructions per second.
BANDWIDTH = 3.0e12
MULTIPROCESSORS = 132
ISSUE = MULTIPROCESSORS * 4 * 32 * 1.755e9

Row = tuple[str, ...]
HEADS = {
    "ops": (
        "op", "case", "direction", "launches", "other launches", "instructions", "bytes", "floor",
        "estimate us", "share", "bound by",
    ),
    "small": (
        "op", "case", "direction", "launches", "other launches", "allocations", "instructions", "estimate us",
    ),
    "kernels": (
        "op", "case", "direction", "kernel", *(f"registers {a}" for a in ARCHITECTURES), "spills",
        "loads", "stores", "FP64", "calls",
    ),
    "CUDA": ("kernel", "registers", "spills", "instructions", "loads", "stores", "FP64", "calls"),
}  # fmt: skip
TEXT = """\
# Budgets of the GPU kernels

What launches take, found out without a GPU: the tests make the calls on fake CUDA tensors, write down each
launch, compile it with the specializations that the launch makes, and read the machine code.
`tests/kernels/test_budgets.py` holds the kernels to this page; a change of a budget is a change of this page,
which `make budgets` writes. Compiled by Triton {triton}; with another version, registers and instructions may
differ by a quarter.

## Ops

Images are 8x3x1080x1920, or 8x3x1079x1919, those of `ssim` 5x5x1080x1920; features 8x64x512x512 and
8x256x128x128; activations 8x256x256x256; parameters 16.8 million, their averages float32. Numbers are of one
direction, per element of the op's first input.

- **Launches** are of kernels in Triton or, of `jpeg_round_trip` and `optimizer_step`, in CUDA C++. **Other
  launches** are PyTorch's kernels around ours, such as a `zeros`, and CUDA's `memset` of some bytes.
- **Instructions** are those of a thread on its main path on sm_90, times all threads: forward branches are
  not taken, but where they pass over the call of a slow path; bodies of loops count as often as this launch
  runs them. CUDA C++ is read by `tests/kernels/cuda_ways.py`: of the JPEG kernels' ways, that of an aligned
  contiguous image without NaN and inside its edges, grey levels to the nearest, the longer one where a branch
  chooses between two of arithmetic, loops as often as a block's threads run them on average; of
  `optimizer_step` a bound, since the kernel learns only at the launch which arrays there are: the longest
  way, with all arrays, statistics, and what one thread of a block does for all.
  What perspective_warp's backward kernel runs depends on the matrix: here that is near identity, as
  StegaStamp's are, and 4 x 4 output pixels are looked at for 2 x 2 of the image.
- **Bytes** are those of all tensors that are read, and of all that are written, once each; what a cache does
  not keep comes on top. Scaling in place by 1, known on the device alone, moves none. JPEG's have the masks
  that backward needs, and with subsampling the decoded samples between two launches.
- **Floor** are the bytes that must move. **Estimate** is the larger of two times, summed over launches: bytes
  at 3.0 TB/s, and instructions at 132 multiprocessors x 4 x 32 x 1.755 GHz, either of as many multiprocessors
  as there are programs; of other launches their tensors' bytes. The time of starting a launch is not in it.
  **Share** is the floor's time of the estimate.

{ops}

## Small tensors

Images are 4x3x64x64, logits 16x1x30x30, features 16x64x32x32, in float32 where nothing else is said. What
decides here is how many launches there are: one is taken to cost the GPU 2 or 3 us beside its work, which is
not yet measured, and the host 5 to 8 us in Triton's Python alone. **Estimate** is without that.
**Allocations** are of our outputs and scratch, from PyTorch's cache. `jpeg_round_trip` and `optimizer_step`
launch as often as above, whatever the size.

{small}

Where a program sums alone, in one launch, what it takes longer than many is about what a second launch takes.
Not so in `yuv_l2` and `feature_distance`, nor for more logits: there it would be instructions of 10 us and
more. That the last of many programs adds their sums, in one launch too, needs a counter that starts at zero.
To zero it for each call is a launch again; one that the last program sets back would have to be of a stream
alone, while a CUDA graph that was captured on a stream may run on others beside it.

## Limits

What bounds the rows whose share is below 60%:

{limits}

## Triton kernels

Registers are those on sm_80, sm_90 and sm_100, the rest is of sm_90. Spills are accesses to local memory in
the code of these. Loads and stores are how many accesses of how many bits a thread makes on its path, each
loop gone through once; FP64 are instructions there, calls are slow paths in the code.

{kernels}

## CUDA C++ kernels

Of `_C_cuda` as nvcc built it for sm_90, float32 images; instructions are all in the code, as many threads
leave early or go through loops. Aims: stores of 128 bits in `step_kernel`, and no calls in JPEG's kernels for
pixels. AdamW of float32 waits for memory: `test_budgets.py` finds that the longest way through its kernel
takes less than 70% of the time of its 28 bytes an element. FP64 in `step_kernel` and `norm_kernel`
is what one thread of a block computes, sums over blocks, and a second pass over gradients whose squares
overflow float32.

{cuda}
"""

# Explanations of rows below 60%.
LIMITS = {
    "blur": """\
in bfloat16, bound by arithmetic: the 49 products of 7 x 7 taps alone would take it to 81%.""",
    "filtered_lrelu": """\
bound by the instructions of 12 taps for an upsampled image that is four times as large; its two launches also
write and read that image in between. One launch of products with band matrices (`tl.dot` in float32), by
tiles of 64 x 64 upsampled and 27 x 27 final pixels, would take 989 multiply-adds for each of the latter, most
of them with zeros: 1.1 ms. That TF32 in three parts would be exact enough and faster is untried.""",
    "frequency_distance": """\
of powers and logarithms, bound by their arithmetic in float64. Weights of the default alpha=1 have
neither.""",
    "gradient_budget": """\
of more than 12 gradients: they are read twice, since a thread has no registers for sums of all pairs.""",
    "pixel_loss": """\
with Sobel's derivatives, bound by instructions: nine places of the difference for each channel, and the
transposed derivatives at as many.""",
    "ssim": """\
three maps of derivatives pass through memory between two launches, six of the eleven images that are read or
written; `sweep` is bound by the arithmetic of windows of 11 along both axes, each of two means and two
variances, and by that of the loss and its derivatives. `gather` is bound by memory.""",
    "perspective_warp": """\
backward in bfloat16, bound by the arithmetic of 4 x 4 places, which is that of float32.""",
    "upfirdn2d": """\
with 12 taps along each axis, bound by the instructions that load pixels and find out whether they exist: each
is loaded once for each tap along x.""",
}


def measured(case: Case) -> dict[str, list[Row]]:
    """The case's rows of the tables of ops and of kernels."""
    with fake_cuda() as log:
        x = case.input()
        log.take()
        output = case.call(x)
        forward = log.take()
        grad = torch.empty_like(output)
        log.take()
        backward(output, grad)
        rows: dict[str, list[Row]] = {case.table: [], "kernels": []}
        logs = (("forward", forward, case.floor[0]), ("backward", log.take(), case.floor[1]))
    for direction, launches, floor in logs:
        row = _of_op(case, direction, launches, floor * x.numel() * x.itemsize, x.numel())
        rows[case.table].append(row)
        rows["kernels"] += _of_kernels(case, direction, launches)
    return rows


def measured_cuda(case: CudaCase) -> Row:
    """The case's row of the table of ops."""
    costs = [
        (launch.bytes, launch.programs * launch.threads * launch.instructions, launch.programs)
        for launch in case.launches()
    ]
    return _row(case, "ops", case.direction, case.others, costs, 0, case.floor, case.elements)


def _of_op(case: Case, direction: str, log: Log, floor: float, elements: int) -> Row:
    costs = []
    for launch in log.triton:
        code = machine_code(launch, 90)
        count = instructions(launch, code, case.passes if direction == "backward" else ())
        costs.append((bytes_moved(launch, code), count, launch.programs))
    others = " ".join(other.name for other in log.others) or "-"
    other_bytes = sum(other.bytes for other in log.others)
    return _row(case, case.table, direction, others, costs, other_bytes, floor, elements, log.allocations)


def _row(
    case: Case | CudaCase,
    table: str,
    direction: str,
    others: str,
    costs: list[tuple[int, float, int]],
    other_bytes: int,
    floor: float,
    elements: int,
    allocations: int = 0,
) -> Row:
    """A row from the bytes, instructions and programs of each launch."""
    seconds: dict[str, float] = dict.fromkeys(("memory", "instructions", "few programs"), 0.0)
    for bytes_, count, programs in costs:
        busy = min(1.0, programs / MULTIPROCESSORS)
        times = {"memory": bytes_ / BANDWIDTH / busy, "instructions": count / ISSUE / busy}
        longest = max(times, key=lambda bound: times[bound])
        seconds[longest if busy == 1 else "few programs"] += times[longest]
    seconds["memory"] += other_bytes / BANDWIDTH
    moved = other_bytes + sum(bytes_ for bytes_, _, _ in costs)
    work = sum(count for _, count, _ in costs)
    bound = max(seconds, key=lambda bound: seconds[bound])
    total = sum(seconds.values())
    cells = {
        "op": case.op,
        "case": case.variant,
        "direction": direction,
        "launches": str(len(costs)),
        "other launches": others,
        "allocations": str(allocations),
        "instructions": f"{work / elements:.1f}",
        "bytes": f"{moved / elements:.2f}",
        "floor": f"{floor / elements:.2f}",
        "estimate us": f"{1e6 * total:.1f}",
        "share": f"{floor / BANDWIDTH / total:.0%}" if floor and total else "-",
        "bound by": bound if total else "-",
    }
    return tuple(cells[name] for name in HEADS[table])


def _of_kernels(case: Case, direction: str, log: Log) -> list[Row]:
    rows = []
    for launch in log.triton:
        code = machine_code(launch, 90)
        registers = [
            str(machine_code(launch, architecture).registers)
            if architecture == 90 or case.all_architectures
            else "-"
            for architecture in ARCHITECTURES
        ]
        spills = sum(
            machine_code(launch, a).spills for a in (ARCHITECTURES if case.all_architectures else (90,))
        )
        rows.append((
            case.op, case.variant, direction, launch.kernel.__name__, *registers, str(spills),
            widths(code.accesses("LDG")), widths(code.accesses("STG")), str(code.double_precision),
            str(code.calls),
        ))  # fmt: skip
    return rows


def widths(accesses: list[int]) -> str:
    """Widths of accesses as text, such as "6x128 1x32"."""
    return " ".join(f"{accesses.count(bits)}x{bits}" for bits in sorted(set(accesses), reverse=True)) or "-"


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table with aligned columns."""
    lines = [head, *rows]
    sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = tuple("-" * size for size in sizes)
    return "\n".join(
        "| " + " | ".join(cell.ljust(size) for cell, size in zip(line, sizes, strict=True)) + " |"
        for line in (head, rule, *rows)
    )


def committed() -> dict[str, list[Row]]:
    """The page's rows, by table."""
    tables: dict[str, list[Row]] = {}
    heads = {head: name for name, head in HEADS.items()}
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            continue
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if cells in heads:
            rows = tables.setdefault(heads[cells], [])
        elif set(cells[0]) != {"-"}:
            rows.append(cells)
    return tables


def rendered(tables: dict[str, list[Row]], version: str = triton.__version__) -> str:
    texts = {name.lower(): table(HEADS[name], rows) for name, rows in tables.items()}
    limits = "\n".join(f"- **{op}**: {text}" for op, text in LIMITS.items())
    return TEXT.format(triton=version, limits=limits, **texts)


def compiled_by() -> str:
    """The version of Triton of the page's rows."""
    match = re.search(r"Compiled by Triton (\S+);", PAGE.read_text())
    assert match is not None
    return match[1]


def main(progress: Callable[[str], object], arguments: Sequence[str] | None = None) -> None:
    cuda_ops = {case.op for case in CUDA_CASES}
    names = chosen_names("docs/gpu-budgets.md", [*(case.op for case in CASES), *sorted(cuda_ops)], arguments)
    if names and compiled_by() != triton.__version__:
        raise SystemExit(
            f"the page's rows are of Triton {compiled_by()}, and this is {triton.__version__}: write all anew"
        )
    if names & cuda_ops and not cuda_code.is_built():
        raise SystemExit(f"{', '.join(sorted(names & cuda_ops))} need _C_cuda, which nvcc builds, for sm_90")
    kept = committed() if PAGE.exists() else {}
    tables: dict[str, list[Row]] = {"ops": [], "small": [], "kernels": []}
    for case in CASES:
        if names and case.op not in names:
            for name in (case.table, "kernels"):
                rows = [row for row in kept[name] if row[:2] == (case.op, case.variant)]
                if not rows:
                    raise SystemExit(f"the page has no rows of {case}: write all anew")
                tables[name] += rows
            continue
        progress(f"{case}\n")
        for name, rows in measured(case).items():
            tables[name] += rows
    if cuda_code.is_built() and (not names or names & cuda_ops):
        tables["ops"] += map(measured_cuda, CUDA_CASES)
        tables["CUDA"] = cuda_code.rows(widths)
    elif kept:
        tables["ops"] += [row for row in kept["ops"] if row[0] in cuda_ops]
        tables["CUDA"] = kept["CUDA"]
    PAGE.write_text(rendered(tables))


if __name__ == "__main__":
    main(sys.stderr.write)
