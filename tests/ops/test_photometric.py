"""The photometric distortions: kernels against the float64 reference, noise against its distribution."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from fastgan import ops
from fastgan.ops import _library
from fastgan.reference.photometric import normal_noise, photometric_tangent
from tests.conftest import DEVICES
from tests.ops.layouts import DTYPES, LAYOUTS, exact, image, relative_error

SIZES = [(1, 1, 1), (2, 3, 5), (3, 17, 33), (1, 64, 64), (2, 5, 1100), (2, 100, 130)]
HALF = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def draws(batch, device="cpu", strength=0.2):
    """One set of parameters per image, with which some values are clamped."""
    return {
        "noise": (strength * torch.rand(batch)).to(device),
        "contrast": (torch.rand(batch) + 0.5).to(device),
        "offset": (0.8 * torch.rand(batch, 3) - 0.4).to(device),
        "desaturation": torch.rand(batch).to(device),
    }


def on_cpu(parameters):
    return {name: value.cpu() for name, value in parameters.items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_kernel_matches_float64_reference(device, layout, size):
    x, parameters = image(size, device=device, layout=layout), draws(size[0], device)
    distorted = ops.photometric(x, **parameters, seed=5)
    reference = exact(x)
    expected = ops.photometric(reference, **on_cpu(parameters), seed=5, backend="reference")
    assert relative_error(distorted, expected) <= 1e-6
    upstream = torch.rand(x.shape, dtype=torch.float64)
    (grad,) = torch.autograd.grad(distorted, x, upstream.to(device, x.dtype))
    (expected_grad,) = torch.autograd.grad(expected, reference, upstream)
    # A value whose distance to a clamp's bound is a rounding error may lie on either side.
    differs = (grad.cpu() - expected_grad).abs() > 1e-5
    assert differs.double().mean() <= 1e-4
    assert relative_error(grad.cpu().double()[~differs], expected_grad[~differs]) <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
def test_kernel_matches_float64_reference_on_photographs(device, photographs):
    x, parameters = photographs.clone().to(device).requires_grad_(), draws(2, device, 0.02)
    distorted = ops.photometric(x, **parameters, seed=-3)
    expected = ops.photometric(exact(x), **on_cpu(parameters), seed=-3, backend="reference")
    assert relative_error(distorted, expected) <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALF)
def test_half_types_err_by_one_rounding(device, dtype):
    x, parameters = image((2, 37, 53), dtype, device), draws(2, device)
    distorted = ops.photometric(x, **parameters, seed=1)
    expected = ops.photometric(exact(x), **on_cpu(parameters), seed=1, backend="reference")
    assert distorted.dtype == dtype
    assert (distorted.cpu() - expected).abs().max() <= HALF[dtype]


def test_gradients_of_every_order():
    x, parameters = image((2, 4, 5), torch.float64), draws(2)
    function = lambda x: ops.photometric(x, **parameters, seed=3)  # noqa: E731
    assert torch.autograd.gradcheck(function, x)
    squared = lambda x: function(x).square()  # noqa: E731
    assert torch.autograd.gradgradcheck(squared, x)


def test_tangent_is_the_transpose_of_the_gradient():
    x, parameters = image((2, 8, 9), torch.float64), draws(2)
    columns = torch.cat(
        [parameters[k].double().view(2, -1) for k in ("noise", "contrast", "offset", "desaturation")], 1
    )
    _, masks = torch.ops.fastgan.photometric(x.detach(), columns, torch.tensor(4), True)
    forward, backward = torch.rand(2, *x.shape, dtype=torch.float64)
    transposed = torch.ops.fastgan.photometric_backward(backward, columns, masks)
    tangent = photometric_tangent(forward, columns, masks)
    assert_close((tangent * backward).sum(), (forward * transposed).sum())


def test_the_reference_has_gradients_for_all_parameters():
    parameters = {name: value.double().requires_grad_() for name, value in draws(2).items()}
    x = image((2, 4, 5), torch.float64)

    def function(x, *values):
        return ops.photometric(x, **dict(zip(parameters, values, strict=True)), seed=3, backend="reference")

    assert torch.autograd.gradcheck(function, (x, *parameters.values()))


# --- the noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_noise_is_the_reference_noise_of_the_seed(device):
    """Far from the clamps the result is 0.5 + 0.01 noise."""
    grey = torch.full((3, 3, 61, 47), 0.5, device=device)
    for seed in (0, 1, 2**40 + 7, -1):
        noise = (ops.photometric(grey, noise=0.01, seed=seed) - 0.5) / 0.01
        expected = normal_noise(torch.tensor(seed), 3, 61, 47, torch.float64)
        assert (noise.cpu() - expected).abs().max() <= 2e-5


def test_noise_is_standard_normal():
    noise = normal_noise(torch.tensor(11), 4, 300, 300, torch.float64)
    count = noise.numel()
    assert abs(noise.mean()) <= 4 / math.sqrt(count)
    assert abs(noise.var() - 1) <= 4 * math.sqrt(2 / count)
    assert abs((noise**3).mean()) <= 4 * math.sqrt(15 / count)
    assert abs((noise**4).mean() - 3) <= 4 * math.sqrt(96 / count)
    inside = [(noise.abs() < bound).double().mean() for bound in (0.5, 1.0, 2.0, 3.0)]
    for share, bound in zip(inside, (0.5, 1.0, 2.0, 3.0), strict=True):
        expected = math.erf(bound / math.sqrt(2))
        assert abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / count)


def test_noise_is_independent_across_seeds_channels_images_and_neighbours():
    noise = torch.stack([normal_noise(torch.tensor(seed), 2, 200, 200, torch.float64) for seed in range(4)])
    count = noise[0, 0, 0].numel()
    flat = noise.reshape(4 * 2 * 3, count)  # one row per seed, image and channel
    correlation = torch.corrcoef(flat) - torch.eye(24, dtype=torch.float64)
    assert correlation.abs().max() <= 5 / math.sqrt(count)
    for shift in ((0, 1), (1, 0), (1, 1)):
        neighbours = (noise * noise.roll(shift, dims=(-2, -1))).mean()
        assert abs(neighbours) <= 4 / math.sqrt(noise.numel())


def test_same_bits_for_any_number_of_threads():
    x, parameters = image((3, 203, 311)), draws(3)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            distorted = ops.photometric(x, **parameters, seed=9)
            results.append((distorted, torch.autograd.grad(distorted.sum(), x)[0]))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_seed_is_drawn_from_the_generator():
    x = image((1, 8, 8))
    first, repeated, other = (
        ops.photometric(x, noise=0.1, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, repeated) and not torch.equal(first, other)
    assert not torch.equal(ops.photometric(x, noise=0.1), ops.photometric(x, noise=0.1))


# --- arguments, memory, compile ---------------------------------------------------------------------------


def test_defaults_do_nothing():
    x = image((2, 9, 9))
    assert_close(ops.photometric(x), x, rtol=0, atol=1e-7)


def test_numbers_stand_for_every_image():
    x, full = image((2, 9, 9)), torch.full((2,), 0.3)
    expected = ops.photometric(x, noise=full, contrast=full, offset=full, desaturation=full, seed=1)
    zero_d = torch.tensor(0.3)
    for value in (0.3, zero_d):
        result = ops.photometric(x, noise=value, contrast=value, offset=value, desaturation=value, seed=1)
        assert torch.equal(result, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_saves_one_byte_per_pixel(device):
    saved = []
    x = image((2, 64, 64), device=device)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        ops.photometric(x, **draws(2, device))
    assert sum(size for size in saved if size > 64) == 2 * 64 * 64


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", [None, "reference"])
def test_nan_stays_where_it_is(device, backend):
    x = image((1, 6, 6), device=device).detach()
    x[0, 1, 2, 3] = torch.nan
    distorted = ops.photometric(x, noise=0.1, contrast=1.2, seed=1, backend=backend)
    nan = distorted.isnan()
    assert nan.sum() >= 1 and nan[0, 1, 2, 3]
    assert not nan.any(dim=1).flatten()[torch.arange(36, device=device) != 15].any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("with_masks", [True, False])
def test_opcheck(device, with_masks):
    x = image((2, 7, 9), device=device)
    if not with_masks:
        x = x.detach()
    parameters, seed = torch.rand(2, 6, device=device), torch.tensor(3, device=device)
    torch.library.opcheck(torch.ops.fastgan.photometric.default, (x, parameters, seed, with_masks))
    masks = torch.randint(0, 8, (2, 7, 9), dtype=torch.uint8, device=device)
    grad = torch.rand(2, 3, 7, 9, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.fastgan.photometric_backward.default, (grad, parameters, masks))


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_without_a_graph_break(device):
    x, parameters = image((2, 16, 24), device=device), draws(2, device)
    seed = torch.tensor(8, device=device)
    step = torch.compile(lambda x: ops.photometric(x * 1.0, **parameters, seed=seed), fullgraph=True)
    distorted = step(x)
    expected = ops.photometric(x, **parameters, seed=seed)
    assert_close(distorted, expected)
    assert_close(torch.autograd.grad(distorted.sum(), x), torch.autograd.grad(expected.sum(), x))


def test_compiles_with_numbers_and_dynamic_shapes():
    distort = lambda x: ops.photometric(x * 1.0, noise=0.1, contrast=1.2, seed=3)  # noqa: E731
    compiled = torch.compile(distort, fullgraph=True, dynamic=True)
    for size in ((2, 8, 9), (3, 10, 12)):
        x = image(size)
        assert_close(compiled(x), distort(x))


def test_works_under_functorch_grad():
    x, parameters = image((1, 8, 8)), draws(1)
    loss = lambda x: ops.photometric(x, **parameters, seed=2).square().sum()  # noqa: E731
    assert_close(torch.func.grad(loss)(x.detach()), torch.autograd.grad(loss(x), x)[0])


@pytest.mark.parametrize(("wrong", "error", "message"), [
    ({"image": torch.rand(2, 4, 5, 5)}, ValueError, r"image .* \(N, 3, H, W\), got \(2, 4, 5, 5\)"),
    ({"image": torch.zeros(2, 3, 5, 5, dtype=torch.uint8)}, TypeError, "got torch.uint8"),
    ({"noise": -0.1}, ValueError, r"noise must lie in \[0, inf\], got -0.1"),
    ({"noise": torch.tensor([0.1, -0.5])}, ValueError, "noise .* got -0.5 at batch index 1"),
    ({"desaturation": torch.tensor([0.1, 1.5])}, ValueError, r"desaturation .* in \[0, 1\], got 1.5 at"),
    ({"contrast": float("nan")}, ValueError, "contrast must be finite, got nan"),
    ({"offset": torch.tensor([[0.0, 0, 0], [0, torch.inf, 0]])}, ValueError, "offset .* got inf at .* 1"),
    ({"offset": torch.zeros(2, 4)}, ValueError, r"offset must be 0-d or have shape \(2,\), \(2, 3\)"),
    ({"contrast": torch.zeros(3)}, ValueError, r"contrast .* got \(3,\)"),
    ({"contrast": "1"}, TypeError, "contrast must be a number or a tensor, got str"),
    ({"seed": 2**63}, ValueError, "seed must fit in 64 bits"),
    ({"seed": 1.5}, TypeError, "seed must be an integer or a tensor, got float"),
    ({"seed": torch.tensor([1, 2])}, ValueError, r"seed must be 0-d int64, got shape \(2,\)"),
    ({"seed": 1, "generator": torch.Generator()}, ValueError, "not both"),
    ({"contrast": torch.ones(2, requires_grad=True)}, ValueError, "requires grad"),
])  # fmt: skip
def test_wrong_inputs_are_named(wrong, error, message):
    arguments = {"image": torch.rand(2, 3, 5, 5)} | wrong
    if "requires grad" in message and _library.cpu_missing:
        pytest.skip(_library.cpu_missing)
    with pytest.raises(error, match=message):
        ops.photometric(arguments.pop("image"), **arguments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_and_memory_format_are_kept(dtype):
    x = image((2, 6, 7), dtype, layout="channels_last")
    distorted = ops.photometric(x, noise=0.1)
    assert distorted.dtype == dtype and distorted.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_nan_in_a_channel_is_nan_in_the_pixel_and_in_that_channels_gradient(backend):
    x = torch.full((1, 3, 4, 5), 0.5)
    x[0, 1, 2, 3] = torch.nan
    x.requires_grad_()
    distorted = ops.photometric(x, contrast=0.8, offset=0.1, desaturation=0.3, backend=backend)
    assert distorted.isnan().nonzero().tolist() == [[0, c, 2, 3] for c in range(3)]
    (gradient,) = torch.autograd.grad(distorted.sum(), x)
    assert gradient.isnan().nonzero().tolist() == [[0, 1, 2, 3]]
    masks = torch.ops.fastgan.photometric(
        x.detach(), torch.tensor([[0.0, 1, 0, 0, 0, 0]]), torch.tensor(0), True
    )[1]
    tangent = photometric_tangent(torch.ones_like(x), torch.tensor([[0.0, 1, 0, 0, 0, 0]]), masks)
    assert tangent.isnan().nonzero().tolist() == [[0, c, 2, 3] for c in range(3)]
