"""Whether an original and its equal give the same values, gradients and random draws for small inputs."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fastgan.patching._declare import Probe

# Of sums in another order, in float32.
RELATIVE, ABSOLUTE = 1e-4, 1e-5


def disagreement(probe: Probe, original: object, ours: object) -> str | None:
    """How the results differ, or None. Neither random generators nor modes are changed."""
    with _undisturbed():
        try:
            expected = _results(probe, original)
        except Exception as error:
            return f"it cannot be compared: {first_line(error)}"
        try:
            found = _results(probe, ours)
        except Exception as error:
            return f"ours fails where it does not: {first_line(error)}"
        if [x.shape for x in expected] != [x.shape for x in found]:
            return "it gives results of other shapes"
        *results, draws = (
            torch.allclose(ours.double(), theirs.double(), RELATIVE, ABSOLUTE, equal_nan=True)
            for theirs, ours in zip(expected, found, strict=True)
        )
    if not all(results):
        number = results.index(False)
        return f"it gives other values: {_shown(expected[number])}, ours {_shown(found[number])}"
    return None if draws else "it draws other random numbers"


def _results(probe: Probe, function: object) -> list[Tensor]:
    """Those of the probe, and the numbers that are drawn after it."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs, too
    random.seed(0)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(0)
    results = [result.detach().clone() for result in probe(function)]
    drawn = [torch.rand(4), torch.tensor([random.random()])]
    if numpy is not None:
        drawn.append(torch.tensor([numpy.random.random()]))
    return [*results, torch.cat(drawn)]


@contextmanager
def _undisturbed() -> Iterator[None]:
    dtype, state = torch.get_default_dtype(), random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = None if numpy is None else numpy.random.get_state()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
            torch.device("cpu"),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        torch.set_default_dtype(dtype)


def first_line(error: Exception) -> str:
    """Of an error, as a reason."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _shown(result: Tensor) -> str:
    numbers = [f"{number:.6g}" for number in result.flatten()[:3].tolist()]
    return ", ".join(numbers) + ("" if result.numel() <= 3 else ", ...")
