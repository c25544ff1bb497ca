"""What a launch compiles to: registers, widths of memory accesses, instructions, as the GPU would run them.

Nothing here runs on a GPU. Instructions are counted on the path that a thread takes when nothing special
happens: forward branches that guard a call (the slow path of a division) are taken, others are not; the body
of a loop counts as often as the launch goes through it, over how many passes ptxas made one.
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
# Double precision, and conversions from and to it. Products of sizes, of which ptxas makes DMUL in no kernel,
# are not meant.
FP64 = re.compile(r"^(DADD|DMUL|DFMA|DSETP|DMNMX|MUFU\.\w+64H|F2F\.F64|F2F\.F32\.F64|I2F\.F64|F2I\.F64)")


@dataclass(frozen=True)
class Instruction:
    address: int
    predicate: str
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a branch goes."""
        found = re.search(r"(0x[0-9a-f]+)\s*$", self.operands)
        return int(found[1], 16) if self.name.startswith("BRA") and found else None


def disassembled(binary: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        return subprocess.run(
            [CUOBJDUMP, "-sass", "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout


@dataclass(frozen=True)
class MachineCode:
    text: str
    """cuobjdump's, of one kernel."""
    ptx: str = ""
    source: str = ""
    """Triton's own intermediate code, which still has the kernel's arguments and loops."""

    @cached_property
    def instructions(self) -> list[Instruction]:
        found = INSTRUCTION.findall(self.text)
        return [Instruction(int(at, 16), predicate, name, rest) for at, predicate, name, rest in found]

    @property
    def registers(self) -> int:
        return int(re.search(r"REG:(\d+)", self.text)[1])

    @property
    def spills(self) -> int:
        """Accesses to local memory, which registers go to where there are too few."""
        return sum(i.name.startswith(("LDL", "STL")) for i in self.instructions)

    def accesses(self, kind: str) -> list[int]:
        """The bits of each load (LDG) or store (STG) of a thread on its main path, in order."""
        return self.widths(i for i in self.path if i.name.startswith(kind))

    @staticmethod
    def widths(accesses: Iterable[Instruction]) -> list[int]:
        found = [re.search(r"\.(U8|S8|U16|S16|64|128)\b", access.name) for access in accesses]
        return [int(width[1].strip("US")) if width else 32 for width in found]

    @property
    def double_precision(self) -> int:
        """Instructions on the main path."""
        return sum(bool(FP64.match(i.name)) for i in self.path)

    @property
    def calls(self) -> int:
        """Of slow paths, of divisions mostly."""
        return sum(i.name.startswith("CALL") for i in self.instructions)

    @cached_property
    def path(self) -> list[Instruction]:
        """From the first instruction to the last, through each loop once."""
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
        """What lies between a branch back and its target, on the main path; inner loops among them."""
        ends = [i for i in self.path if i.target is not None and i.target < i.address]
        return [[i for i in self.path if end.target <= i.address <= end.address] for end in ends]

    @property
    def branches_back(self) -> list[Instruction]:
        return [i for i in self.instructions if i.target is not None and i.target < i.address]

    def executed(self, passes: list[int]) -> float:
        """Instructions of a thread of a launch that goes through the source's loops so often each time."""
        loops = sorted(self.loops, key=len, reverse=True)
        counted = sorted(loops[: len(passes)], key=lambda loop: (loop[0].address, -len(loop)))
        times = dict.fromkeys((i.address for i in self.path), 1.0)
        times |= dict.fromkeys((i.address for loop in loops[len(passes) :] for i in loop), 0.0)
        times |= dict.fromkeys((i.address for loop in counted for i in loop), 1.0)
        for loop, count in zip(counted, passes, strict=False):
            for i in loop:
                times[i.address] *= count / self._unrolled(loop)
        return sum(times[i.address] for i in self.path)

    def _unrolled(self, loop: list[Instruction]) -> int:
        """How many passes of the source ptxas made one of: by the loads in the loop, and in that of PTX."""
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
    """What Triton would compile for the launch on such a GPU: its source with what it is specialized to."""
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
        _compiled[key] = MachineCode(
            disassembled(compiled.asm["cubin"]), compiled.asm["ptx"], compiled.asm["ttir"]
        )
    return _compiled[key]


def instructions(launch: Launch, code: MachineCode, unknown: tuple[int, ...] = ()) -> float:
    """Of all threads; `unknown` is how often those loops run whose ends the device finds, in their order."""
    passes = _passes(launch, code, unknown)
    return 32 * launch.arguments.get("num_warps", 4) * launch.programs * code.executed(passes)


def bytes_moved(launch: Launch, code: MachineCode) -> int:
    """Of each tensor once that is loaded from, and once that is stored to; of an atomic both.

    A gradient that is scaled where it lies is not moved: for a loss itself the factor is 1, which the kernel
    sees.
    """
    if launch.arguments.get("IN_PLACE"):
        return 0
    tensors = [launch.arguments[name] for name in _touched(code.source)]
    return sum(tensor.elements * tensor.dtype.itemsize for tensor in tensors)


def _touched(source: str) -> list[str]:
    """The arguments that the kernel loads from or stores to, each once for either."""
    roots = {name: name for name in re.findall(r"%(\w+): !tt\.ptr", source)}
    touched = set()
    for line in source.splitlines():
        carried = re.search(r"iter_args\((.*?)\) ->", line)
        for inner, outer in re.findall(r"%(\w+) = %(\w+)", carried[1] if carried else ""):
            if outer in roots:
                roots[inner] = roots[outer]
        found = re.match(r"\s+(?:%(\w+) = )?\"?((?:tt|arith)\.[\w.]+)\"?[^%]*%(\w+)", line)
        if not found:
            continue
        result, operation, operand = found.groups()
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
    """How often the launch's first program goes through each loop of the source, in its order."""
    found_there = iter(unknown)
    numbers = {name: value for name, value in launch.arguments.items() if isinstance(value, int)}
    passes = []
    for line in code.source.splitlines():
        if found := re.search(r"%(\w+) = arith\.constant (-?\d+) : i(?:32|64)", line):
            numbers[found[1]] = int(found[2])
        elif found := re.search(r"%(\w+) = tt\.get_program_id", line):
            numbers[found[1]] = 0
        elif found := re.search(r"%(\w+) = arith\.(?:ext|trunc)s?i %(\w+) ", line):
            if found[2] in numbers:
                numbers[found[1]] = numbers[found[2]]
        elif found := re.search(r"%(\w+) = arith\.(\w+) %(\w+), %(\w+) : i(?:32|64)", line):
            result, operation, *operands = found.groups()
            if operation in ARITHMETIC and numbers.keys() >= set(operands):
                numbers[result] = ARITHMETIC[operation](*(numbers[name] for name in operands))
        elif found := re.search(r"scf\.for %\w+ = %(\w+) to %(\w+) step %(\w+)", line):
            if numbers.keys() >= set(found.groups()):
                begin, end, step = (numbers[name] for name in found.groups())
                passes.append(-(-(end - begin) // step))
            else:
                passes.append(next(found_there))
    assert not list(found_there)
    return passes
