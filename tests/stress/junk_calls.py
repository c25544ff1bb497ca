"""Junk in place of one or two arguments of every public callable: it works, or the error says what is wrong.

The requirements on errors are strict:

* a TypeError or ValueError, or one that the callable's documentation promises;
* raised by a `raise` in fastgan: errors from torch, or of Python about a line of fastgan, do not refer to the
  argument;
* with the argument's name as a word, and after "got" its value: its repr, or that of the wrong item; or type,
  shape, dtype, layout or device.

If the junk has the right type, but two arguments do not fit together, the other one may be named.
Discriminators and functions are the caller's: their exceptions pass through, and if they return something
wrong, the error shows it.
"""

from __future__ import annotations

import contextlib
import dis
import re
import resource
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fastgan
from tests import catalogue
from tests.catalogue import ENTRIES, Entry
from tests.stress.junk_values import junk

FASTGAN = Path(fastgan.__file__).parent
CATALOGUE = Path(catalogue.__file__).parent
# Arguments that are functions of the caller's.
FUNCTIONS = ("discriminator", "netD", "output", "closure")
SECONDS = 30.0  # more than any call on small tensors takes, even with torch.compile
BYTES = 2**31  # more than any call on small tensors needs


def run(calls: int, seed: int, names: list[str] | None = None) -> dict[str, Any]:
    """Makes that many calls of random entries; by default, of the whole catalogue.

    Returns:
        calls, accepted (the junk was valid), refused (by name), and faults: for each a line with the call and
        what happened.
    """
    names = list(ENTRIES) if names is None else names
    accepted, faults = 0, []
    with warnings.catch_warnings(), _limited_memory():
        warnings.simplefilter("ignore")
        for number in range(calls):
            works, fault = call(names, f"{seed}.{number}")
            accepted += works
            if fault is not None:
                faults.append(fault)
    return {
        "calls": calls, "accepted": accepted, "refused": calls - accepted - len(faults), "faults": faults
    }  # fmt: skip


def call(names: list[str], seed: str) -> tuple[bool, str | None]:
    """Makes one call; returns whether it worked, and its fault, if any."""
    random = Random(seed)
    torch.manual_seed(random.randrange(2**31))
    entry = ENTRIES[random.choice(names)]
    arguments = entry.arguments()
    if not arguments:
        return True, None
    valid, labels = dict(arguments), {}
    for name in random.sample(list(arguments), min(len(arguments), 1 + (random.random() < 0.15))):
        labels[name], arguments[name] = junk(random, arguments[name])
    begin = time.perf_counter()
    try:
        entry.run(**arguments)
        works, wrong = True, None
    except Exception as error:
        works, wrong = False, _fault(error, entry, arguments, valid, set(labels))
    if wrong is None and time.perf_counter() - begin > SECONDS:
        wrong = f"took {time.perf_counter() - begin:.0f} s"
    if wrong is None:
        return works, None
    junk_of = ", ".join(f"{name}=<{label}>" for name, label in labels.items())
    return False, f"{entry.name}({junk_of}), seed {seed}: {wrong}"


def _fault(
    error: Exception, entry: Entry, arguments: dict[str, Any], valid: dict[str, Any], replaced: set[str]
) -> str | None:
    """The problem with an error; None if there is none."""
    assert error.__traceback__ is not None
    shown = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    files = [Path(frame.f_code.co_filename) for frame in frames]
    ours = [FASTGAN in file.parents for file in files]
    if True in ours and any(CATALOGUE in file.parents for file in files[ours.index(True) :]):
        return None  # the discriminator's
    functions = {name for name in replaced if name in FUNCTIONS and callable(arguments[name])}
    is_ours = ours[-1] and _is_raised(error.__traceback__)
    if functions and not is_ours:
        return None
    if not isinstance(error, (TypeError, ValueError, *entry.raises)):
        return f"raises {shown}"
    if not is_ours:
        return f"passes on {shown}, from {files[-1].name}:{frames[-1].f_lineno}"
    may_be_named = set(replaced)
    if any(_same_kind(arguments[name], valid[name]) for name in replaced):
        may_be_named |= arguments.keys()
    names_function = any(re.search(rf"\b{name}\b", str(error)) for name in functions)
    if not (names_function or any(_says(str(error), name, arguments[name]) for name in may_be_named)):
        return f"does not name argument and value: {shown}"
    return None


def _is_raised(trace: TracebackType) -> bool:
    """Whether the innermost frame executes a `raise` statement, not a failing expression."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _same_kind(value: Any, valid: Any) -> bool:
    number = (int, float, np.number)
    return any(isinstance(value, kind) and isinstance(valid, kind) for kind in (Tensor, number, type(valid)))


def _says(message: str, name: str, value: Any) -> bool:
    if not re.search(rf"\b{re.escape(name)}\b", message):
        return False
    end = message.partition("got ")[2] or message
    return any(re.search(rf"(?<![\w.]){re.escape(text)}(?![\w])", end) for text in _renderings(value) if text)


def _renderings(value: Any) -> list[str]:
    """Texts of which any counts as showing the value."""
    if isinstance(value, Tensor):
        shape = [] if value.is_nested else [str(tuple(value.shape)), " x ".join(map(str, value.shape[-2:]))]
        grad = ["requires grad"] if value.requires_grad else []
        nested = ["nested"] if value.is_nested else []
        few = type(value) is Tensor and not value.is_nested and value.numel() <= 100
        has_numbers = few and value.layout is torch.strided and not (value.is_meta or value.is_quantized)
        items = [str(number) for number in value.flatten().tolist()] if has_numbers else []
        kinds = [str(value.dtype), str(value.layout), str(value.device), "Tensor"]
        return [*shape, *grad, *nested, *items, *kinds]
    if isinstance(value, np.ndarray):
        return [str(value.shape), "ndarray"] if value.ndim else [str(value), "ndarray"]
    number = [str(float(value))] if isinstance(value, int) and abs(value) < 2**1000 else []
    items = [repr(item) for item in value] if isinstance(value, (list, tuple)) else []
    if isinstance(value, (list, tuple)):
        items += [text for item in value if isinstance(item, Tensor) for text in _renderings(item)]
    items += [repr(item) for item in value.values()] if isinstance(value, dict) else []
    return [repr(value), str(value), *number, *items, type(value).__name__]


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    """Limits memory, so that huge allocations fail instead of exhausting the machine's."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
