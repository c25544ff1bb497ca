"""L1 of lists of feature maps: the kernel against float64, gradients, transforms, errors."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fastgan.ops.feature_matching import MOST, SEGMENT, _feature_matching, feature_matching
from fastgan.reference.feature_matching import feature_matching as reference
from tests.conftest import DEVICES
from tests.ops.layouts import DTYPES, LAYOUTS, exact, image, relative_error

# Maps that fill segments and chunks partly, and one that fills two.
SIZES = [(2, 17, 33), (1, 1, 1), (1, 128, 128), (3, 41, 29)]


def pairs(sizes=SIZES, dtype=torch.float32, device="cpu", layout="contiguous"):
    """(fake, real, weights)"""
    fake, real = ([image(size, dtype, device, layout, 2) for size in sizes] for _ in "fr")
    return fake, real, [0.5 * i - 0.7 for i in range(len(sizes))]


def results(function, fake, real, weights, **options):
    loss = function(fake, real, weights, **options)
    return loss, torch.autograd.grad(loss, fake)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 2, 4, MOST, MOST + 3])
def test_kernel_matches_the_formula_in_float64(device, count):
    fake, real, weights = pairs([SIZES[i % 4] for i in range(count)], device=device)
    loss, gradients = results(feature_matching, fake, real, weights)
    wide = [exact(each) for each in fake]
    expected, wide_gradients = results(reference, wide, [exact(each) for each in real], weights)
    assert loss.dtype == torch.float32 and loss.shape == ()
    assert_close(loss.cpu().double(), expected, rtol=1e-6, atol=1e-7)
    for ours, theirs in zip(gradients, wide_gradients, strict=True):
        assert relative_error(ours, theirs) <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_type(device, layout, dtype):
    if dtype == torch.float64 and device == "cuda":
        pytest.skip("GPU kernels take no float64")
    fake, real, weights = pairs([(2, 5, 7), (3, 91, 77)], dtype, device, layout)
    weights = [1000 * weight for weight in weights]  # for gradients that are normal numbers in float16
    for reals in (real, [each.detach().contiguous().float() for each in real]):
        loss, gradients = results(feature_matching, fake, reals, weights)
        expected, wide_gradients = results(
            reference, [exact(x) for x in fake], [exact(x) for x in reals], weights
        )
        assert_close(loss.cpu().double(), expected, rtol=1e-6, atol=1e-7)
        for ours, theirs, leaf in zip(gradients, wide_gradients, fake, strict=True):
            assert ours.dtype == leaf.dtype and ours.shape == leaf.shape
            assert relative_error(ours, theirs) <= max(1e-6, torch.finfo(dtype).eps)
            if layout in ("contiguous", "channels_last"):
                assert ours.stride() == leaf.stride()


def test_half_gradients_that_are_smaller_than_its_normal_numbers():
    """A scaler's factor is part of the incoming gradient, before which nothing may underflow."""
    fake, real, _ = pairs([(1, 200, 200)], torch.float16)
    loss = feature_matching(fake, real, [1e-4])
    (gradient,) = torch.autograd.grad(loss, fake, torch.tensor(65536.0))
    assert_close(gradient.abs().max().item(), 65536e-4 / fake[0].numel(), rtol=1e-3, atol=0)


def test_types_may_differ_between_maps():
    fake, real, weights = pairs()
    fake[1], fake[3] = (each.detach().bfloat16().requires_grad_() for each in (fake[1], fake[3]))
    real[0] = real[0].detach().double()
    loss, gradients = results(feature_matching, fake, real, weights)
    expected, wide_gradients = results(reference, [exact(x) for x in fake], [exact(x) for x in real], weights)
    assert loss.dtype == torch.float64
    assert_close(loss, expected, rtol=1e-6, atol=1e-7)
    for ours, theirs, leaf in zip(gradients, wide_gradients, fake, strict=True):
        assert ours.dtype == leaf.dtype and relative_error(ours, theirs) <= 4e-3


def test_real_features_are_constants_and_some_fakes_may_be():
    fake, real, weights = pairs()
    fake[1] = fake[1].detach()
    loss = feature_matching(fake, real, weights)
    gradients = torch.autograd.grad(loss, [*fake[:1], *fake[2:], *real], allow_unused=True)
    assert all(gradient is not None for gradient in gradients[:3])
    assert all(gradient is None for gradient in gradients[3:])
    constants = [each.detach() for each in fake]
    assert not feature_matching(constants, real, weights).requires_grad
    assert_close(feature_matching(constants, real, weights), loss.detach())


def test_gradients_of_every_order():
    fake, real, weights = pairs([(1, 2, 3), (2, 1, 4)], torch.float64)
    function = lambda *fake: feature_matching(fake, real, weights)  # noqa: E731
    assert torch.autograd.gradcheck(function, fake)
    assert torch.autograd.gradgradcheck(lambda *fake: function(*fake).square(), fake)


def test_equal_features_have_no_slope_and_that_of_nan_is_nan():
    fake = [torch.tensor([1.0, 2.0, torch.nan, torch.inf]).requires_grad_()]
    for backend in (None, "reference"):
        loss = feature_matching(fake, [torch.tensor([1.0, 3.0, 0.0, torch.inf])], [1.0], backend=backend)
        assert loss.isnan()
        (gradient,) = torch.autograd.grad(loss, fake)
        assert_close(gradient, torch.tensor([0.0, -0.25, torch.nan, torch.nan]), equal_nan=True)


def test_a_byte_is_kept_for_each_element():
    fake, real, weights = pairs([(1, 128, 128)])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        feature_matching(fake, real, weights)
    assert sum(x.nbytes for x in kept) <= fake[0].numel() + SEGMENT
    with torch.no_grad():
        assert _feature_matching(fake, real, weights, SEGMENT, False)[1].numel() == 0


def test_same_bits_for_any_number_of_threads():
    threads = torch.get_num_threads()
    (fake, real, weights), outcomes = pairs([(2, 203, 311), (1, 99, 98)]), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            loss, gradients = results(feature_matching, fake, real, weights)
            outcomes.append((loss, *gradients))
    finally:
        torch.set_num_threads(threads)
    for outcome in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcome, outcomes[0], strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype):
    forward = torch.ops.fastgan.feature_matching.default
    backward = torch.ops.fastgan.feature_matching_backward.default
    for layout in ("contiguous", "channels_last"):
        fake, real, weights = pairs([(2, 5, 6), (1, 9, 9)], dtype, layout=layout)
        real = [each.detach() for each in real]
        torch.library.opcheck(forward, (fake, real, weights, SEGMENT, True))
        with torch.no_grad():
            _, signs, slopes = forward(fake, real, weights, SEGMENT, True)
        grad = torch.rand((), dtype=slopes.dtype, requires_grad=True)
        torch.library.opcheck(backward, (signs, slopes, grad, dtype))


def test_under_compile_and_functorch():
    fake, real, weights = pairs([(2, 5, 7), (3, 9, 9)])

    def loss(*fake):
        return feature_matching(fake, real, weights).square()

    expected = torch.autograd.grad(loss(*fake), fake)
    assert_close(torch.autograd.grad(torch.compile(loss, fullgraph=True)(*fake), fake), expected)
    constants = [each.detach() for each in fake]
    assert_close(torch.func.grad(loss, (0, 1))(*constants), expected)
    several = torch.stack([constants[0], -constants[0]])
    inside = torch.vmap(torch.func.grad(loss, (0, 1)), (0, None))(several, constants[1])
    leaf = several.clone().requires_grad_()
    outside = torch.autograd.grad(torch.vmap(loss, (0, None))(leaf, constants[1]).sum(), leaf)[0]
    for number, of_call in enumerate(several):
        leaves = of_call.clone().requires_grad_(), fake[1]
        of_one = torch.autograd.grad(loss(*leaves), leaves)
        assert_close([gradient[number] for gradient in inside], list(of_one))
        assert_close(outside[number], of_one[0])


def test_a_batch_of_gradients():
    fake, real, weights = pairs([(2, 5, 7), (3, 9, 9)])
    loss = feature_matching(fake, real, weights)
    batched = torch.autograd.grad(
        loss, fake, torch.tensor([1.0, -2.0]), is_grads_batched=True, retain_graph=True
    )
    expected = torch.autograd.grad(loss, fake)
    for ours, theirs in zip(batched, expected, strict=True):
        assert_close(ours, torch.stack([theirs, -2 * theirs]))


X, Y = torch.rand(2, 3), torch.rand(2, 3)


@pytest.mark.parametrize(
    ("fake", "real", "weights", "error", "message"),
    [
        ([], [], [], ValueError, "must have as many items, at least one, got 0, 0 and 0"),
        ([X], [X, Y], [1.0], ValueError, "got 1, 2 and 1"),
        ([X], [Y], [1.0, 2.0], ValueError, "got 1, 1 and 2"),
        ([X, None], [X, Y], [1.0, 1.0], TypeError, r"fake\[1\] must be a floating-point tensor, got None"),
        ([X], [Y.long()], [1.0], TypeError, r"real\[0\] must be a floating-point tensor, got torch.int64"),
        ([X], [Y.T], [1.0], ValueError, r"fake\[0\] and real\[0\] must have the same shape, got \(2, 3\)"),
        ([X[:0]], [Y[:0]], [1.0], ValueError, r"fake\[0\] must not be empty, got shape \(0, 3\)"),
        ([X], [Y], [float("nan")], ValueError, "weights must be finite, got nan"),
        ([X, X.to("meta")], [Y, Y.to("meta")], [1.0, 1.0], ValueError, r"one device, got fake\[0\] on cpu"),
    ],
)
def test_errors(fake, real, weights, error, message):
    with pytest.raises(error, match=message):
        feature_matching(fake, real, weights)
