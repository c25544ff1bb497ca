"""Random valid calls of every public op: the kernel against the reference, values and gradients.

A NaN or infinite value of the kernel must equal the reference's in the same dtype. A finite one may differ
from the reference in float64 by

* a rounding or two of its dtype, and 2e-6 (1e-6 in float64) of the tensor's largest number, or of its terms
  if these cancel;
* four times the largest error of the reference itself in the same dtype;
* the change of the exact result when its inputs change by some ulps of float32, so that beside a jump (of a
  rounding surrogate, or of a clamp's slope) either side is correct.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.stress.cases import CASES, Call
from tests.stress.draws import Draws


class Disagreement(NamedTuple):
    """One tensor of one call; `check(seed)` makes the call again."""

    op: str
    seed: int
    what: str
    native: float
    reference: float
    exact: float
    options: str


def run(calls: int, seed: int) -> dict[str, Any]:
    """Makes that many calls, each with a seed of its own.

    Returns:
        calls, comparisons (of numbers), calls of each op, and disagreements as dictionaries.
    """
    all_disagreements: list[Disagreement] = []
    comparisons, ops = 0, Counter[str]()
    for number in range(calls):
        op, compared, disagreements = check(seed * 1_000_003 + number)
        all_disagreements += disagreements
        comparisons += compared
        ops[op] += 1
    return {
        "calls": calls,
        "comparisons": comparisons,
        "ops": dict(sorted(ops.items())),
        "disagreements": [disagreement._asdict() for disagreement in all_disagreements],
    }


def check(seed: int) -> tuple[str, int, list[Disagreement]]:
    """The op of this seed, the count of compared numbers, and the disagreements."""
    draws = Draws(seed)
    op = draws.one_of(*CASES)
    call = CASES[op](draws)
    orders = call.orders
    if orders == 2 and (draws.special or draws.dtype == torch.float16 or draws.random.random() < 0.5):
        # Second derivatives of what is not finite are made of zero times infinity, and of the order of terms;
        # of squares, they are more than float16 can hold.
        orders = 1
    kernel = _results(call, call.inputs, "native", orders, seed)
    same = _results(call, call.inputs, "reference", orders, seed)
    disagreements, exact, moved = [], {}, []
    for what, ours in kernel.items():
        if not _wrong(ours, same[what], call).numel():
            continue
        if not exact:  # seldom needed
            exact, *moved = (
                _results(call, _as_float64(call, moved_by=index), "reference", orders, seed)
                for index in range(9)
            )
            lost = ~same["output 0"].isfinite()
            overflows = bool((lost & (exact["output 0"].isfinite() | _is_huge(call.inputs))).any())
        wrong = _wrong(ours, same[what], call, exact[what], [others[what] for others in moved], overflows)
        if wrong.numel():
            at = int(wrong[0])
            numbers = (float(results[what].detach().flatten()[at]) for results in (kernel, same, exact))
            described = f"{call.options} {[(k, tuple(v.shape), v.dtype) for k, v in call.inputs.items()]}"
            disagreements.append(Disagreement(op, seed, f"{what}[{at}]", *numbers, described))
    return op, sum(ours.numel() for ours in kernel.values()), disagreements


def _results(
    call: Call, inputs: dict[str, Tensor], backend: str, orders: int, seed: int
) -> dict[str, Tensor]:
    """Outputs and gradients of a fixed weighting of them, by name."""
    outputs = call.run(inputs, backend)
    results = {f"output {index}": output for index, output in enumerate(outputs)}
    leaves = {name: tensor for name, tensor in inputs.items() if tensor.requires_grad}
    differentiable = [output for output in outputs if output.requires_grad]
    if orders == 0 or not leaves or not differentiable:
        return results
    generator = torch.Generator().manual_seed(seed)

    def weights(tensors):
        return [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in tensors]

    # Squares, so that second derivatives of linear ops do not vanish.
    if orders == 2:
        differentiable = [output.square() for output in differentiable]
    gradients = torch.autograd.grad(
        differentiable, list(leaves.values()), weights(differentiable), create_graph=orders == 2,
        allow_unused=True,
    )  # fmt: skip
    results |= _named("gradient", leaves, gradients)
    first_order = [gradient for gradient in gradients if gradient is not None and gradient.requires_grad]
    if orders == 2 and first_order:
        second = torch.autograd.grad(
            first_order, list(leaves.values()), weights(first_order), allow_unused=True
        )
        results |= _named("second gradient", leaves, second)
    return results


def _named(kind: str, inputs: dict[str, Tensor], gradients: tuple[Tensor | None, ...]) -> dict[str, Tensor]:
    pairs = zip(inputs.items(), gradients, strict=True)
    return {f"{kind} of {name}": torch.zeros_like(t) if g is None else g for (name, t), g in pairs}


def _as_float64(call: Call, moved_by: int) -> dict[str, Tensor]:
    """The inputs in float64; for a seed other than 0, changed by some ulps of float32 or float64."""
    generator = torch.Generator().manual_seed(moved_by)
    result = {}
    for name, tensor in call.inputs.items():
        wide = tensor.detach().double()
        if moved_by:
            ulps = 4 * torch.finfo(torch.float32 if tensor.dtype != torch.float64 else torch.float64).eps
            step = 16 * ulps * torch.where(wide.abs() < 1, 1, wide) if call.sums else ulps * wide
            wide = wide + step * (2 * torch.rand(wide.shape, generator=generator, dtype=wide.dtype) - 1)
        result[name] = wide.requires_grad_(tensor.requires_grad)
    return result


def _wrong(
    ours: Tensor,
    same: Tensor,
    call: Call,
    exact: Tensor | None = None,
    moved: Sequence[Tensor] = (),
    overflows: bool = False,
) -> Tensor:
    """The flat indices of numbers that agree with neither reference; `overflows`: whether an output does."""
    limits, ours_dtype = torch.finfo(ours.dtype), ours.dtype
    ours, same = ours.detach().double(), same.detach().double()
    share = 1e-6 if ours_dtype == torch.float64 else 2e-6

    def near(other: Tensor, further: Tensor | float = 0.0) -> Tensor:
        scale = max(_largest(other), call.magnitude)
        allowed = share * scale + 2 * limits.eps * other.abs() + _floor(ours_dtype)
        return ours.isfinite() & other.isfinite() & ((ours - other).abs() <= allowed + further)

    agree = (ours == same) | (ours.isnan() & same.isnan()) | near(same)
    if exact is not None:
        exact = exact.detach().double()
        spread = (
            torch.stack([(other.detach() - exact).abs() for other in moved]).amax(0).nan_to_num(torch.inf)
        )
        agree |= near(exact, 4 * _largest(same - exact) + 4 * spread)
        # Overflow in the sum or in a term: infinity, or NaN as the difference of two infinities.
        nearly = exact.abs() >= _near_overflow(ours_dtype, call)
        beyond = exact.isfinite() & (~same.isfinite() | nearly | overflows)
        agree |= ~ours.isfinite() & (beyond | (~same.isfinite() & _is_huge(call.inputs)))
    return (~agree).flatten().nonzero().flatten()


def _floor(dtype: torch.dtype) -> float:
    """A bound for subnormal numbers, which a kernel may flush to zero."""
    limits = torch.finfo(dtype)
    return max(4 * limits.smallest_normal * limits.eps, torch.finfo(torch.float32).smallest_normal)


def _near_overflow(dtype: torch.dtype, call: Call) -> float:
    """The magnitude from which intermediate terms may overflow."""
    return torch.finfo(dtype).max / (16 * call.kept if dtype == torch.float16 else 1e4)


def _largest(numbers: Tensor) -> float:
    """The largest magnitude of finite values; 0 if there are none."""
    finite = numbers[numbers.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0


def _is_huge(inputs: dict[str, Tensor]) -> bool:
    """Whether squares of a number may overflow."""
    return any(
        _largest(tensor.detach()) >= torch.finfo(tensor.dtype).max ** 0.5 / 2 for tensor in inputs.values()
    )
