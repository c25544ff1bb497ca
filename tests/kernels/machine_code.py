"""The machine code of a launch: registers, widths of memory accesses, executed instructions.

Nothing here runs on a GPU. Instructions are counted on a thread's main path: forward branches that skip a
call (the slow path of a division) are taken, others are not; the body of a loop counts as often as the launch
runs it, divided by ptxas's unrolling.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from tests.kernels.fake_cuda import Launch

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(@!?U?P\d+\s+)?([A-Z][\w.]*)\s*([^;]*);", re.MULTILINE)
# Double precision, and conversions from and to it.
FP64 = re.compile(r"^(DADD|DMUL|DFMA|DSETP|DMNMX|MUFU\.\w+64H|F2F\.F64|F2F\.F32\.F64|I2F\.F64|F2I\.F64)")


@dataclass(frozen=True)
class Instruction:
    address: int
    predicate: str
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """The address that a branch jumps to; None for other instructions."""
        match = re.search(r"(0x[0-9a-f]+)\s*$", self.operands)
        return int(match[1], 16) if self.name.startswith("BRA") and match else None


def dumped(binary: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        return subprocess.run(
            [CUOBJDUMP, option, file.name], capture_output=True, text=True, check=True
        ).stdout


@dataclass(frozen=True)
class MachineCode:
    usage: str
    """cuobjdump's output for one kernel; of its resources alone, if the binary is given."""
    ptx: str = ""
    source: str = ""
    """Triton's intermediate code (TTIR), which still has the kernel's arguments and loops."""
    binary: bytes = b""
    """Disassembled where instructions are asked for: that takes a hundred times as long as the resources."""

    @cached_property
    def text(self) -> str:
        return dumped(self.binary, "-sass") if self.binary else self.usage

    @cached_property
    def instructions(self) -> list[Instruction]:
        matches = INSTRUCTION.findall(self.text)
        return [Instruction(int(at, 16), predicate, name, rest) for at, predicate, name, rest in matches]

    @property
    def registers(self) -> int:
        return int(re.search(r"REG:(\d+)", self.usage)[1])

    @property
    def spills(self) -> int:
        """How many accesses there are to local memory, to which registers are spilled."""
        if re.search(r"STACK:0 SHARED:\d+ LOCAL:0", self.usage):
            return 0
        return sum(i.name.startswith(("LDL", "STL")) for i in self.instructions)

    def accesses(self, kind: str) -> list[int]:
        """The width in bits of each load (LDG) or store (STG) on a thread's main path, in order."""
        return self.widths(i for i in self.path if i.name.startswith(kind))

    @staticmethod
    def widths(accesses: Iterable[Instruction]) -> list[int]:
        matches = [re.search(r"\.(U8|S8|U16|S16|64|128)\b", access.name) for access in accesses]
        return [int(match[1].strip("US")) if match else 32 for match in matches]

    @property
    def double_precision(self) -> int:
        """The number of double-precision instructions on the main path."""
        return sum(bool(FP64.match(i.name)) for i in self.path)

    @property
    def calls(self) -> int:
        """The number of calls, which are of slow paths, mostly of divisions."""
        return sum(i.name.startswith("CALL") for i in self.instructions)

    @cached_property
    def path(self) -> list[Instruction]:
        """A thread's main path from the first instruction to the last, through each loop once."""
        at = {i.address: number for number, i in enumerate(self.instructions)}
        calls = [i.address for i in self.instructions if i.name.startswith("CALL")]
        path, number = [], 0
        while number < len(self.instructions):
            instruction = self.instructions[number]
            path.append(instruction)
            number += 1
            target = instruction.target
            if instruction.name.startswith(("EXIT", "RET")) and not instruction.predicate:
                break
            if target is not None and target > instruction.address:
                guards_a_call = any(instruction.address < call < target for call in calls)
                if guards_a_call or not instruction.predicate:
                    number = at[target]
            elif target == instruction.address:
                break
        return path

    @property
    def loops(self) -> list[list[Instruction]]:
        """The instructions of each loop on the main path, from a backward branch's target to the branch."""
        ends = [i for i in self.path if i.target is not None and i.target < i.address]
        return [[i for i in self.path if end.target <= i.address <= end.address] for end in ends]

    @property
    def branches_back(self) -> list[Instruction]:
        return [i for i in self.instructions if i.target is not None and i.target < i.address]

    def executed(self, passes: list[int]) -> float:
        """The number of instructions that a thread executes, given the passes through the source's loops."""
        loops = sorted(self.loops, key=len, reverse=True)
        counted = sorted(loops[: len(passes)], key=lambda loop: (loop[0].address, -len(loop)))
        times = dict.fromkeys((i.address for i in self.path), 1.0)
        times |= dict.fromkeys((i.address for loop in loops[len(passes) :] for i in loop), 0.0)
        times |= dict.fromkeys((i.address for loop in counted for i in loop), 1.0)
        for loop, count in zip(counted, passes, strict=False):
            factor = count / self._unrolled(loop)
            for i in loop:
                times[i.address] *= factor
        return sum(times[i.address] for i in self.path)

    def _unrolled(self, loop: list[Instruction]) -> int:
        """The unrolling factor of a loop: its number of loads divided by that of the loop in PTX."""
        loads = sum(i.name.startswith("LDG") for i in loop)
        labels = {
            label: at for at, label in enumerate(re.split(r"^(\$L__BB\w+):", self.ptx, flags=re.M)[1::2])
        }
        bodies = re.split(r"^\$L__BB\w+:", self.ptx, flags=re.M)[1:]
        in_source = [
            sum(len(re.findall(r"\bld\.global", body)) for body in bodies[labels[back] : number + 1])
            for number, body in enumerate(bodies)
            for back in re.findall(r"bra(?:\.uni)?\s+(\$L__BB\w+);", body)
            if labels.get(back, len(bodies)) <= number
        ]
        in_source = [count for count in in_source if count and count <= loads]
        return max(1, loads // max(in_source)) if in_source else 1


@cache
def _binder(kernel: Any, capability: int) -> tuple[Any, GPUTarget, Any]:
    target = GPUTarget("cuda", capability, 32)
    backend = make_backend(target)
    return backend, target, create_function_from_signature(kernel.signature, kernel.params, backend)


def specialized(launch: Launch, capability: int) -> tuple[ASTSource, GPUTarget, dict[str, Any]]:
    """The source, specialized to the launch's arguments, that Triton would compile for such a GPU."""
    backend, target, bind = _binder(launch.kernel, capability)
    named = launch.arguments | {"debug": False}
    bound, specialization, options = bind(**named)
    options, signature, constants, attributes = launch.kernel._pack_args(
        backend, named, bound, specialization, options
    )
    return ASTSource(launch.kernel, signature, constants, attributes), target, options.__dict__


_compiled: dict[str, MachineCode] = {}


def machine_code(launch: Launch, capability: int) -> MachineCode:
    source, target, options = specialized(launch, capability)
    key = f"{source.hash()} {capability} {sorted(options.items(), key=str)}"
    if key not in _compiled:
        compiled = triton.compile(source, target=target, options=options)
        binary = compiled.asm["cubin"]
        _compiled[key] = MachineCode(
            dumped(binary, "-res-usage"), compiled.asm["ptx"], compiled.asm["ttir"], binary
        )
    return _compiled[key]


def instructions(launch: Launch, code: MachineCode, unknown: tuple[int, ...] = ()) -> float:
    """Instructions that all threads execute; `unknown` are the passes of loops with bounds from memory."""
    passes = _passes(launch, code, unknown)
    return 32 * launch.arguments.get("num_warps", 4) * launch.programs * code.executed(passes)


def bytes_moved(launch: Launch, code: MachineCode) -> int:
    """The bytes of each tensor that is loaded from plus those of each that is stored to; atomics do both.

    A gradient that is scaled in place is not moved: for the loss itself the factor is 1, and the kernel skips
    the scaling.
    """
    if launch.arguments.get("IN_PLACE"):
        return 0
    tensors = [launch.arguments[name] for name in _touched(code.source)]
    return sum(tensor.elements * tensor.dtype.itemsize for tensor in tensors)


def _touched(source: str) -> list[str]:
    """The arguments that the kernel loads from and those that it stores to, each once."""
    roots = {name: name for name in re.findall(r"%(\w+): !tt\.ptr", source)}
    touched = set()
    for line in source.splitlines():
        carried = re.search(r"iter_args\((.*?)\) ->", line)
        for inner, outer in re.findall(r"%(\w+) = %(\w+)", carried[1] if carried else ""):
            if outer in roots:
                roots[inner] = roots[outer]
        match = re.match(r"\s+(?:%(\w+) = )?\"?((?:tt|arith)\.[\w.]+)\"?[^%]*%(\w+)", line)
        if not match:
            continue
        result, operation, operand = match.groups()
        if operand not in roots:
            continue
        if operation in ("tt.load", "tt.store", "tt.atomic_rmw"):
            kinds = ("load", "store") if operation == "tt.atomic_rmw" else (operation[3:],)
            touched |= {(kind, roots[operand]) for kind in kinds}
        elif result:
            roots[result] = roots[operand]
    return [name for _, name in sorted(touched)]


ARITHMETIC = {
    "addi": lambda a, b: a + b, "subi": lambda a, b: a - b, "muli": lambda a, b: a * b, "minsi": min,
    "divsi": lambda a, b: a // b, "remsi": lambda a, b: a % b,
}  # fmt: skip


def _passes(launch: Launch, code: MachineCode, unknown: tuple[int, ...]) -> list[int]:
    """The passes of the launch's first program through each loop of the source, in order."""
    remaining = iter(unknown)
    numbers = {name: value for name, value in launch.arguments.items() if isinstance(value, int)}
    passes = []
    for line in code.source.splitlines():
        if match := re.search(r"%(\w+) = arith\.constant (-?\d+) : i(?:32|64)", line):
            numbers[match[1]] = int(match[2])
        elif match := re.search(r"%(\w+) = tt\.get_program_id", line):
            numbers[match[1]] = 0
        elif match := re.search(r"%(\w+) = arith\.(?:ext|trunc)s?i %(\w+) ", line):
            if match[2] in numbers:
                numbers[match[1]] = numbers[match[2]]
        elif match := re.search(r"%(\w+) = arith\.(\w+) %(\w+), %(\w+) : i(?:32|64)", line):
            result, operation, *operands = match.groups()
            if operation in ARITHMETIC and numbers.keys() >= set(operands):
                numbers[result] = ARITHMETIC[operation](*(numbers[name] for name in operands))
        elif match := re.search(r"scf\.for %\w+ = %(\w+) to %(\w+) step %(\w+)", line):
            if numbers.keys() >= set(match.groups()):
                begin, end, step = (numbers[name] for name in match.groups())
                passes.append(-(-(end - begin) // step))
            else:
                passes.append(next(remaining))
    assert not list(remaining)
    return passes
