"""The CUDA kernels of the optimizers' step, emulated on the CPU, against the float64 reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from fastgan.ops.optimizer_step import gradient_norm, optimizer_step
from fastgan.reference.optimizer_step import StepOptions
from tests.kernels.emulation import ORDERS, emulated, emulated_step, same_bits
from tests.ops.optimizer_cases import OPTIONS, as_float64, assert_close_to_exact, tensors

# In this build a launch has at most two or five tensors, and blocks grow from eight times their size on.
FEW, MANY, LARGE = (
    [(7, 3), (4099,)],
    [(), (5,), (3000,), (2, 5, 3, 4), (0, 3), (2049,), (1,)] * 2,
    [(41003,), (5,)],
)
SHAPES = {"few": FEW, "many": MANY, "large": LARGE}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def copies(arrays):
    return [[tensor.clone() for tensor in array] for array in arrays]


def check(case, arrays, *, with_statistics=True, tolerance=1e-6, **scalars):
    """Compares a step with the float64 reference, and its bits with those of other orders of threads."""
    algorithm, options = case.split(",")[0], OPTIONS[case]
    if options.grad_clip_norm < math.inf:
        scalars["grad_norm"] = gradient_norm(arrays[1])
    exact, first = as_float64(arrays), None
    expected = optimizer_step(
        algorithm, *exact, options, **scalars, with_statistics=True, backend="reference"
    )
    for order in range(ORDERS):
        updated = copies(arrays)
        statistics = emulated_step(
            algorithm, updated, options, with_statistics=with_statistics, order=order, **scalars
        )
        all_results = [statistics, *(tensor for array in updated for tensor in array)]
        assert first is None or all(map(same_bits, all_results, first)), "the bits depend on the order"
        first = all_results
    assert_close_to_exact(updated, exact, tolerance)
    if with_statistics:
        assert_close(statistics[:2], expected[:2], rtol=1e-5, atol=0)
        assert abs(statistics[2].item() - expected[2].item()) <= 2


@pytest.mark.parametrize("with_statistics", [False, True])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", OPTIONS)
def test_steps_equal_the_references(case, dtype, shapes, with_statistics):
    tolerance = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    arrays = tensors(case, dtype, shapes=SHAPES[shapes])
    check(case, arrays, with_statistics=with_statistics, tolerance=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_views_at_any_address(dtype):
    arrays = tensors("adam, all", dtype, shapes=[(5,), (3000,)] * 3)
    arrays = [[t[1:] if t.numel() == 3000 else t for t in array] for array in arrays]
    check("adam, all", arrays, tolerance=1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps)


@pytest.mark.parametrize("case", OPTIONS)
def test_half_parameters_with_float32_state(case):
    arrays = tensors(case, torch.bfloat16, state_dtype=torch.float32, shapes=MANY)
    check(case, arrays, tolerance=torch.finfo(torch.bfloat16).eps)


@pytest.mark.parametrize("case", ["rmsprop, all", "adam"])
def test_gradients_are_unscaled(case):
    arrays = tensors(case, torch.float32, shapes=MANY)
    arrays[1] = [64 * grad for grad in arrays[1]]
    check(case, arrays, grad_scale=torch.tensor([64.0]))


@pytest.mark.parametrize("with_statistics", [False, True])
@pytest.mark.parametrize("case", OPTIONS)
def test_infinite_gradients_change_nothing(case, with_statistics):
    arrays, updates = tensors(case, torch.float32, shapes=MANY), torch.tensor(3)
    options = OPTIONS[case]._replace(average_warmup=True, counts_update=True)
    for order in range(ORDERS):
        updated = copies(arrays)
        statistics = emulated_step(
            case.split(",")[0], updated, options, found_inf=torch.ones(1), updates=updates,
            grad_norm=torch.tensor(1.0), with_statistics=with_statistics, order=order,
        )  # fmt: skip
        for array, original in zip(updated, arrays, strict=True):
            assert all(map(same_bits, array, original))
        assert updates.item() == 3
        if with_statistics:
            for index, measured in ((0, arrays[1]), (1, arrays[0])):
                expected = sum(tensor.double().square().sum() for tensor in measured)
                assert_close(statistics[index], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("with_statistics", [False, True])
@pytest.mark.parametrize("algorithm", ["rmsprop", "adam", "average"])
def test_warm_up_and_learning_rate_are_read_from_memory(algorithm, with_statistics, shapes):
    """All blocks read the count from before the step, although the last one increases it."""
    options = StepOptions(
        7.0, 0.1, 0.9 if algorithm == "adam" else 0.0, 0.99, average_weight=0.1, average_warmup=True,
        counts_update=True,
    )  # fmt: skip
    all_arrays = tensors("adam, all", torch.float32, shapes=SHAPES[shapes])
    params, grads, first, second, _, averages, steps = all_arrays
    arrays = [params, grads, first, second if algorithm == "adam" else [], [], averages, steps]
    if algorithm == "average":
        arrays, with_statistics = [params, [], [], [], [], averages, []], False
    exact = as_float64(arrays)
    lr, updates = torch.tensor(0.5), torch.tensor(2)
    optimizer_step(algorithm, *exact, options, lr=lr, updates=updates.clone(), backend="reference")
    for order in range(ORDERS):
        updated, updates_after = copies(arrays), updates.clone()
        emulated_step(
            algorithm,
            updated,
            options,
            lr=lr,
            updates=updates_after,
            with_statistics=with_statistics,
            order=order,
        )
        assert_close_to_exact(updated, exact, 1e-6)
        assert updates_after.item() == 3


@pytest.mark.parametrize("with_statistics", [False, True])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", OPTIONS)
def test_stochastic_rounding_equals_the_references(case, dtype, shapes, with_statistics):
    """Each block derives its seed from the step's number, which one of the blocks increases."""
    arrays = tensors(case, dtype, torch.float32, shapes=SHAPES[shapes])
    for parameter in arrays[0]:
        parameter.mul_(2.0**-12)  # so that some are subnormal in half types
    seeded = OPTIONS[case]._replace(rounding_seed=1234, grad_clip_norm=math.inf, lr=1e-6)
    theirs, first = copies(arrays), None
    optimizer_step(case.split(",")[0], *theirs, seeded, backend="reference")
    for order in range(ORDERS):
        ours = copies(arrays)
        emulated_step(case.split(",")[0], ours, seeded, with_statistics=with_statistics, order=order)
        for a, b in zip(ours[0], theirs[0], strict=True):
            # Sums in another order may lie on the other side of the random threshold.
            assert (a != b).sum() <= 2e-3 * a.numel()
        assert all(step.item() == 5 for step in ours[6])
        assert first is None or all(map(same_bits, ours[0], first)), "the bits depend on the order"
        first = ours[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", SHAPES)
def test_gradient_norm_is_that_of_torch(shapes, dtype):
    grads = tensors("adam", dtype, shapes=SHAPES[shapes])[1]
    expected = torch.nn.utils.get_total_norm([grad.double() for grad in grads]).float()
    norms = [emulated("gradient_norm", grads, order=order) for order in range(ORDERS)]
    assert_close(norms[0], expected, rtol=1e-6, atol=0)
    assert all(same_bits(norm, norms[0]) for norm in norms)


def test_gradient_norm_of_large_infinite_and_nan_gradients():
    large = [torch.full((3000,), 1e30), torch.full((5,), 1.0)]
    assert_close(emulated("gradient_norm", large), torch.tensor(1e30 * math.sqrt(3000)))
    for value in (math.nan, math.inf):
        large[1][3] = value
        assert not emulated("gradient_norm", large).isfinite()


@pytest.mark.parametrize("name", ["lr", "grad_scale", "found_inf", "grad_norm", "updates"])
def test_a_scalar_on_another_device_is_named(name):
    scalar = torch.ones((), dtype=torch.int64 if name == "updates" else torch.float32, device="meta")
    message = f"{name} is on another device, but the first parameter on the CPU"
    with pytest.raises(RuntimeError, match=message):
        emulated_step("adam", tensors("adam", torch.float32), OPTIONS["adam"], **{name: scalar})


@pytest.mark.parametrize(
    "place, name",
    [(0, "a parameter"), (1, "a gradient"), (2, "a state"), (3, "a state"), (4, "a state"),
     (5, "an average"), (6, "a step")],
)  # fmt: skip
def test_an_array_on_another_device_is_named(place, name):
    arrays = tensors("adam, all", torch.float32)
    arrays[place][2] = arrays[place][2].to("meta")
    with pytest.raises(
        RuntimeError, match=f"{name} is on another device, but the first parameter on the CPU"
    ):
        emulated_step("adam", arrays, OPTIONS["adam, all"])


def test_norms_of_gradients_on_two_devices_are_refused():
    with pytest.raises(RuntimeError, match="is on another device, but the first parameter on the CPU"):
        emulated("gradient_norm", [torch.ones(3), torch.ones(3, device="meta")])


@pytest.mark.parametrize("algorithm", ["rmsprop", "average"])
def test_parameters_with_and_without_an_average_in_one_step(algorithm):
    params, grads, first, _, _, averages, steps = tensors("adam, all", torch.float32, shapes=MANY)
    averages[2] = torch.empty(0)
    arrays = [params, grads, first, [], [], averages, steps]
    if algorithm == "average":
        arrays = [params, [], [], [], [], averages, []]
    before = averages[3].clone()
    emulated_step(algorithm, arrays, StepOptions(0.01, average_weight=0.25))
    assert_close(averages[3], before.lerp(params[3], 0.25))


@pytest.mark.parametrize("place", [1, 2, 3])
def test_missing_arrays_are_named(place):
    arrays = tensors("adam", torch.float32)
    arrays[place] = []
    with pytest.raises(RuntimeError, match="parameter 0 of 1 elements has an? .* of 0"):
        emulated_step("adam", arrays, OPTIONS["adam"])
