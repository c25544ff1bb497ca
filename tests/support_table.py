"""Checks of what every op and loss supports.

`CHECKS` lists the uses. Each check applies one use to a case, compares the results with plain eager calls or
with the reference in float64, and returns "works", "refused by name" (an error that names the op or says what
to do instead) or "not applicable"; anything else raises.
`tests/test_support.py` runs them all; `python -m tests.support_table` prints docs/support.md, with names of
ops as arguments only their rows anew.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch.autograd import forward_ad
from torch.testing import assert_close

from fastgan import ops
from tests.op_names import chosen_names
from tests.support_cases import CASES, Case, Size

WORKS, REFUSED, NOT_APPLICABLE = "works", "refused by name", "not applicable"
# Shapes of 1 are always compiled separately.
SIZES: tuple[Size, ...] = (
    (2, 33, 35), (3, 35, 34), (4, 34, 33), (5, 36, 39), (2, 39, 41), (3, 41, 37), (6, 37, 33), (4, 33, 47),
    (7, 35, 36), (2, 47, 45), (3, 45, 43), (1, 43, 35), (5, 33, 51), (2, 51, 49), (4, 49, 38), (3, 38, 40),
    (6, 40, 42), (2, 42, 53), (3, 53, 33), (9, 34, 35),
)  # fmt: skip
SMALL = (2, 32, 31)


# --- what the checks have in common ---------------------------------------------------------------------


def weighed(output: Tensor) -> Tensor:
    """A scalar to which every element of the output contributes with a different weight."""
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype, device=output.device)
    return (output * weights.view_as(output)).sum()


def assert_near(actual: Any, expected: Any) -> None:
    """As `assert_close`, with a tolerance for the size, because the order of summation may differ."""
    if isinstance(expected, (list, tuple)):
        for one, other in zip(actual, expected, strict=True):
            assert_near(one, other)
    else:
        assert_close(actual, expected, rtol=1e-5, atol=1e-6 * float(expected.detach().abs().max()) + 1e-7)


def gradients(function: Callable[..., Tensor], tensors: list[Tensor], which: tuple[int, ...]) -> list[Tensor]:
    return list(torch.autograd.grad(weighed(function(*tensors)), [tensors[i] for i in which]))


def refusal(error: Exception) -> str:
    """REFUSED for an error that says what to do instead; raises any other error."""
    if isinstance(error, RuntimeError) and "backend='reference'" in str(error):
        return REFUSED
    raise error


# --- the checks -----------------------------------------------------------------------------------------


def check_compile(case: Case) -> str:
    """`torch.compile(fullgraph=True)`: values, gradients, and `torch.func.grad` inside."""
    torch._dynamo.reset()
    function, tensors = case.function(), case.tensors(SIZES[0], grad=True)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_near(compiled(*tensors), function(*tensors))
    if case.differentiated:
        expected = gradients(function, tensors, case.differentiated)
        assert_near(gradients(compiled, tensors, case.differentiated), expected)
        by_transform = torch.func.grad(lambda *tensors: weighed(function(*tensors)), case.differentiated)
        compiled = torch.compile(by_transform, fullgraph=True, backend="aot_eager")
        assert_near(list(compiled(*case.tensors(SIZES[0]))), expected)
    return WORKS


def check_dynamic(case: Case) -> str:
    """`torch.compile(dynamic=True, fullgraph=True)`: 20 sizes in two graphs, one for sizes of 1, which
    torch always compiles apart; with gradients and without.
    """
    function = case.function()
    for grad in (False, True) if case.differentiated else (False,):
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
        for size in SIZES:
            tensors = case.tensors(size, grad=grad)
            actual, expected = compiled(*tensors), function(*tensors)
            assert_near(actual, expected)
            if grad:
                leaves = [tensors[i] for i in case.differentiated]
                assert_near(*(torch.autograd.grad(weighed(output), leaves) for output in (actual, expected)))
        graphs = len(_debug_get_cache_entry_list(function.__code__))
        assert 1 <= graphs <= 2, f"{graphs} graphs for {len(SIZES)} sizes, grad={grad}"
    return WORKS


class _Exported(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.made, self.call = case.make(), case.call

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.call(self.made, *tensors)


def check_export(case: Case) -> str:
    """`torch.export` with dynamic shapes, saved, loaded and run at other sizes: values and gradients."""
    tensors, function = case.tensors(SIZES[0], grad=True), case.function()
    shapes = tuple(
        dict.fromkeys(range(tensor.dim()), torch.export.Dim.AUTO) if tensor.dim() else None
        for tensor in tensors
    )
    exported = torch.export.export(_Exported(case), tuple(tensors), dynamic_shapes=(shapes,))
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    for size in SIZES[1:4]:
        tensors = case.tensors(size, grad=True)
        assert_near(loaded(*tensors), function(*tensors))
        if case.differentiated:
            actual = gradients(loaded, tensors, case.differentiated)
            assert_near(actual, gradients(function, tensors, case.differentiated))
    return WORKS


def check_grad(case: Case) -> str:
    """`torch.func.grad`, of one tensor with the others fixed and of all of them."""
    if not case.differentiated:
        return NOT_APPLICABLE
    expected = gradients(case.function(), case.tensors(SMALL, grad=True), case.differentiated)
    tensors = case.tensors(SMALL)
    function = case.function()
    loss = lambda *tensors: weighed(function(*tensors))  # noqa: E731
    assert_near(list(torch.func.grad(loss, argnums=case.differentiated)(*tensors)), expected)
    for number, index in enumerate(case.differentiated):
        assert_near(torch.func.grad(loss, argnums=index)(*tensors), expected[number])
    # With a constant as the op's input.
    constant = torch.func.grad(lambda t: loss(*tensors) + t.sum())(torch.ones(2))
    assert_near(constant, torch.ones(2))
    return WORKS


def check_vjp(case: Case) -> str:
    """`torch.func.vjp` and `jacrev`, and `autograd` with batches of gradients."""
    if not case.differentiated:
        return NOT_APPLICABLE
    function, tensors = case.function(), case.tensors(SMALL)
    expected = gradients(function, case.tensors(SMALL, grad=True), case.differentiated)

    def call_with(*chosen: Tensor) -> Tensor:
        replaced = dict(zip(case.differentiated, chosen, strict=True))
        return function(*(replaced.get(i, tensor) for i, tensor in enumerate(tensors)))

    chosen = [tensors[i] for i in case.differentiated]
    output, pull_back = torch.func.vjp(call_with, *chosen)
    weights = torch.linspace(0.5, 1.5, output.numel()).view_as(output)
    assert_near(list(pull_back(weights)), expected)
    several = torch.stack([weights, 2 * weights, 0 * weights])
    for actual, required in zip(torch.vmap(pull_back)(several), expected, strict=True):
        assert_near(actual, torch.stack([required, 2 * required, 0 * required]))
    leaves = [tensor.clone().requires_grad_() for tensor in chosen]
    output = call_with(*leaves)
    for keep in (True, False):
        batches = torch.autograd.grad(output, leaves, several, is_grads_batched=True, retain_graph=keep)
        for actual, required in zip(batches, expected, strict=True):
            assert_near(actual, torch.stack([required, 2 * required, 0 * required]))
    if output.numel() <= 4:
        rows = torch.func.jacrev(call_with, argnums=tuple(range(len(chosen))))(*chosen)
        for vectorize in (True, False):
            jacobian = torch.autograd.functional.jacobian
            assert_near(jacobian(call_with, tuple(chosen), vectorize=vectorize), rows)
    return WORKS


def several(case: Case, size: Size, count: int) -> list[Tensor]:
    """The stacked inputs of several slightly different calls."""
    factors = [1 - number / 16 for number in range(count)]
    return [
        torch.stack([tensor * factor if tensor.is_floating_point() else tensor for factor in factors])
        for tensor in case.tensors(size)
    ]


def one_call(tensors: list[Tensor], dims: tuple[int | None, ...], number: int) -> list[Tensor]:
    return [t if dim is None else t.select(dim, number) for t, dim in zip(tensors, dims, strict=True)]


def check_vmap(case: Case) -> str:
    """`torch.vmap`, alone, nested, and around and inside of gradients."""
    count, function = 3, case.function()
    batch = several(case, SMALL, count)
    first_alone: list[Tensor] = [batch[0], *(t[1] for t in batch[1:])]
    first_last = [batch[0].movedim(0, -1), *batch[1:]]
    none = (None,) * (len(batch) - 1)
    arrangements: list[tuple[list[Tensor], tuple[int | None, ...]]] = [
        (batch, (0,) * len(batch)), (first_alone, (0, *none)), (first_last, (-1, *(0,) * len(none))),
    ]  # fmt: skip
    for alone in range(1, len(batch)):
        dims = tuple(0 if i == alone else None for i in range(len(batch)))
        arrangements.append(([t[1] if dim is None else t for t, dim in zip(batch, dims, strict=True)], dims))
    for tensors, dims in arrangements:
        calls = [one_call(tensors, dims, number) for number in range(count)]
        actual = torch.vmap(function, dims, randomness="different")(*tensors)
        assert_near(actual, torch.stack([function(*call) for call in calls]))
        if not case.differentiated:
            continue
        which = case.differentiated
        loss = lambda *tensors: weighed(function(*tensors))  # noqa: E731
        expected = []
        for call in calls:
            leaves = [t.clone().requires_grad_(i in which) for i, t in enumerate(call)]
            expected.append(gradients(function, leaves, which))
        inside = torch.vmap(torch.func.grad(loss, argnums=which), dims, randomness="different")(*tensors)
        for number, gradient in enumerate(inside):
            assert_near(gradient, torch.stack([of_call[number] for of_call in expected]))
        total = lambda *tensors: torch.vmap(loss, dims, randomness="different")(*tensors).sum()  # noqa: B023, E731
        leaves = [t.clone().requires_grad_(i in which) for i, t in enumerate(tensors)]
        around = torch.autograd.grad(total(*leaves), [leaves[i] for i in which])
        outside = torch.func.grad(total, argnums=which)(*tensors)
        for number, index in enumerate(which):
            gradients_by_call = [of_call[number] for of_call in expected]
            required = (
                sum(gradients_by_call) if dims[index] is None else torch.stack(gradients_by_call, dims[index])
            )
            assert_near(around[number], required)
            assert_near(outside[number], required)
    nested = [torch.stack([t, t.flip(0)]) for t in batch]
    actual = torch.vmap(torch.vmap(function, randomness="different"), randomness="different")(*nested)
    for row, tensors in zip(actual, zip(*nested, strict=True), strict=True):
        calls = [one_call(list(tensors), (0,) * len(batch), number) for number in range(count)]
        assert_near(row, torch.stack([function(*call) for call in calls]))
    return WORKS


def check_jvp(case: Case) -> str:
    """Forward mode: `torch.func.jvp`, `jacfwd`, `forward_ad`, also over gradients; the reference has it."""
    if not case.differentiated:
        return NOT_APPLICABLE
    function, tensors = case.function(), case.tensors(SMALL)
    index = case.differentiated[0]
    x = tensors[index]

    def call_first(x: Tensor) -> Tensor:
        return function(*tensors[:index], x, *tensors[index + 1 :])

    def dual() -> Tensor:
        with forward_ad.dual_level():
            output = call_first(forward_ad.make_dual(x, torch.ones_like(x)))
            return forward_ad.unpack_dual(output).tangent

    scalar = lambda x: weighed(call_first(x))  # noqa: E731
    moved = lambda shift: scalar(x + shift.sum())  # noqa: E731
    ones, shift = (torch.ones_like(x),), torch.zeros(2)
    vmapped = torch.vmap(scalar, randomness="different")
    first = [
        lambda: weighed(torch.func.jvp(call_first, (x,), ones)[1]),
        lambda: weighed(dual()),
        lambda: torch.func.jacfwd(moved, randomness="different")(shift)[0],
        lambda: torch.vmap(lambda t: torch.func.jvp(scalar, (x,), (t,))[1], randomness="different")(
            torch.stack(ones)
        )[0],
        lambda: torch.func.jvp(vmapped, (x[None],), (ones[0][None],))[1][0],
    ]
    second = [
        lambda: torch.func.jacfwd(torch.func.jacrev(moved), randomness="different")(shift)[0, 1],
        lambda: torch.func.jvp(torch.func.grad(moved), (shift,), (torch.tensor([1.0, 0.0]),))[1][1],
    ]
    with ops.use("reference"):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(scalar(leaf), leaf, create_graph=True)
        curvature = None
        if gradient.requires_grad:
            (curvature,) = torch.autograd.grad(gradient.sum(), leaf, allow_unused=True)
        curvature = torch.zeros(()) if curvature is None else curvature.sum()
        cases = [(derive, gradient.detach().sum()) for derive in first] + [
            (derive, curvature) for derive in second
        ]
        for derive, expected in cases:
            try:
                derivative = derive()
            except NotImplementedError as error:
                # One of PyTorch's own operations has no forward mode.
                assert "Trying to use forward AD with" in str(error)
            else:
                assert_close(derivative.to(expected.dtype), expected, rtol=1e-3, atol=1e-3)
    statuses = set()
    for derive, expected in cases:
        try:
            derivative = derive()
        except Exception as error:
            statuses.add(refusal(error))
        else:
            assert_close(derivative.to(expected.dtype), expected, rtol=1e-3, atol=1e-3)
            statuses.add(WORKS)
    return REFUSED if REFUSED in statuses else WORKS


def check_double_backward(case: Case) -> str:
    """Gradients of gradients, by `create_graph=True` and by `grad` of `grad`, against the reference."""
    if not case.differentiated:
        return NOT_APPLICABLE
    which = case.differentiated

    def loss(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> Tensor:
        # Squared: otherwise the second derivative of linear ops would be zero in any implementation.
        return weighed(function(*tensors).square())

    def penalty(function: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
        chosen = [tensors[i] for i in which]
        first = torch.autograd.grad(loss(function, tensors), chosen, create_graph=True)
        total = sum((weighed(gradient) for gradient in first), start=torch.zeros((), dtype=first[0].dtype))
        second = torch.autograd.grad(total, chosen, allow_unused=True) if total.requires_grad else [None] * 9
        return [torch.zeros_like(t) if of is None else of for t, of in zip(chosen, second, strict=False)]

    def penalty_by_transforms(function: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
        scalar_of = lambda *tensors: loss(function, tensors)  # noqa: E731
        first = torch.func.grad(scalar_of, argnums=which)
        total = lambda *tensors: sum(map(weighed, first(*tensors)))  # noqa: E731
        return list(torch.func.grad(total, argnums=which)(*tensors))

    with ops.use("reference"):
        expected = penalty(case.function(torch.float64), case.tensors(SMALL, torch.float64, grad=True))
    statuses = set()
    for way, grad in ((penalty, True), (penalty_by_transforms, False)):
        try:
            actual = way(case.function(), case.tensors(SMALL, grad=grad))
        except Exception as error:
            statuses.add(refusal(error))
            continue
        for ours, theirs in zip(actual, expected, strict=True):
            atol = case.second_order_error * float(theirs.abs().max()) + 1e-7
            assert_close(ours.double(), theirs, rtol=1e-3, atol=atol)
        statuses.add(WORKS)
    return REFUSED if REFUSED in statuses else WORKS


def check_autocast(case: Case) -> str:
    """Under `torch.autocast` in bfloat16: near float32, and losses are float32."""
    function, tensors = case.function(), case.tensors(SMALL)
    expected = function(*tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = function(*tensors)
    assert actual.dtype == torch.float32 or case.name == "conv2d", actual.dtype
    assert_close(actual.float(), expected, rtol=0.05, atol=0.02)
    return WORKS


def check_half(case: Case) -> str:
    """Inputs (and a module's weights) in float16 and bfloat16: near float32, gradients in their own type."""
    expected = case.function()(*case.tensors(SMALL))
    for dtype in (torch.float16, torch.bfloat16):
        function, tensors = case.function(dtype), case.tensors(SMALL, dtype, grad=True)
        actual = function(*tensors)
        assert actual.dtype in (torch.float32, dtype)
        assert actual.dtype == torch.float32 or actual.dim() > 1, "a loss in half precision"
        if "jpeg" in case.name.lower():  # single coefficients may be rounded differently
            assert (actual.float() - expected).abs().mean() <= 0.02
        else:
            assert_close(actual.float(), expected, rtol=0.05, atol=0.05)
        if case.differentiated:
            for gradient in gradients(function, tensors, case.differentiated):
                assert gradient.dtype == dtype and gradient.isfinite().all()
    return WORKS


def check_meta(case: Case) -> str:
    """On the meta device: shapes and types, by the reference."""
    instance = case.make()
    if isinstance(instance, nn.Module):
        instance = instance.to("meta")
    expected = case.function()(*case.tensors(SMALL))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*runs its PyTorch reference", category=RuntimeWarning)
        actual = case.call(instance, *(tensor.to("meta") for tensor in case.tensors(SMALL)))
    assert (actual.device.type, actual.shape, actual.dtype) == ("meta", expected.shape, expected.dtype)
    return WORKS


def _is_function(made: Any) -> bool:
    return type(made).__name__ == "function"


def check_deepcopy(case: Case) -> str:
    """`copy.deepcopy` of the object: the same values."""
    instance = case.make()
    if _is_function(instance):
        return NOT_APPLICABLE
    tensors = case.tensors(SMALL)
    assert_close(case.call(copy.deepcopy(instance), *tensors), case.call(instance, *tensors))
    return WORKS


def check_save(case: Case) -> str:
    """`torch.save` and `torch.load` of the whole object: the same values."""
    instance = case.make()
    if _is_function(instance):
        return NOT_APPLICABLE
    buffer = io.BytesIO()
    torch.save(instance, buffer)
    buffer.seek(0)
    tensors = case.tensors(SMALL)
    loaded = torch.load(buffer, weights_only=False)
    assert_close(case.call(loaded, *tensors), case.call(instance, *tensors))
    return WORKS


def find_out(case: Case, use: str) -> str:
    """The result of this use's check for the case."""
    return NOT_APPLICABLE if use in case.leaves_out else CHECKS[use](case)


CHECKS: dict[str, Callable[[Case], str]] = {
    "compile": check_compile,
    "dynamic": check_dynamic,
    "export": check_export,
    "grad": check_grad,
    "vjp": check_vjp,
    "vmap": check_vmap,
    "jvp": check_jvp,
    "double backward": check_double_backward,
    "autocast": check_autocast,
    "half": check_half,
    "meta": check_meta,
    "deepcopy": check_deepcopy,
    "torch.save": check_save,
}


# --- the table ------------------------------------------------------------------------------------------

HEAD = """# What works with what

Each cell is a test (`tests/test_support.py`), and this page is what the tests find: `make support` writes it.
"refused": an error names the op and says what to do instead, mostly `backend="reference"`. "n/a": does not
apply, as copies to functions, transforms to `R1`, whose term is for `backward()` (its function is
`r1_penalty_of`), and `torch.export` and half-precision weights to penalties, which run a discriminator in
float32 within a training step.

"""
PAGE = Path(__file__).parents[1] / "docs" / "support.md"
SIGNS = {WORKS: "yes", REFUSED: "refused", NOT_APPLICABLE: "n/a"}


def rendered(status: Callable[[Case, str], str]) -> str:
    """The page, with the result of `status` for each case and use."""
    rows = [["", *CHECKS], ["---"] * (len(CHECKS) + 1)]
    rows += [[case.name, *(SIGNS[status(case, use)] for use in CHECKS)] for case in CASES]
    uses = [f"* {use}: {' '.join((check.__doc__ or '').split())}" for use, check in CHECKS.items()]
    return HEAD + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n\n" + "\n".join(uses) + "\n"


def committed() -> dict[tuple[str, str], str]:
    """The page's results, by case and use."""
    status = {sign: status for status, sign in SIGNS.items()}
    rows = [row.strip("|\n").split("|") for row in PAGE.read_text().splitlines() if row.startswith("|")]
    head, _, *body = ([cell.strip() for cell in row] for row in rows)
    return {
        (name, use): status[cell] for name, *cells in body for use, cell in zip(head[1:], cells, strict=True)
    }


def _names_of(case: Case) -> set[str]:
    return {name.strip() for name in case.name.split(",")}


def main(arguments: Sequence[str] | None = None) -> None:
    names = chosen_names("docs/support.md", (n for case in CASES for n in sorted(_names_of(case))), arguments)
    if not names:
        print(rendered(find_out), end="")
        return
    kept = committed()

    def status(case: Case, use: str) -> str:
        if not names.isdisjoint(_names_of(case)):
            return find_out(case, use)
        if (case.name, use) not in kept:
            raise SystemExit(f"docs/support.md does not have {use!r} of {case.name!r}: write all rows anew")
        return kept[case.name, use]

    print(rendered(status), end="")


if __name__ == "__main__":
    main()
