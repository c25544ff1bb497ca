"""The number of instructions that a thread of a CUDA C++ kernel executes, by its path through machine code.

nvcc's code has paths for other layouts, odd sizes and NaN besides that of an aligned image. They are
identified by what they read and write: parts of a kernel are named by their accesses to global memory, such
as "STG 4x8" for masks of odd widths, and named parts must exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from math import inf

from tests.kernels.machine_code import Instruction, MachineCode

Times = dict[str, Fraction | int]
PHILOX = re.compile(r"-0x2daee0ad|0xd2511f53")  # Philox's multiplier


def signature(part: list[Instruction]) -> str:
    """The name of a part, such as "LDG 1x8 STG 2x32", with "FRND 12x32" for floats rounded to integers."""
    kinds = []
    for kind in ("LDG", "STG", "FRND"):
        bits = MachineCode.widths(i for i in part if i.name.startswith(kind))
        kinds += [kind, *(f"{bits.count(width)}x{width}" for width in sorted(set(bits), reverse=True))]
        if not bits:
            kinds.pop()
    return " ".join(kinds)


def executed(code: MachineCode, times: Times) -> float:
    """The average number of instructions that a thread executes.

    `times` gives the passes of a thread through a part: "loop STG 1x32" for a loop with these accesses, "over
    STG 4x8" for code that a forward branch can skip; 0 means that all threads skip it. Other forward branches
    are not taken, unless they skip the call of a slow path, or the shorter of two paths without accesses.
    """
    at = {i.address: number for number, i in enumerate(code.instructions)}
    weights: dict[int, Fraction] = {}
    unused, number = set(times), 0
    parts: list[tuple[int, int, Fraction]] = []
    while True:
        instruction = code.instructions[number]
        weights[instruction.address] = Fraction(1)
        target, following = instruction.target, number + 1
        if target is not None and target < instruction.address:
            name = "loop " + signature(code.instructions[at[target] : following])
            unused.discard(name)
            parts.append((target, instruction.address, Fraction(times[name])))
        elif target is not None:
            passed = code.instructions[following : at[target]]
            name = "over " + signature(passed)
            if not instruction.predicate:
                following = at[target]
            elif name in times:
                unused.discard(name)
                if times[name]:
                    parts.append((instruction.address + 1, target - 1, Fraction(times[name])))
                else:
                    following = at[target]
            elif any(i.name.startswith("CALL") for i in passed) or _is_shorter(code, at, passed):
                following = at[target]
        if instruction.name.startswith("EXIT") and not instruction.predicate:
            break
        number = following
    assert not unused, f"no part of the kernel is {sorted(unused)}"
    for first, last, share in parts:
        for address in weights:
            if first <= address <= last:
                weights[address] *= share
    return float(sum(weights.values()))


def _is_shorter(code: MachineCode, at: dict[int, int], passed: list[Instruction]) -> bool:
    """Whether the alternative to this path is at least as long and both are without accesses."""
    end = passed[-1] if passed else None
    if end is None or end.predicate or end.target is None or end.target <= end.address:
        return False
    other = code.instructions[at[end.address] + 1 : at[end.target]]
    return signature(passed) == signature(other) == "" and len(other) > len(passed) - 1


def longest(
    code: MachineCode, first: int, last: int, left_out: Callable[[Instruction], bool], loops: dict[int, int]
) -> int:
    """The number of instructions on the longest path from one address to another, or to the kernel's end.

    Paths through calls and instructions for which `left_out` is true are excluded. `loops`, given by their
    first and last address, are skipped, and other loops are run once.
    """
    lengths: dict[int, float] = {}
    after = {i.address: following.address for i, following in pairwise(code.instructions)}
    for instruction in reversed(code.instructions):
        address, name = instruction.address, instruction.name
        if not first <= address <= last:
            continue
        if address in loops:
            lengths[address] = lengths.get(after[loops[address]], -inf)
            continue
        ends = address == last or name.startswith("EXIT")
        paths: list[float] = [0] if ends else []
        if instruction.target is not None and instruction.target > address:
            paths.append(lengths.get(instruction.target, -inf))
        if instruction.predicate or not name.startswith(("BRA", "BRX", "EXIT", "RET")):
            paths.append(lengths.get(after.get(address, -1), -inf))
        is_excluded = name.startswith("CALL") or left_out(instruction)
        lengths[address] = -inf if is_excluded else 1 + max(paths, default=-inf)
    return int(lengths[first])


def of_step(code: MachineCode, vectors: int, rounds_at_random: bool = False) -> float:
    """An upper bound of the instructions of a thread of `step_kernel` for some vectors of four elements.

    The longest path, with all arrays and statistics, and with the parts that only one thread of a block runs;
    but in the loop over vectors without accesses of less than 64 bits and, unless `rounds_at_random`, without
    random rounding. In code for halves it is the loop for halves with float32 states.
    """
    roots = [i.address for i in code.instructions if i.name == "MUFU.RSQ"]
    loops = [i for i in code.branches_back if any(i.target <= root <= i.address for root in roots)]

    def stores(loop: Instruction) -> list[int]:
        inside = (i for i in code.instructions if loop.target <= i.address <= loop.address)
        return MachineCode.widths(i for i in inside if i.name.startswith("STG"))

    def left_out(instruction: Instruction) -> bool:
        moves = instruction.name.startswith(("LDG", "STG"))
        narrow = moves and min(MachineCode.widths([instruction])) < 64
        return narrow or (not rounds_at_random and bool(PHILOX.search(instruction.operands)))

    (loop,) = loops if len(loops) == 1 else [i for i in loops if 64 in stores(i)]
    inside = longest(code, loop.target, loop.address, left_out, {})
    skipped = {i.target: i.address for i in sorted(loops, key=lambda i: i.address)}
    outside = longest(code, 0, code.instructions[-1].address, lambda _: False, skipped)
    return outside + vectors * inside
