"""One step for many tensors: the kernel against the float64 reference. Against torch.optim: tests/optim."""

from __future__ import annotations

import pytest
import torch

from fastgan.ops.optimizer_step import gradient_norm, optimizer_step
from fastgan.reference.optimizer_step import ALGORITHMS, StepOptions
from tests.conftest import DEVICES
from tests.ops.layouts import DTYPES
from tests.ops.optimizer_cases import OPTIONS, as_float64, assert_close_to_exact, tensors


def run(case, arrays, backend, **options):
    algorithm, options_of_case = case.split(",")[0], OPTIONS[case]
    norm = (
        gradient_norm(arrays[1], backend=backend) if options_of_case.grad_clip_norm < float("inf") else None
    )
    return optimizer_step(
        algorithm, *arrays, options_of_case, grad_norm=norm, with_statistics=True, backend=backend, **options
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", OPTIONS)
def test_kernel_matches_float64_reference(case, dtype, device):
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("the reference serves float64 on a GPU")
    arrays = tensors(case, dtype, device=device)
    exact = as_float64(arrays)
    statistics, expected = run(case, arrays, "native"), run(case, exact, "reference")
    # Half types are computed in float32 and rounded once.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}.get(dtype, torch.finfo(dtype).eps)
    assert_close_to_exact(arrays, exact, tolerance)
    # Half types: a weight may reach a clipping bound only by being rounded, which changes the third number.
    torch.testing.assert_close(statistics[:2].cpu(), expected[:2], rtol=1e-5, atol=0)
    assert abs(statistics[2].item() - expected[2].item()) <= 2


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", OPTIONS)
def test_more_tensors_than_fit_into_a_launch_and_views_at_any_address(case, dtype):
    arrays = tensors(case, dtype, device="cuda", shapes=[(5,), (3000,), (1,)] * 300)
    # They neither begin nor end at a multiple of 16 bytes.
    arrays = [[t[1:] if t.numel() == 3000 else t for t in array] for array in arrays[:-1]] + arrays[-1:]
    exact = as_float64(arrays)
    statistics, expected = run(case, arrays, "native"), run(case, exact, "reference")
    assert_close_to_exact(arrays, exact, 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps)
    torch.testing.assert_close(statistics[:2].cpu(), expected[:2], rtol=1e-5, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", OPTIONS)
def test_half_parameters_with_float32_state(case, device):
    arrays = tensors(case, torch.bfloat16, state_dtype=torch.float32, device=device)
    exact = as_float64(arrays)
    run(case, arrays, "native")
    run(case, exact, "reference")
    for a, b in zip(arrays[2], exact[2], strict=True):
        torch.testing.assert_close(a.cpu().double(), b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("case", OPTIONS)
def test_infinite_gradients_change_nothing(case, backend, device):
    arrays = tensors(case, torch.float32, device=device)
    before = [[tensor.clone() for tensor in array] for array in arrays]
    statistics = run(case, arrays, backend, found_inf=torch.ones(1, device=device))
    for array, unchanged in zip(arrays, before, strict=True):
        for a, b in zip(array, unchanged, strict=True):
            assert torch.equal(a, b)
    # The statistics are those of the unchanged weights.
    for index, measured in ((0, arrays[1]), (1, arrays[0])):
        torch.testing.assert_close(
            statistics[index], sum(t.double().square().sum() for t in measured), rtol=1e-6, atol=0
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_learning_rate_and_warm_up_are_read_from_memory(backend, device):
    """So that replays of a CUDA graph use their current values."""
    case = "adam, all"
    fixed, read = (tensors(case, torch.float32, device=device) for _ in range(2))
    # The third update, number 2, has the weight 9 / 12.
    explicit = OPTIONS[case]._replace(lr=0.5, average_weight=0.75)
    with_warmup = OPTIONS[case]._replace(lr=7.0, average_weight=0.1, average_warmup=True, counts_update=True)
    norm = gradient_norm(fixed[1])
    updates = torch.tensor(2, device=device)
    for arrays, options, scalars in (
        (fixed, explicit, {}),
        (read, with_warmup, {"lr": torch.tensor(0.5, device=device), "updates": updates}),
    ):
        optimizer_step("adam", *arrays, options, grad_norm=norm, backend=backend, **scalars)
    assert updates.item() == 3
    for ours, theirs in zip(read, fixed, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)
    optimizer_step("adam", *read, with_warmup, updates=updates, found_inf=torch.ones((), device=device))
    assert updates.item() == 3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_step_of_the_average_alone(dtype, backend, device):
    params, averages = (
        tensors("adam", dtype, device=device)[0],
        tensors("adam", torch.float32, device=device)[1],
    )
    before = [average.clone() for average in averages]
    originals = [parameter.clone() for parameter in params]
    options = StepOptions(0.0, average_weight=0.25)
    optimizer_step("average", params, [], [], [], [], averages, [], options, backend=backend)
    for parameter, average, start, original in zip(params, averages, before, originals, strict=True):
        assert torch.equal(parameter, original)
        torch.testing.assert_close(average, start.lerp(parameter.float(), 0.25))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", OPTIONS)
def test_stochastic_rounding_equals_the_references(case, dtype, device):
    ours = tensors(case, dtype, torch.float32, device)
    theirs = [[tensor.cpu().clone() for tensor in array] for array in ours]
    for parameter in (*ours[0], *theirs[0]):
        parameter.mul_(2.0**-12)  # so that some are subnormal in half types
    seeded = OPTIONS[case]._replace(rounding_seed=1234, grad_clip_norm=float("inf"), lr=1e-6)
    for arrays, backend in ((ours, "native"), (theirs, "reference")):
        optimizer_step(case.split(",")[0], *arrays, seeded, backend=backend)
    for a, b in zip(ours[0], theirs[0], strict=True):
        # Sums in another order may lie on the other side of the random threshold.
        assert (a.cpu() != b).sum() <= max(0, 2e-3 * a.numel())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stochastic_rounding_keeps_updates_that_nearest_rounding_loses(dtype):
    """A hundred steps of a tenth of a unit in the last place each."""
    unit = torch.finfo(dtype).eps
    parameter = torch.ones(40000, dtype=dtype)
    grads, square = torch.ones(40000), torch.ones(40000)
    step = torch.zeros(())
    for _ in range(100):
        options = StepOptions(-0.1 * unit, decay=1.0, eps=0.0, rounding_seed=5)
        optimizer_step("rmsprop", [parameter], [grads], [square], [], [], [], [step], options)
    distance = (parameter.double() - 1) / unit
    # Each step goes up by one unit with probability 0.1.
    assert abs(distance.mean() - 10) < 5 * 3 / 200 and 2.5 < distance.std() < 3.5
    assert distance.equal(distance.round())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("algorithm", ["rmsprop", "adam", "average"])
def test_parameters_with_and_without_an_average_in_one_step(algorithm, backend, device):
    arrays = tensors("adam, all", torch.float32, device=device)
    arrays[4] = []
    arrays[5][2] = torch.empty(0)
    if algorithm != "adam":
        arrays[3] = []
    if algorithm == "average":
        arrays = [arrays[0], [], [], [], [], arrays[5], []]
    parameter, average = arrays[0][3], arrays[5][3].clone()
    optimizer_step(algorithm, *arrays, StepOptions(0.01, average_weight=0.25), backend=backend)
    torch.testing.assert_close(arrays[5][3], average.lerp(parameter, 0.25))
    assert arrays[5][2].numel() == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "place, name",
    [(1, "a gradient"), (2, "an average of squared gradients"), (3, "an average of gradients")],
)
def test_missing_arrays_are_named(place, name, device):
    for missing in ([], None):
        arrays = tensors("adam", torch.float32, device=device)
        if missing is None:
            arrays[place][2] = torch.empty(0, device=device)
        else:
            arrays[place] = missing
        number, elements = (2, 21) if missing is None else (0, 1)
        message = f"parameter {number} of {elements} elements has {name} of 0"
        with pytest.raises(RuntimeError, match=message):
            optimizer_step("adam", *arrays, OPTIONS["adam"], backend="native")


def test_arrays_of_other_sizes_are_named():
    arrays = tensors("adam", torch.float32)
    arrays[2][2] = torch.ones(5)
    with pytest.raises(RuntimeError, match="a parameter of 21 elements has an array of 5"):
        run("adam", arrays, "native")


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_scaled_gradients_are_unscaled(backend):
    plain, scaled = tensors("rmsprop", torch.float64), tensors("rmsprop", torch.float64)
    scaled[1] = [8 * grad for grad in scaled[1]]
    expected = run("rmsprop", plain, backend)
    actual = run("rmsprop", scaled, backend, grad_scale=torch.tensor(8.0))
    torch.testing.assert_close(actual, expected)
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
    algorithm = ALGORITHMS.index(case.split(",")[0])
    arguments = (algorithm, *arrays, numbers, None, None, None, None, None, True)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.fastgan.optimizer_step_.default, arguments, test_utils=checks)
    torch.library.opcheck(torch.ops.fastgan.gradient_norm.default, (arrays[1],), test_utils=checks)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_the_norm_of_gradients_whose_squares_overflow(backend, device):
    grads = [torch.full((3000,), 3e30, device=device), torch.rand(40, device=device)]
    norm = gradient_norm(grads, backend=backend)
    torch.testing.assert_close(norm.cpu(), torch.tensor(3e30 * 3000**0.5), rtol=1e-6, atol=0)
