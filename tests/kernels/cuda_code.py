"""The machine code of `_C_cuda`, where nvcc has built it for sm_90."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import fastgan
from tests.kernels.machine_code import CUOBJDUMP, FP64, MachineCode

FUNCTION = re.compile(r"^\s+Function : (\S+)$|^ Function (\S+):$", re.MULTILINE)
# Kernels for bfloat16 or float16 images are the same code with other loads and stores.
OTHERS = re.compile(r"Float16|write_architecture")


def library() -> Path | None:
    return next(iter(Path(fastgan.__file__).parent.glob("_C_cuda*.so")), None)


@cache
def is_built() -> bool:
    path = library()
    return path is not None and ".sm_90." in _cuobjdump("-lelf", str(path))


def _cuobjdump(*arguments: str) -> str:
    return subprocess.run([CUOBJDUMP, *arguments], capture_output=True, text=True, check=True).stdout


@cache
def kernels() -> dict[str, MachineCode]:
    """The kernels by their C++ names without namespaces."""
    parts: dict[str, str] = {}
    for option in ("-res-usage", "-sass"):
        pieces = FUNCTION.split(_cuobjdump(option, "-arch", "sm_90", str(library())))
        for code_name, usage_name, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            name = code_name or usage_name
            parts[name] = parts.get(name, "") + text
    names = subprocess.run(["c++filt"], input="\n".join(parts), capture_output=True, text=True, check=True)
    return {
        short_name(name): MachineCode(text)
        for name, text in zip(names.stdout.splitlines(), parts.values(), strict=True)
        if not OTHERS.search(name)
    }


def short_name(name: str) -> str:
    """A demangled name shortened to the form `step_kernel<Job<32, true>>`."""
    name = re.sub(r"\((anonymous namespace|fastgan::Rounding)\)", "", name).removeprefix("void ")
    name = re.sub(r"fastgan::|::|blocks|tile", "", name)
    return re.sub(r"\(.*", "", name).replace("> >", ">>").replace("unsigned ", "u")


def rows(widths: Callable[[list[int]], str]) -> list[tuple[str, ...]]:
    return [
        (
            name, str(code.registers), str(code.spills), str(len(code.instructions)),
            widths(_accesses(code, "LDG")), widths(_accesses(code, "STG")),
            str(sum(bool(FP64.match(i.name)) for i in code.instructions)), str(code.calls),
        )
        for name, code in sorted(kernels().items())
    ]  # fmt: skip


def _accesses(code: MachineCode, kind: str) -> list[int]:
    """The widths of all accesses of a kind in the code."""
    return MachineCode.widths(i for i in code.instructions if i.name.startswith(kind))
