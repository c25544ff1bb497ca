"""How many instructions a thread of a CUDA C++ kernel executes, by its way through the machine code.

nvcc's code has ways for other layouts, odd sizes and NaN beside the one that an aligned image takes. Which is
which is told by what they read and write: parts of a kernel are named by their accesses to global memory,
such as "STG 4x8" for masks of odd widths, and those named must be there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from math import inf

from tests.kernels.machine_code import Instruction, MachineCode

Times = dict[str, Fraction | int]
PHILOX = re.compile(r"-0x2daee0ad|0xd2511f53")  # its multiplier


def signature(part: list[Instruction]) -> str:
    """Such as "LDG 1x8 STG 2x32"; with "FRND 12x32" where floats become whole ones."""
    kinds = []
    for kind in ("LDG", "STG", "FRND"):
        bits = MachineCode.widths(i for i in part if i.name.startswith(kind))
        kinds += [kind, *(f"{bits.count(width)}x{width}" for width in sorted(set(bits), reverse=True))]
        if not bits:
            kinds.pop()
    return " ".join(kinds)


def executed(code: MachineCode, times: Times) -> float:
    """Of a thread on average.

    `times` says how often a thread goes through a part: "loop STG 1x32" through a loop with these accesses,
    "over STG 4x8" through what a forward branch can pass over; 0 means that all threads pass over it. Other
    forward branches are not taken, unless what they pass over calls a slow path, or is the shorter of two
    ways without accesses.
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
    """Whether there is another way beside this one, as long or longer and without accesses, as this one."""
    end = passed[-1] if passed else None
    if end is None or end.predicate or end.target is None or end.target <= end.address:
        return False
    other = code.instructions[at[end.address] + 1 : at[end.target]]
    return signature(passed) == signature(other) == "" and len(other) > len(passed) - 1


def longest(
    code: MachineCode, first: int, last: int, left_out: Callable[[Instruction], bool], loops: dict[int, int]
) -> int:
    """Instructions on the longest way from an address to another, or to the kernel's end.

    Without calls and what is left out; of `loops`, from their first address to their last, nothing is
    counted, and other loops are gone through once.
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
        ways: list[float] = [0] if ends else []
        if instruction.target is not None and instruction.target > address:
            ways.append(lengths.get(instruction.target, -inf))
        if instruction.predicate or not name.startswith(("BRA", "BRX", "EXIT", "RET")):
            ways.append(lengths.get(after.get(address, -1), -inf))
        out = name.startswith("CALL") or left_out(instruction)
        lengths[address] = -inf if out else 1 + max(ways, default=-inf)
    return int(lengths[first])


def of_step(code: MachineCode, vectors: int, rounds_at_random: bool = False) -> float:
    """At most, of a thread of `step_kernel` that takes so many vectors of four elements.

    The longest way, with all arrays and statistics, and with what only one thread of a block does; but in the
    loop through vectors without accesses of less than 64 bits and, unless asked for, without random rounding.
    In code for halves it is the loop for halves beside float32.
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
    of_loop = longest(code, loop.target, loop.address, left_out, {})
    passed = {i.target: i.address for i in sorted(loops, key=lambda i: i.address)}
    around = longest(code, 0, code.instructions[-1].address, lambda _: False, passed)
    return around + vectors * of_loop
