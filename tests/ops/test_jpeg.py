"""jpeg_round_trip: against the real codec, and kernel against reference, values and gradients."""

from __future__ import annotations

import io
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch.testing import assert_close

from fastgan import ops
from fastgan.ops import _jpeg_tables, jpeg, jpeg_round_trip
from fastgan.ops.jpeg import ROUNDINGS, quality_tables
from fastgan.reference.philox import philox, uniform
from tests.ops.jpeg_cases import out_of_range, undecided

Image = pytest.importorskip("PIL.Image")
np = pytest.importorskip("numpy")

SUBSAMPLINGS = ["4:2:0", "4:2:2", "4:4:4"]
SMOOTH = [name for name in ROUNDINGS if name != "straight_through"]
SIZES = [(1, 1), (5, 3), (8, 8), (17, 33), (33, 50), (48, 64), (16, 161)]


def through_pil(image, quality, subsampling):
    buffer = io.BytesIO()
    picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
    picture.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


# --- the codec ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [1, 5, 25, 50, 75, 90, 95, 100])
@pytest.mark.parametrize("size", [(300, 451), (64, 64), (7, 5), (8, 8), (17, 33), (1, 1), (20, 4), (2, 3)])
def test_straight_through_is_libjpeg_to_the_bit(photographs, backend, subsampling, quality, size):
    noise = torch.randint(0, 256, (1, 3, *size)) / 255
    for image in [*photographs[..., : size[0], : size[1]], *noise]:
        decoded = jpeg_round_trip(image[None], quality, subsampling=subsampling, backend=backend)[0] * 255
        expected = through_pil(image, quality, subsampling).float()
        assert_close(decoded, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_halfway_between_two_levels_are_rounded_as_in_a_saved_picture(backend, dtype):
    """255 times a neighbour of (k + 1/2) / 255 is exactly k + 1/2 only after rounding to the dtype."""
    middles = ((torch.arange(255, dtype=torch.float64) + 0.5) / 255).to(dtype)
    neighbours = [middles.nextafter(torch.tensor(bound, dtype=dtype)) for bound in (0, 1)]
    image = torch.cat([middles, *neighbours]).view(15, 51).expand(3, 15, 51)
    decoded = jpeg_round_trip(image[None], 100, subsampling="4:4:4", backend=backend)[0] * 255
    expected = through_pil(image, 100, "4:4:4").to(dtype)
    assert_close(decoded, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 99, 100])
def test_tables_are_those_of_libjpeg(quality):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    written = Image.open(buffer).quantization
    ours = quality_tables(quality)[0].int().flatten(1)
    for table in (0, 1):
        assert ours[table].tolist() == written[table]


def test_custom_tables_are_those_of_the_codec(photographs):
    tables = torch.randint(1, 256, (2, 64))
    buffer = io.BytesIO()
    picture = Image.fromarray((photographs[0] * 255).byte().permute(1, 2, 0).numpy())
    picture.save(buffer, "JPEG", qtables=tables.tolist(), subsampling=2)
    opened = Image.open(buffer)
    expected = torch.from_numpy(np.array(opened)).permute(2, 0, 1).float()
    written = torch.tensor([opened.quantization[0], opened.quantization[1]]).float().view(1, 2, 8, 8)
    decoded = jpeg_round_trip(photographs[:1], None, quantization_tables=written)[0] * 255
    assert_close(decoded, expected, rtol=0, atol=1e-4)


def test_each_image_has_its_own_quality_which_is_not_modified(photographs):
    quality = torch.tensor([20.0, 90.0])
    kept = quality.clone()
    together = jpeg_round_trip(photographs, quality)
    for index in (0, 1):
        alone = jpeg_round_trip(photographs[index : index + 1], float(quality[index]))
        assert torch.equal(together[index : index + 1], alone)
    assert torch.equal(quality, kept)


# --- kernel against reference ---------------------------------------------------------------------------


def value_and_gradients(image, quality, tables, weight, backend, **options):
    """The decoded image, and the gradients of a random weighting of it."""
    generator = torch.Generator().manual_seed(5)
    decoded = jpeg_round_trip(
        image, quality, quantization_tables=tables, generator=generator, backend=backend, **options
    )
    inputs = [x for x in (image, quality, tables) if isinstance(x, torch.Tensor) and x.requires_grad]
    return decoded.detach(), *torch.autograd.grad((decoded * weight).sum(), inputs)


@pytest.mark.parametrize("upsampling", ["fancy", "nearest"])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("size", SIZES)
def test_kernel_equals_reference(rounding, subsampling, upsampling, size):
    image = out_of_range(size).double().requires_grad_()
    quality = torch.tensor([30.0, 95.0], dtype=torch.float64, requires_grad=True)
    tables = (1 + 60 * torch.rand(2, 2, 8, 8, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(image.shape, dtype=torch.float64)
    options = {"subsampling": subsampling, "upsampling": upsampling, "rounding": rounding}
    for arguments in ((image, quality, None), (image, None, tables), (image, quality, tables)):
        actual, expected = (
            value_and_gradients(*arguments, weight, backend, **options) for backend in ("native", "reference")
        )
        for ours, reference in zip(actual, expected, strict=True):
            assert_close(ours, reference, rtol=1e-6, atol=1e-6 * reference.abs().max().item() + 1e-12)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("rounding", ["straight_through", "cubic", "noise", "none"])
def test_float32_kernel_equals_float64_reference_on_photographs(photographs, rounding, subsampling):
    # Without saturated pixels: these lie on a clamp, where the two dtypes may differ.
    image = (0.05 + 0.9 * photographs).requires_grad_()
    wide = image.detach().double().requires_grad_()
    weight = torch.randn(image.shape)
    options = {"subsampling": subsampling, "rounding": rounding}
    ours = value_and_gradients(image, 60, None, weight, "native", **options)
    reference = value_and_gradients(wide, 60, None, weight.double(), "reference", **options)
    for actual, expected in zip(ours, reference, strict=True):
        # next to a half the cubic's slope is steep, and amplifies float32's rounding of a coefficient
        assert (actual.double() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rounding", ["straight_through", "cubic"])
def test_half_types_are_rounded_once(dtype, rounding):
    image = torch.rand(2, 3, 20, 36).to(dtype).requires_grad_()
    wide = image.detach().float().requires_grad_()
    weight = torch.randn(image.shape).to(dtype)
    decoded, gradient = value_and_gradients(image, 60, None, weight, "native", rounding=rounding)
    expected, expected_gradient = value_and_gradients(
        wide, 60, None, weight.float(), "native", rounding=rounding
    )
    assert decoded.dtype == gradient.dtype == dtype
    assert torch.equal(decoded, expected.to(dtype))
    assert torch.equal(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("layout", ["channels_last", "sliced", "expanded"])
def test_strides_do_not_matter(rounding, layout):
    if layout == "channels_last":
        image = torch.rand(2, 20, 36, 3).permute(0, 3, 1, 2)
    elif layout == "sliced":
        image = torch.rand(2, 5, 40, 37)[:, 1:4, ::2, 1:]
    else:
        image = torch.rand(1, 3, 20, 1).expand(2, 3, 20, 36)
    dense = image.contiguous().clone().requires_grad_()
    image = image.detach().requires_grad_()
    weight = torch.randn(2, 3, 36, 20).transpose(2, 3)
    ours = value_and_gradients(image, 50, None, weight, "native", rounding=rounding)
    expected = value_and_gradients(dense, 50, None, weight.contiguous(), "native", rounding=rounding)
    for actual, other in zip(ours, expected, strict=True):
        assert torch.equal(actual, other)
    if layout == "channels_last":
        assert ours[0].is_contiguous(memory_format=torch.channels_last)


# --- CUDA kernel against the CPU's ----------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("upsampling", ["fancy", "nearest"])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("size", [*SIZES, (400, 400)])
def test_cuda_kernel_equals_cpu_kernel(rounding, subsampling, upsampling, size):
    image, tables = out_of_range(size), 1 + 60 * torch.rand(2, 2, 8, 8)
    weight = torch.randn(image.shape)
    options = (*jpeg.SUBSAMPLINGS[subsampling], upsampling == "fancy", jpeg.KERNEL_ROUNDINGS[rounding])
    results = []
    for device in ("cpu", "cuda"):
        x, t, seed = image.to(device), tables.to(device), torch.tensor(9, device=device)
        decoded, masks, chroma_masks = torch.ops.fastgan.jpeg(x, t, seed, *options, True)
        # both get the CPU's masks: a value on a clamp may lie on either side of it
        cpu_masks = results[0][1:3] if results else (masks, chroma_masks)
        gradients = torch.ops.fastgan.jpeg_backward(
            weight.to(device),
            x,
            t,
            seed,
            cpu_masks[0].to(device),
            cpu_masks[1].to(device),
            *options,
            True,
            True,
        )
        results.append((decoded, masks, chroma_masks, *gradients))
    (decoded, *_, grad_image, grad_tables), (decoded_gpu, *_, grad_image_gpu, grad_tables_gpu) = results
    difference = 255 * (decoded_gpu.cpu() - decoded).abs()
    if rounding == "straight_through":  # which computes with integers
        assert difference.max() == 0
    else:
        decided = ~undecided(image, tables, torch.tensor(9), options)
        assert not (difference[decided] > 0.01).any()
        assert size != (400, 400) or decided.float().mean() >= 0.8
    for ours, expected in ((grad_image_gpu, grad_image), (grad_tables_gpu, grad_tables)):
        assert (ours.cpu() - expected).norm() <= 1e-3 * expected.norm() + 1e-6


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cuda_half_types_are_rounded_once(dtype):
    image, weight = torch.rand(2, 3, 20, 36).to(dtype), torch.randn(2, 3, 20, 36).to(dtype)
    results = [
        value_and_gradients(image.to(device).requires_grad_(), 60, None, weight.to(device), "native")
        for device in ("cpu", "cuda")
    ]
    (decoded, gradient), (decoded_gpu, gradient_gpu) = results
    assert torch.equal(decoded_gpu.cpu(), decoded)
    # Gradients are sums in float32; an error in their last place sometimes changes how they are rounded.
    largest = gradient.abs().max().item()
    assert_close(gradient_gpu.cpu(), gradient, rtol=torch.finfo(dtype).eps, atol=1e-6 * largest)


@pytest.mark.gpu
def test_cuda_step_never_waits_and_wrong_qualities_become_nan():
    image = torch.rand(2, 3, 40, 56, device="cuda", requires_grad=True)
    quality = torch.tensor([50.0, 500.0], device="cuda")
    jpeg_round_trip(image, quality).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        decoded = jpeg_round_trip(image, quality)
        decoded.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert decoded[0].isfinite().all() and decoded[1].isnan().all()


# --- gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("rounding", ["cubic", "at_zero", "noise", "none"])
def test_gradcheck_of_the_smooth_surrogates(rounding, subsampling):
    # Away from the clamps and from the jumps of "cubic" and "at_zero".
    image = (0.35 + 0.3 * torch.rand(1, 3, 9, 17, dtype=torch.float64)).requires_grad_()
    tables = torch.full((1, 2, 8, 8), 40.0, dtype=torch.float64, requires_grad=True)

    def decode(image, tables):
        generator = torch.Generator().manual_seed(1)
        return jpeg_round_trip(
            image, None, quantization_tables=tables, subsampling=subsampling, rounding=rounding,
            generator=generator, backend="native",
        )  # fmt: skip

    assert torch.autograd.gradcheck(decode, (image, tables), eps=1e-7, atol=1e-5, fast_mode=True)


def test_straight_through_gradient_equals_the_one_without_rounding(photographs):
    # Far from the clamps, where both are linear.
    image = (0.3 + 0.4 * photographs[:1, :, 100:148, 100:164]).requires_grad_()
    weight = torch.rand(1, 3, 48, 64)
    gradients = [
        torch.autograd.grad((jpeg_round_trip(image, 80, rounding=name) * weight).sum(), image)[0]
        for name in ("straight_through", "none")
    ]
    assert_close(*gradients, rtol=0, atol=1e-5)


def test_black_and_white_pixels_have_gradients_and_pixels_beyond_do_not():
    image = torch.tensor([0.0, 1.0, -0.01, 1.01]).expand(1, 3, 8, 4).repeat(1, 1, 1, 2).requires_grad_()
    jpeg_round_trip(image, 100, subsampling="4:4:4", rounding="none").sum().backward()
    assert (image.grad[..., 2:4] == 0).all() and (image.grad[..., 6:] == 0).all()
    assert image.grad[..., :2].abs().max() > 0


@pytest.mark.parametrize("quality", [30.0, 70.0])
def test_gradient_of_quality_is_that_of_its_tables(photographs, quality):
    weight = torch.randn(photographs.shape)
    quality_tensor = torch.tensor(quality, requires_grad=True)
    (actual,) = value_and_gradients(photographs, quality_tensor, None, weight, "native")[1:]
    tables = quality_tables(quality).clone().requires_grad_()
    (grad_tables,) = value_and_gradients(photographs, None, tables, weight, "native")[1:]
    slope = -5000 / quality**2 if quality < 50 else -2
    inside = (tables > 1) & (tables < 255)
    expected = (grad_tables * quality_tables(50) * slope / 100 * inside).sum()
    assert actual.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("quality", [1, 100])
def test_extreme_qualities_give_finite_values_and_gradients(photographs, rounding, quality):
    image = photographs[:, :, :40, :40].clone().requires_grad_()
    quality_tensor = torch.tensor(float(quality), requires_grad=True)
    decoded = jpeg_round_trip(image, quality_tensor, rounding=rounding)
    decoded.square().sum().backward()
    assert decoded.isfinite().all() and image.grad.isfinite().all() and quality_tensor.grad.isfinite()
    assert decoded.min() >= 0 and decoded.max() <= 1


def test_differentiating_twice_raises_and_says_what_to_do():
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    decoded = jpeg_round_trip(image, 50)
    (gradient,) = torch.autograd.grad(decoded.square().sum(), image, create_graph=True)
    with pytest.raises(RuntimeError, match="first-order gradients only; backend='reference'"):
        gradient.square().sum().backward()
    decoded = jpeg_round_trip(image, 50, rounding="cubic", backend="reference")
    (gradient,) = torch.autograd.grad(decoded.square().sum(), image, create_graph=True)
    gradient.square().sum().backward()
    assert image.grad.isfinite().all()


def test_saves_masks_instead_of_the_image():
    image = torch.rand(2, 3, 64, 96, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        jpeg_round_trip(image, 50)
    assert sum(saved) <= 1.25 * image.numel() / 3 + 1024


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_same_bits_for_any_number_of_threads(rounding):
    image = out_of_range((203, 311)).requires_grad_()
    tables = (1 + 60 * torch.rand(1, 2, 8, 8)).requires_grad_()
    weight = torch.randn(image.shape)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(value_and_gradients(image, None, tables, weight, "native", rounding=rounding))
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(others, results[0], strict=True))


# --- compile, opcheck, functorch ------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", [0, 1, 3])
@pytest.mark.parametrize("differentiated", [False, True])
def test_opcheck(rounding, differentiated):
    image = torch.rand(2, 3, 9, 18, requires_grad=differentiated)
    tables = quality_tables(50).clone().requires_grad_(differentiated)
    seed = torch.tensor(3) if rounding == 3 else None
    arguments = (image, tables, seed, 2, 2, True, rounding, differentiated)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.fastgan.jpeg.default, arguments, test_utils=tests)
    with torch.no_grad():
        _, masks, chroma_masks = torch.ops.fastgan.jpeg(*arguments[:-1], True)
    grad = torch.rand(2, 3, 9, 18)
    torch.library.opcheck(
        torch.ops.fastgan.jpeg_backward.default,
        (grad, image.detach(), tables.detach(), seed, masks, chroma_masks, 2, 2, True, rounding, True, True),
    )


@pytest.mark.parametrize("rounding", ["straight_through", "cubic", "noise"])
def test_compiles_without_a_graph_break(rounding):
    image = torch.rand(2, 3, 20, 36, requires_grad=True)
    quality = torch.tensor([30.0, 80.0])

    @torch.compile(fullgraph=True)
    def step(image, quality):
        return jpeg_round_trip(image * 1.0, quality, rounding=rounding).square().sum()

    torch.manual_seed(1)
    (gradient,) = torch.autograd.grad(step(image, quality), image)
    if rounding != "noise":  # the compiled function draws another seed
        expected = jpeg_round_trip(image, quality, rounding=rounding).square().sum()
        assert_close(gradient, torch.autograd.grad(expected, image)[0])


def test_works_under_functorch_grad():
    image = torch.rand(1, 3, 16, 16)
    expected = torch.autograd.grad(jpeg_round_trip(image.requires_grad_(), 50).square().sum(), image)[0]
    gradient = torch.func.grad(lambda x: jpeg_round_trip(x, 50).square().sum())(image.detach())
    assert_close(gradient, expected)


# --- noise ----------------------------------------------------------------------------------------------


def test_philox_gives_the_published_words():
    # Random123's known-answer test for philox4x32 with 10 rounds: counter and key zero.
    words = philox(torch.tensor(0), torch.tensor([0]))
    assert [int(word) for word in words] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_noise_is_uniform_and_its_seed_comes_from_the_generator():
    draws = uniform(philox(torch.tensor(7), torch.arange(200_000))[0], torch.float64) - 0.5
    assert abs(draws.mean()) < 0.004 and abs(draws.var() - 1 / 12) < 0.001
    image = torch.rand(1, 3, 64, 64)
    first, repeated, other = (
        jpeg_round_trip(image, 50, rounding="noise", generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, repeated) and not torch.equal(first, other)


# --- wrong input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("upsampling", ["fancy", "nearest"])
def test_nan_reaches_the_pixels_that_depend_on_it_and_no_others(rounding, subsampling, upsampling):
    image = torch.rand(2, 3, 40, 56)
    image[0, 1, 17, 20] = torch.nan
    image[1, 0, 39, 55] = torch.nan
    image.requires_grad_()
    decoded, expected = (
        jpeg_round_trip(
            image, 50, rounding=rounding, subsampling=subsampling, upsampling=upsampling, backend=backend,
            generator=torch.Generator().manual_seed(0),
        )
        for backend in ("native", "reference")
    )  # fmt: skip
    assert 0 < expected.isnan().sum() < expected.numel() / 4
    assert torch.equal(decoded.isnan(), expected.isnan())
    assert_close(decoded.nan_to_num(), expected.nan_to_num())


def test_infinities_are_clamped():
    image = torch.rand(1, 3, 16, 16)
    image[0, 0, 3, 4], image[0, 1, 3, 4] = torch.inf, -torch.inf
    assert torch.equal(jpeg_round_trip(image, 50), jpeg_round_trip(image.clamp(0, 1), 50))


TABLES = torch.ones(1, 2, 8, 8)


@pytest.mark.parametrize(
    ("quality", "options", "error", "message"),
    [
        (0, {}, ValueError, r"quality must lie in \[1, 100\], got 0$"),
        (100.5, {}, ValueError, "got 100.5"),
        (float("nan"), {}, ValueError, "got nan"),
        (torch.tensor([50.0, 0.0]), {}, ValueError, "got 0.0 at batch index 1"),
        (torch.tensor(101), {}, ValueError, "got 101$"),
        (torch.ones(3), {}, ValueError, r"0-d or have shape \(2,\), got \(3,\)"),
        (torch.ones((), device="meta"), {}, ValueError, "quality on meta"),
        ("50", {}, TypeError, "got str"),
        (None, {}, TypeError, "got None"),
        (50, {"subsampling": "4:1:1"}, ValueError, "one of 4:4:4, 4:2:2, 4:2:0, got '4:1:1'"),
        (50, {"rounding": "floor"}, ValueError, "one of straight_through, .*, got 'floor'"),
        (50, {"upsampling": "cubic"}, ValueError, "one of fancy, nearest, got 'cubic'"),
        (None, {"quantization_tables": TABLES[0]}, ValueError, r"\(2 or 1, 2, 8, 8\), got \(2, 8, 8\)"),
        (None, {"quantization_tables": 0 * TABLES}, ValueError, r"1\.\.255, got 0.0 at index \(0, 0, 0, 0\)"),
        (None, {"quantization_tables": 256 * TABLES}, ValueError, "got 256.0"),
        (50, {"quantization_tables": -TABLES}, ValueError, "be positive, got -1.0"),
        (None, {"quantization_tables": -TABLES, "rounding": "cubic"}, ValueError, "be positive, got -1.0"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(quality, options, error, message):
    with pytest.raises(error, match=message):
        jpeg_round_trip(torch.rand(2, 3, 8, 8), quality, **options)


@pytest.mark.parametrize("image, error, message", [
    (torch.rand(2, 4, 8, 8), ValueError, r"\(N, 3, H, W\), got \(2, 4, 8, 8\)"),
    (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "got torch.uint8"),
    (torch.rand(0, 3, 8, 8), ValueError, "must not be empty"),
])  # fmt: skip
def test_wrong_images_are_named(image, error, message):
    with pytest.raises(error, match=message):
        jpeg_round_trip(image, 50)


def test_a_wrong_table_that_cannot_be_checked_makes_its_image_nan():
    image, tables = torch.rand(2, 3, 16, 16), torch.ones(2, 2, 8, 8)
    tables[1, 0, 3, 3] = torch.nan
    decoded = torch.ops.fastgan.jpeg(image, tables, None, 2, 2, True, 0, False)[0]
    assert decoded[0].isfinite().all() and decoded[1].isnan().all()


@pytest.mark.parametrize("step", [0.5, 0.6, 1.5, 2.5, 254.6, 255.4])
def test_steps_are_rounded_to_integers(step):
    image, tables = torch.rand(1, 3, 16, 16), torch.full((1, 2, 8, 8), step)
    expected = jpeg_round_trip(image, None, quantization_tables=torch.full((1, 2, 8, 8), max(1, round(step))))
    for backend in ("native", "reference"):
        decoded = jpeg_round_trip(image, None, quantization_tables=tables, backend=backend)
        assert_close(decoded, expected, rtol=0, atol=1e-6)


def test_use_chooses_the_reference():
    image = torch.rand(1, 3, 8, 8)
    with ops.use("reference"):
        expected = jpeg_round_trip(image, 50)
    assert_close(jpeg_round_trip(image, 50), expected)


def test_tables_cached_in_inference_mode_can_be_used_in_training():
    """Tables of a number are cached, but tensors made in inference mode cannot be saved for backward."""
    x, quality = torch.rand(1, 3, 16, 16), 37.25  # not used by any other test
    with torch.inference_mode():
        decoded = jpeg_round_trip(x, quality)
    for backend in (None, "reference"):
        trained = x.clone().requires_grad_()
        result = jpeg_round_trip(trained, quality, backend=backend, rounding="straight_through")
        result.sum().backward()
        assert_close(result.detach(), decoded.clone(), rtol=0, atol=1e-6)
        assert trained.grad.any()


@pytest.fixture
def gpu(monkeypatch):
    """A fake GPU for cached tables: its `stream`, and whether that is `capturing` a graph."""
    state = SimpleNamespace(stream=mock.Mock(name="first"), capturing=False, recorded=[])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state.capturing)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: state.stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: state.recorded.append(stream))
    for name in ("_cache", "_read_by_graphs"):
        monkeypatch.setattr(_jpeg_tables, name, {})
    state.cached = lambda key, tables: _jpeg_tables._cached((key,), torch.device("cuda", 0), lambda: tables)
    return state


def test_another_stream_waits_for_cached_tables(gpu):
    tables, first, second = torch.ones(1), gpu.stream, mock.Mock(name="second")
    assert gpu.cached(1, tables) is gpu.cached(1, None) is tables
    assert not first.wait_event.called and not gpu.recorded
    gpu.stream = second
    assert gpu.cached(1, None) is tables
    second.wait_event.assert_called_once_with(first.record_event())
    assert gpu.recorded == [second]


def test_a_graph_makes_no_tables_and_those_that_it_reads_stay_cached(gpu):
    before = torch.ones(1)
    gpu.cached(1, before)
    gpu.capturing = True
    assert gpu.cached(1, None) is before
    with pytest.raises(RuntimeError, match="make one call with the same quality on cuda:0 before"):
        gpu.cached(2, torch.ones(1))
    assert not gpu.stream.wait_event.called  # waiting for an event from outside would invalidate the capture
    gpu.capturing = False
    for key in range(3, 600):
        gpu.cached(key, torch.ones(1))
    after = torch.ones(1)
    assert gpu.cached(2, after) is after
    assert any(tensor is before for tensor in _jpeg_tables._read_by_graphs.values())


def test_tables_for_cuda_are_those_of_the_current_gpu(gpu, monkeypatch):
    requested = []
    monkeypatch.setattr(_jpeg_tables, "_cached", lambda key, device, make: requested.append((key, device)))
    for current in (0, 1):
        monkeypatch.setattr(torch.cuda, "current_device", lambda current=current: current)
        _jpeg_tables._standard_tables(torch.float32, torch.device("cuda"))
    assert [device.index for _, device in requested] == [0, 1]


def test_the_cache_of_tables_is_bounded():
    from fastgan.ops._jpeg_tables import _cache

    for quality in torch.linspace(1, 100, 600, dtype=torch.float64).tolist():
        jpeg_round_trip(torch.rand(1, 3, 8, 8), quality)
    assert len(_cache) <= 256


# --- values that are known exactly --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rounding", ["cubic", "at_zero"])
def test_greys_on_a_jump_follow_the_formula(rounding, dtype, backend):
    """At quality 50 luma's first step is 16, so that every second grey lies halfway between two levels."""
    grey = torch.arange(256, dtype=dtype)
    image = (grey / 255).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    decoded = jpeg_round_trip(image, 50, rounding=rounding, backend=backend)
    level = 8 * (grey - 128) / 16
    remainder = level - level.round()  # halves to even
    if rounding == "cubic":
        rounded = level.round() + remainder**3
    else:
        rounded = torch.where(level.abs() < 0.5, level**3, level)
    expected = ((rounded * 16 / 8).clamp(-128, 127) + 128) / 255
    assert_close(decoded, expected.view(-1, 1, 1, 1).expand_as(decoded), rtol=0, atol=2e-7)
    assert decoded[255].min() == 1  # white stays white


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_white_and_black_have_gradients_without_rounding(backend):
    image = torch.rand(1, 1, 24, 24).round().repeat(1, 3, 1, 1).requires_grad_()
    jpeg_round_trip(image, 50, rounding="none", subsampling="4:4:4", backend=backend)[:, 1].sum().backward()
    assert_close(image.grad[:, 1], torch.ones(1, 24, 24), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("upsampling", ["fancy", "nearest"])
@pytest.mark.parametrize("differentiate_tables", [False, True])
def test_nan_reaches_the_gradients_that_depend_on_it(rounding, subsampling, upsampling, differentiate_tables):
    image = torch.rand(2, 3, 40, 72)
    image[0, 1, 17, 20], image[1, 0, 39, 71] = torch.nan, torch.nan
    image[:, :, 30:34, 30:34] = 1.5
    image.requires_grad_()
    tables = torch.full((2, 2, 8, 8), 20.0, requires_grad=differentiate_tables)
    weight = torch.randn(image.shape)
    options = {"rounding": rounding, "subsampling": subsampling, "upsampling": upsampling}
    ours, reference = (
        value_and_gradients(image, None, tables, weight, backend, **options)
        for backend in ("native", "reference")
    )
    for actual, expected in zip(ours, reference, strict=True):
        assert torch.equal(actual.isnan(), expected.isnan())
    grad_image = ours[1]
    assert grad_image[0, 1, 17, 20].isnan() and grad_image[1, 0, 39, 71].isnan()
    assert 0 < grad_image.isnan().sum() < grad_image.numel() / 2
    assert (grad_image[:, :, 30:34, 30:34] == 0).all()  # clamped


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_truncated_levels_are_those_of_torchvision(photographs, backend, dtype, subsampling):
    to_pil_image = pytest.importorskip("torchvision.transforms.functional").to_pil_image
    images = (photographs + torch.rand_like(photographs) / 255).clamp(max=1).to(dtype)
    for image in (*images[:, :, :33, :50], torch.arange(768, dtype=dtype).view(3, 16, 16) / 767):
        buffer = io.BytesIO()
        to_pil_image(image).save(buffer, "JPEG", quality=60, subsampling=subsampling)
        expected = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
        options = {"subsampling": subsampling, "backend": backend}
        decoded = jpeg_round_trip(image[None], 60, levels="truncate", **options)[0]
        assert torch.equal((255 * decoded).round().byte(), expected)
        assert not torch.equal(decoded, jpeg_round_trip(image[None], 60, **options)[0])


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_truncated_and_rounded_levels_have_the_same_gradient(backend):
    image = (0.3 + 0.4 * torch.rand(1, 3, 24, 40)).requires_grad_()
    weight = torch.randn(image.shape)
    gradients = [
        value_and_gradients(image, 95, None, weight, backend, levels=levels)[1]
        for levels in ("round", "truncate")
    ]
    assert_close(*gradients)


def test_levels_that_would_be_ignored_are_refused():
    with pytest.raises(ValueError, match="levels='truncate' goes with .*: 'cubic' makes no whole levels"):
        jpeg_round_trip(torch.rand(1, 3, 8, 8), 50, rounding="cubic", levels="truncate")
    with pytest.raises(ValueError, match="levels must be one of round, truncate, got 'floor'"):
        jpeg_round_trip(torch.rand(1, 3, 8, 8), 50, levels="floor")


@pytest.mark.parametrize(
    "quality",
    [
        np.float32(50),
        np.float64(50),
        np.float16(50),
        np.int64(50),
        np.uint8(50),
        np.array(50),
        np.array(50.0),
    ],
)
def test_numpys_numbers_are_qualities(quality):
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(jpeg_round_trip(image, quality), jpeg_round_trip(image, 50))
    with pytest.raises(ValueError, match=r"\[1, 100\], got 101"):
        jpeg_round_trip(
            image, quality + type(quality)(51) if isinstance(quality, np.generic) else np.array(101)
        )


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("quality", [50, torch.tensor(50.0), torch.tensor([50.0])])
def test_an_image_without_a_batch_is_returned_without_one(quality, backend):
    image = torch.rand(3, 17, 20, requires_grad=True)
    decoded = jpeg_round_trip(image, quality, backend=backend)
    assert_close(decoded, jpeg_round_trip(image[None], quality, backend=backend)[0], rtol=0, atol=0)
    decoded.sum().backward()
    assert image.grad.shape == (3, 17, 20)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\), got \(4, 8, 8\)"):
        jpeg_round_trip(torch.rand(4, 8, 8), 50)


@pytest.mark.filterwarnings("ignore:jpeg runs its PyTorch reference")
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_meta_tensors_have_a_shape(rounding):
    image = torch.rand(2, 3, 17, 20, device="meta", dtype=torch.bfloat16)
    for quality in (50, torch.tensor([50.0, 60.0], device="meta")):
        decoded = jpeg_round_trip(image, quality, rounding=rounding)
        assert decoded.is_meta and decoded.shape == image.shape and decoded.dtype == image.dtype


@pytest.mark.parametrize("step", [1e-5, 1e36])
def test_any_positive_step_is_divided_by(step):
    image, tables = torch.rand(1, 3, 16, 16), torch.full((1, 2, 8, 8), step)
    decoded, expected = (
        jpeg_round_trip(image, None, quantization_tables=tables, rounding="cubic", backend=backend)
        for backend in ("native", "reference")
    )
    assert_close(decoded, expected, rtol=0, atol=1e-4)
