"""Gram matrices and weighted sums of gradients: the kernel against float64, gradients, transforms, errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from fastgan import ops
from fastgan.ops import gradient_budget
from tests.conftest import DEVICES
from tests.ops.layouts import DTYPES, LAYOUTS, exact, image, relative_error

# Sizes and numbers of gradients that leave blocks, chunks, vectors and groups of rows partly filled.
SIZES = [(1, 1, 1), (5, 3, 7), (3, 17, 33), (2, 75, 71)]
COUNTS = [1, 2, 3, 4, 5, 6, 9, 16]


def gradients_of(count, size=(2, 5, 6), dtype=torch.float32, device="cpu", layout="contiguous", channels=3):
    """Gradients of both signs."""
    images = (image(size, dtype, device, layout, channels) for _ in range(count))
    return [(x.detach() - 0.5).requires_grad_() for x in images]


def weights_of(gradients):
    dtype = torch.promote_types(gradients[0].dtype, torch.float32)
    return torch.linspace(-1, 2, len(gradients), dtype=dtype, device=gradients[0].device).requires_grad_()


def expected_of(gradients, weights=None):
    """From the formula, in float64."""
    rows = torch.stack([exact(gradient).detach().flatten() for gradient in gradients])
    factors = torch.ones(len(rows)) if weights is None else weights.detach().cpu()
    return rows @ rows.T, (factors.double() @ rows).view_as(gradients[0])


def assert_near(actual, expected, tolerance=1e-6):
    """Inner products of gradients of both signs are small beside the norms."""
    scale = expected.detach().abs().max().clamp(min=1e-30)
    assert (actual.detach().cpu().double() - expected.detach()).abs().max() <= tolerance * scale


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_kernel_matches_the_formula_in_float64(device, count, size):
    gradients = gradients_of(count, size, device=device)
    for weights in (None, weights_of(gradients)):
        gram, total = gradient_budget(gradients, weights)
        expected_gram, expected_total = expected_of(gradients, weights)
        assert gram.dtype == torch.float32 and gram.shape == (count, count)
        assert_near(gram, expected_gram)
        assert relative_error(total, expected_total) <= 1e-6
        assert torch.equal(gram, gram.T)


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_is_the_formula(dtype, count):
    gradients = gradients_of(count, (2, 17, 13), dtype)
    for weights in (None, weights_of(gradients)):
        gram, total = gradient_budget(gradients, weights, backend="reference")
        expected_gram, expected_total = expected_of(gradients, weights)
        tolerance = 1e-12 if dtype == torch.float64 else 1e-6
        assert gram.dtype == torch.promote_types(dtype, torch.float32) and total.dtype == dtype
        assert torch.equal(gram, gram.T)
        assert_near(gram, expected_gram, tolerance)
        assert relative_error(total, expected_total) <= max(tolerance, torch.finfo(dtype).eps)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["kernel", "reference"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(device, backend, layout):
    gradients = gradients_of(5, (3, 17, 33), device=device, layout=layout)
    gram, total = gradient_budget(gradients, backend=None if backend == "kernel" else backend)
    expected_gram, expected_total = expected_of(gradients)
    assert_near(gram, expected_gram)
    assert_near(total, expected_total)
    if layout in ("contiguous", "channels_last"):
        assert total.stride() == gradients[0].stride()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("first", LAYOUTS)
def test_gradients_of_different_layouts(device, first):
    layouts = [first, *(layout for layout in LAYOUTS if layout != first)]
    gradients = [gradients_of(1, (3, 7, 9), device=device, layout=layout)[0] for layout in layouts]
    gradients.append(gradients[1].detach().transpose(2, 3).contiguous().transpose(2, 3))
    gram, total = gradient_budget(gradients)
    expected_gram, expected_total = expected_of(gradients)
    assert_near(gram, expected_gram)
    assert_near(total, expected_total)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 4, 1, 1), (2, 3, 4, 5, 6)])
def test_any_number_of_dimensions(shape):
    gradients = [torch.randn(shape) for _ in range(3)]
    gram, total = gradient_budget(gradients)
    assert_near(gram, expected_of(gradients)[0])
    assert_close(total, gradients[0] + gradients[1] + gradients[2])


def test_what_shares_a_dense_layout_is_not_copied():
    """Neither does a stride of a dimension of one element make a layout another."""
    alike = torch.rand(2, 1, 5, 6), torch.rand(2, 1, 5, 6).to(memory_format=torch.channels_last)
    lasts = [torch.rand(2, 3, 5, 6).to(memory_format=torch.channels_last) for _ in range(3)]
    turned = [torch.rand(5, 7, 3).permute(2, 0, 1) for _ in range(2)]
    for gradients in (alike, lasts, turned):
        with torch.profiler.profile() as profiler:
            gradient_budget(gradients)
        names = {event.key for event in profiler.key_averages()}
        assert "fastgan::gradient_budget" in names and not {"aten::copy_", "aten::clone"} & names


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [3, 6])
def test_half_types_accumulate_in_float32_and_round_once(device, dtype, count):
    gradients = gradients_of(count, (3, 60, 50), dtype, device)
    weights = weights_of(gradients)
    gram, total = gradient_budget(gradients, weights)
    expected_gram, expected_total = expected_of(gradients, weights)
    assert gram.dtype == torch.float32 and total.dtype == dtype
    assert_near(gram, expected_gram)
    error = (total.detach().cpu().double() - expected_total).abs()
    half_an_ulp = 0.5001 * torch.finfo(dtype).eps * expected_total.abs().clamp(min=1e-3)
    assert (error <= half_an_ulp + 1e-6).all()


@pytest.mark.parametrize("count", [1, 3, 6])
def test_gradients_of_every_order(count):
    gradients = gradients_of(count, (1, 2, 3), torch.float64, channels=1)
    weights = weights_of(gradients)
    weighted = lambda weights, *gradients: gradient_budget(gradients, weights)  # noqa: E731
    plain = lambda *gradients: gradient_budget(gradients)  # noqa: E731
    for function, inputs in ((weighted, (weights, *gradients)), (plain, gradients)):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("which", ["gram", "total", "both"])
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_each_output_match_the_reference(device, which):
    def loss(gradients, weights, backend=None):
        gram, total = gradient_budget(gradients, weights, backend=backend)
        factors = torch.arange(1.0, 10.0, device=gram.device).view(3, 3)  # not symmetric
        return (which != "total") * (factors * gram.square()).sum() + (which != "gram") * total.cos().sum()

    for weighted in (False, True):
        gradients = gradients_of(3, (2, 5, 7), device=device)
        weights = weights_of(gradients) if weighted else None
        leaves = [*gradients[:2], *([weights] if weighted else [])]  # not the third gradient
        gradients[2] = gradients[2].detach()
        actual = torch.autograd.grad(loss(gradients, weights), leaves, allow_unused=True)
        wide = [exact(gradient) for gradient in gradients]
        wide_weights = exact(weights) if weighted else None
        wide_leaves = [*wide[:2], *([wide_weights] if weighted else [])]
        expected = torch.autograd.grad(loss(wide, wide_weights, "reference"), wide_leaves, allow_unused=True)
        for ours, theirs in zip(actual, expected, strict=True):
            if theirs is None or not theirs.any():  # the gram does not depend on weights
                assert ours is None or not ours.any()
            else:
                assert relative_error(ours, theirs) <= 1e-5


def test_sixteen_gradients_have_gradients():
    gradients = gradients_of(16, (1, 3, 5))
    weights = weights_of(gradients)
    gram, total = gradient_budget(gradients, weights)
    actual = torch.autograd.grad(gram.square().sum() + total.square().sum(), (weights, *gradients))
    wide, wide_weights = [exact(gradient) for gradient in gradients], exact(weights)
    gram, total = gradient_budget(wide, wide_weights, backend="reference")
    expected = torch.autograd.grad(gram.square().sum() + total.square().sum(), (wide_weights, *wide))
    for ours, theirs in zip(actual, expected, strict=True):
        assert relative_error(ours, theirs) <= 1e-5


def test_no_graph_where_no_gradient_is_wanted():
    gradients = [gradient.detach() for gradient in gradients_of(3)]
    assert not any(output.requires_grad for output in gradient_budget(gradients))
    gradients[1].requires_grad_()
    with torch.no_grad():
        assert not any(output.requires_grad for output in gradient_budget(gradients))
    assert all(output.requires_grad for output in gradient_budget(gradients))


def test_one_tensor_more_than_once():
    x = torch.randn(7, requires_grad=True)
    gram, total = gradient_budget([x, x])
    assert_close(gram, x.square().sum().expand(2, 2))
    assert_close(total, 2 * x)
    assert_close(torch.autograd.grad(gram.sum() + total.sum(), x)[0], 8 * x + 2)


def test_same_bits_for_any_number_of_threads():
    threads = torch.get_num_threads()
    for count in (3, 7):
        gradients, results = gradients_of(count, (3, 203, 311)), []
        try:
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                results.append(gradient_budget(gradients, weights_of(gradients)))
        finally:
            torch.set_num_threads(threads)
        for gram, total in results[1:]:
            assert torch.equal(gram, results[0][0]) and torch.equal(total, results[0][1])


@pytest.mark.parametrize("backend", [None, "reference"])
def test_nan_and_infinity_propagate(backend):
    gradients = [torch.ones(2000) for _ in range(6)]
    gradients[1][3], gradients[4][1999] = math.nan, math.inf
    gram, total = gradient_budget(gradients, backend=backend)
    of_nan = torch.tensor([i == 1 or j == 1 for i in range(6) for j in range(6)]).view(6, 6)
    of_infinity = torch.tensor([i == 4 or j == 4 for i in range(6) for j in range(6)]).view(6, 6) & ~of_nan
    assert gram[of_nan].isnan().all() and gram[of_infinity].isposinf().all()
    assert (gram[~(of_nan | of_infinity)] == 2000).all()
    assert total[3].isnan() and total[1999].isposinf() and (total[4:1999] == 6).all()


def test_products_beyond_float32_that_cancel():
    """The kernel sums in float64 where a part of the sum overflows."""
    a, b = torch.full((2, 4000), 1e25)
    b[::2] *= -1
    gram, total = gradient_budget([a, b])
    assert gram.tolist() == [[math.inf, 0.0], [0.0, math.inf]]
    assert_close(total, a + b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype):
    op = torch.ops.fastgan.gradient_budget.default
    for layout in LAYOUTS:
        gradients = gradients_of(3, (2, 5, 6), dtype, layout=layout)
        torch.library.opcheck(op, (gradients, weights_of(gradients)))
    torch.library.opcheck(op, (gradients_of(5, dtype=dtype), None))


def test_under_compile():
    gradients = gradients_of(3)
    weights = weights_of(gradients)

    def loss(gradients, weights):
        gram, total = gradient_budget(gradients, weights)
        return gram.square().sum() + total.square().sum()

    expected = torch.autograd.grad(loss(gradients, weights), (*gradients, weights))
    compiled = torch.compile(loss, fullgraph=True)
    assert_close(torch.autograd.grad(compiled(gradients, weights), (*gradients, weights)), expected)


def test_under_functorch():
    gradients = [gradient.detach() for gradient in gradients_of(3)]
    weights = weights_of(gradients).detach()

    def loss(weights, *gradients):
        gram, total = gradient_budget(gradients, weights)
        return gram.square().sum() + total.square().sum()

    leaves = [tensor.clone().requires_grad_() for tensor in (weights, *gradients)]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    assert_close(torch.func.grad(loss, (0, 1, 2, 3))(weights, *gradients), expected)
    # Batched in some arguments, with gradients in and around the batch.
    several = torch.stack([gradients[1], 2 * gradients[1]])
    per_call = torch.vmap(torch.func.grad(loss, (0, 2)), (None, None, 0, None))(
        weights, gradients[0], several, gradients[2]
    )
    leaf = several.clone().requires_grad_()
    losses = torch.vmap(loss, (None, None, 0, None))(weights, gradients[0], leaf, gradients[2])
    around = torch.autograd.grad(losses.sum(), leaf)[0]
    for number, of_call in enumerate(several):
        leaves = [weights.clone().requires_grad_(), of_call.clone().requires_grad_()]
        value = loss(leaves[0], gradients[0], leaves[1], gradients[2])
        expected = torch.autograd.grad(value, leaves)
        assert_close(losses[number], value)
        assert_close([gradient[number] for gradient in per_call], list(expected))
        assert_close(around[number], expected[1])


def test_a_batch_of_gradients():
    gradients = gradients_of(2)
    gram, total = gradient_budget(gradients, weights_of(gradients))
    grads = torch.rand(3, 2, 2), torch.rand(3, *total.shape)
    actual = torch.autograd.grad((gram, total), gradients, grads, is_grads_batched=True, retain_graph=True)
    for number in range(3):
        of_one = tuple(grad[number] for grad in grads)
        expected = torch.autograd.grad((gram, total), gradients, of_one, retain_graph=True)
        assert_close([gradient[number] for gradient in actual], list(expected))


def test_under_autocast():
    gradients = gradients_of(3)
    expected = gradient_budget(gradients)
    for backend in (None, "reference"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_close(gradient_budget(gradients, backend=backend), expected)


ONE, TWO = torch.rand(2, 3), torch.rand(2, 3)


@pytest.mark.parametrize(
    ("gradients", "weights", "error", "message"),
    [
        ([], None, ValueError, "gradients must be 1 to 16 tensors, got a list of 0"),
        ([ONE] * 17, None, ValueError, "gradients must be 1 to 16 tensors, got a list of 17"),
        (ONE, None, TypeError, "must be a list or tuple of tensors, got torch.float32 of shape"),
        (None, None, TypeError, "gradients must be a list or tuple of tensors, got None"),
        ([ONE, None], None, TypeError, r"gradients\[1\] must be a floating-point tensor, got None"),
        ([ONE, ONE.long()], None, TypeError, r"gradients\[1\] must be a floating-point .*torch.int64 of"),
        ([ONE, ONE.to_sparse()], None, TypeError, r"gradients\[1\] must be a dense tensor"),
        ([ONE, TWO, ONE.T], None, ValueError,
         r"same shape, got \(2, 3\) of gradients\[0\] and \(3, 2\) of gradients\[2\]"),
        ([ONE, TWO.double()], None, TypeError,
         r"same dtype, got torch.float32 of gradients\[0\] and torch.float64 of gradients\[1\]"),
        ([ONE, TWO.to("meta")], None, ValueError, r"gradients\[0\] on cpu, gradients\[1\] on meta"),
        ([ONE[:0], TWO[:0]], None, ValueError, r"gradients must not be empty, got shape \(0, 3\)"),
        ([ONE, TWO], 0.5, TypeError, "weights must be a floating-point tensor, got float 0.5"),
        ([ONE, TWO], [1.0, 2.0], TypeError, "weights must be a floating-point tensor, got list"),
        ([ONE, TWO], torch.ones(2).double(), TypeError,
         "weights must be torch.float32 for gradients of torch.float32, got torch.float64"),
        ([ONE.double()], torch.ones(1), TypeError,
         "weights must be torch.float64 for gradients of torch.float64, got torch.float32"),
        ([ONE, TWO], torch.ones(3), ValueError, r"weights must have shape \(2,\), .*got \(3,\)"),
        ([ONE, TWO], torch.ones(()), ValueError, r"weights must have shape \(2,\), .*got \(\)"),
        ([ONE, TWO], torch.ones(2, device="meta"), ValueError, "gradients on cpu, weights on meta"),
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong(gradients, weights, error, message):
    with pytest.raises(error, match=message):
        ops.gradient_budget(gradients, weights)
