"""One step for many tensors: the kernel against the float64 reference. Against torch.optim: tests/optim."""

from __future__ import annotations

import pytest
import torch

from fastgan.ops.optimizer_step import gradient_norm, optimizer_step
from fastgan.reference.optimizer_step import StepOptions
from tests.ops.layouts import DTYPES

SHAPES = [(), (1,), (7, 3), (2, 5, 3, 4), (40001,), (0, 3)]
CLIPS = {"grad_clip_value": 1.5, "grad_clip_norm": 3.0, "low": -0.8, "high": 1.0}
OPTIONS = {
    "rmsprop": StepOptions(0.01),
    "rmsprop, all": StepOptions(
        0.01, 0.1, 0.5, 0.9, 1e-4, maximize=True, eps_inside_sqrt=True, average_weight=0.25, **CLIPS
    ),
    "adam": StepOptions(0.01, 0.0, 0.9, 0.999),
    "adam, all": StepOptions(
        0.01, 0.1, 0.9, 0.999, 1e-4, decoupled=True, maximize=True, average_weight=0.75, **CLIPS
    ),
}


def tensors(case, dtype, state_dtype=None):
    """Arguments of a step in the middle of training."""
    generator = torch.Generator().manual_seed(0)

    def draw(kind=dtype, positive=False):
        made = []
        for shape in SHAPES:
            tensor = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            # A variance stays positive with the square of a mean taken off.
            tensor = (tensor.abs() + 3) if positive else tensor / 4
            tensor = tensor.to(kind)
            made.append(tensor.to(memory_format=torch.channels_last) if len(shape) == 4 else tensor)
        return made

    state = state_dtype or dtype
    extra = "all" in case
    params, grads, first = draw(), draw(), draw(state, positive=True)
    second = draw(state) if extra or "adam" in case else []
    third = draw(state, positive=True) if extra else []
    averages = draw() if extra else []
    steps = [torch.tensor(4.0) for _ in SHAPES]
    return [params, grads, first, second, third, averages, steps]


def run(case, arrays, backend, **options):
    algorithm, chosen = case.split(",")[0], OPTIONS[case]
    norm = gradient_norm(arrays[1], backend=backend) if chosen.grad_clip_norm < float("inf") else None
    return optimizer_step(
        algorithm, *arrays, chosen, grad_norm=norm, with_statistics=True, backend=backend, **options
    )


def as_float64(arrays):
    return [[tensor.double().clone() for tensor in tensors] for tensors in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", OPTIONS)
def test_kernel_matches_float64_reference(case, dtype):
    arrays = tensors(case, dtype)
    exact = as_float64(arrays)
    said, known = run(case, arrays, "native"), run(case, exact, "reference")
    # Half types are computed in float32 and rounded once. What lies near 0 is a sum of larger numbers.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}.get(dtype, torch.finfo(dtype).eps)
    for ours, theirs in zip(arrays, exact, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            scale = max(b.abs().max().item(), 0.25) if b.numel() else 1.0
            torch.testing.assert_close(a.double(), b, rtol=0, atol=tolerance * scale)
    # Of half types, what was computed may come to lie at a bound before it is rounded to it.
    torch.testing.assert_close(said[:2], known[:2], rtol=1e-5, atol=0)
    assert abs(said[2] - known[2]) <= 2


@pytest.mark.parametrize("case", OPTIONS)
def test_half_parameters_with_float32_state(case):
    arrays = tensors(case, torch.bfloat16, state_dtype=torch.float32)
    exact = as_float64(arrays)
    run(case, arrays, "native")
    run(case, exact, "reference")
    for a, b in zip(arrays[2], exact[2], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("case", OPTIONS)
def test_what_is_infinite_changes_nothing(case, backend):
    arrays = tensors(case, torch.float32)
    before = [[tensor.clone() for tensor in array] for array in arrays]
    run(case, arrays, backend, found_inf=torch.ones(1))
    for array, kept in zip(arrays, before, strict=True):
        for a, b in zip(array, kept, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_scaled_gradients_are_unscaled(backend):
    plain, scaled = tensors("rmsprop", torch.float64), tensors("rmsprop", torch.float64)
    scaled[1] = [8 * grad for grad in scaled[1]]
    expected = run("rmsprop", plain, backend)
    said = run("rmsprop", scaled, backend, grad_scale=torch.tensor(8.0))
    torch.testing.assert_close(said, expected)
    for a, b in zip(plain[0], scaled[0], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_norm_is_that_of_torch(dtype):
    grads = tensors("adam", dtype)[1]
    expected = torch.nn.utils.get_total_norm([grad.double() for grad in grads])
    for backend in ("native", "reference"):
        norm = gradient_norm(grads, backend=backend)
        assert norm.dtype == (torch.float64 if dtype == torch.float64 else torch.float32) and norm.dim() == 0
        torch.testing.assert_close(norm.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", OPTIONS)
def test_opcheck(case):
    arrays = [array[:4] for array in tensors(case, torch.float32)]
    numbers = [float(number) for number in OPTIONS[case]]
    arguments = (["rmsprop", "adam"].index(case.split(",")[0]), *arrays, numbers, None, None, None, None, None, True)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.fastgan.optimizer_step_.default, arguments, test_utils=checks)
    torch.library.opcheck(torch.ops.fastgan.gradient_norm.default, (arrays[1],), test_utils=checks)
