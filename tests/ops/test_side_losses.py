"""Adversarial losses of one side and of several scales: kernels against the float64 reference."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.testing import assert_close

from fastgan.ops.adversarial import GAMES, discriminator_loss
from fastgan.ops.side_losses import MOST, REDUCTIONS, side_losses
from tests.conftest import DEVICES
from tests.ops.layouts import exact
from tests.ops.test_adversarial import assert_near, logits

# Real and fake scales: one side, three scales of one side, both sides, more than one program of a GPU sums.
SIDES = [
    ([(1,)], []),
    ([], [(64,)]),
    ([(16, 1, 30, 30), (16, 1, 15, 15), (16, 1, 8, 8)], []),
    ([(5, 1)], [(3, 1, 7, 9), (4,)]),
    ([(40_000,)], [(20_001,), ()]),
]
LABELS = {"real_label": 0.9, "fake_label": 0.2}


def both_sides(sides, dtype=torch.float32, device="cpu"):
    return tuple([logits(shape, dtype, device) for shape in side] for side in sides)


def total(loss):
    """A number of weighted losses, so that each has a gradient of its own."""
    if isinstance(loss, torch.Tensor):
        return 3 * loss
    return sum(
        (each * torch.linspace(1, 2, each.numel(), device=each.device).view(each.shape)).sum()
        for each in loss
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("game", GAMES[:-1])
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_kernel_matches_float64_reference(device, sides, game, reduction, sign):
    inputs = both_sides(sides, device=device)
    kernel = "native" if device == "cpu" else "triton"
    wide = tuple([exact(each) for each in side] for side in inputs)
    options = {"sign": sign, "factor": 0.5, "reduction": reduction, "with_statistics": True, **LABELS}
    loss, statistics = side_losses(*inputs, game, **options, backend=kernel)
    expected, expected_statistics = side_losses(*wide, game, **options, backend="reference")
    assert_close(statistics.cpu().double(), expected_statistics, rtol=1e-6, atol=1e-6)
    assert not statistics.requires_grad and statistics.shape == (len(sides[0]) + len(sides[1]), 4)
    one_loss, one_expected = loss, expected
    if reduction != "none":
        one_loss, one_expected = [loss], [expected]
    leaves = [each for side in wide for each in side]
    count = sum(each.numel() for each in leaves) if reduction == "sum" else len(leaves)
    # Wasserstein losses are differences: the error is relative to what is subtracted.
    size = (
        0 if reduction == "none" else sum(each.detach().abs().mean() for each in leaves) * count / len(leaves)
    )
    for one, other in zip(one_loss, one_expected, strict=True):
        assert one.shape == other.shape and one.dtype == torch.float32
        assert ((one.cpu() - other).abs() <= 1e-6 * (other.abs() + size) + 1e-7).all()
    gradients = torch.autograd.grad(total(loss), [each for side in inputs for each in side])
    for one, other in zip(gradients, torch.autograd.grad(total(expected), leaves), strict=True):
        assert_near(one, other)
    without, nothing = side_losses(*inputs, game, **{**options, "with_statistics": False}, backend=kernel)
    assert nothing is None
    assert_close(without, loss, rtol=1e-6, atol=1e-6)  # other code, since it has no use for the probability


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("game", GAMES[:-1])
@pytest.mark.parametrize("labels", [{}, {"real_label": 0.0, "fake_label": 1.0}, LABELS], ids=str)
def test_few_logits_are_left_to_torch_without_a_difference(game, reduction, sign, labels):
    """The automatic choice gives values and gradients of the reference in any case."""
    for sides in SIDES:
        inputs = both_sides(sides, torch.float64)
        leaves = [each for side in inputs for each in side]
        options = {"sign": sign, "factor": 0.5, "reduction": reduction, **labels}
        loss, _ = side_losses(*inputs, game, **options)
        expected, _ = side_losses(*inputs, game, **options, backend="reference")
        assert_close(loss, expected)
        assert_close(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves))
    x = [logits((3,))]
    assert (side_losses(x, [], game)[0].grad_fn.name() == "side_lossesBackward") is False
    assert side_losses(x, [], game, backend="native")[0].grad_fn.name() == "side_lossesBackward"
    assert side_losses(x, [], game, with_statistics=True)[0].grad_fn.name() == "side_lossesBackward"


@pytest.mark.parametrize("game", GAMES[:-1])
def test_forward_mode_is_the_references(game):
    x, tangent = torch.randn(4), torch.randn(4)
    loss = lambda x: side_losses([x, x], [], game, with_statistics=True)[0]  # noqa: E731
    _, derivative = torch.func.jvp(loss, (x,), (tangent,))
    y = x.clone().requires_grad_()
    assert_close(derivative, (torch.autograd.grad(loss(y), y)[0] * tangent).sum())


@pytest.mark.parametrize("game", GAMES[:-1])
def test_both_sides_are_the_loss_of_two(game):
    real, fake = logits((16, 1, 30, 30)), logits((16, 1, 30, 30))
    loss, statistics = side_losses([real], [fake], game, with_statistics=True, **LABELS)
    expected, expected_statistics = discriminator_loss(real, fake, game, **LABELS)
    assert_close(loss, expected)
    assert_close(statistics.flatten(), expected_statistics)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_more_scales_than_one_call_takes_are_several_calls(reduction):
    real, fake = ([logits((i + 1,)) for i in range(count)] for count in (MOST + 1, 2))
    options = {"reduction": reduction, "with_statistics": True}
    loss, statistics = side_losses(real, fake, "hinge", **options)
    expected = [side_losses([each], [], "hinge", **options) for each in real]
    expected += [side_losses([], [each], "hinge", **options) for each in fake]
    if reduction == "none":
        assert_close(loss, [each[0] for each, _ in expected])
    else:
        assert_close(loss, sum(each for each, _ in expected))
    assert_close(statistics, torch.cat([each for _, each in expected]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("game", GAMES[:-1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(device, dtype, game):
    x, y = logits((300,), dtype, device), logits((40,), dtype, device)
    loss, statistics = side_losses([x, y], [], game, with_statistics=True)
    expected, _ = side_losses([exact(x), exact(y)], [], game, backend="reference")
    assert loss.dtype == statistics.dtype == torch.float32
    assert (loss.cpu() - expected).abs() <= 1e-6 * (
        expected.abs() + exact(x).abs().mean() + exact(y).abs().mean()
    )
    # As under a GradScaler: the slopes must not have vanished before they are multiplied.
    grad_x, grad_y = torch.autograd.grad(loss, (x, y), torch.tensor(2.0**14, device=device))
    assert grad_x.dtype == grad_y.dtype == dtype
    (wanted,) = torch.autograd.grad(2**14 * side_losses([z := exact(x)], [], game, backend="reference")[0], z)
    assert_close(grad_x.cpu().double(), wanted, rtol=2.0**-7, atol=1e-6)


def test_types_may_differ_between_scales():
    x, y = logits((30,), torch.bfloat16), logits((40,))
    loss, _ = side_losses([x, y], [], "cross_entropy")
    expected = [side_losses([each], [], "cross_entropy")[0] for each in (x, y)]
    assert_close(loss, expected[0] + expected[1])
    assert_close(torch.autograd.grad(loss, (x, y))[0], torch.autograd.grad(expected[0], x)[0])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_one_float64_of_many_scales_makes_all_losses_float64(reduction):
    real = [logits((i + 1,)) for i in range(MOST)] + [logits((3,), torch.float64)]
    loss, statistics = side_losses(real, [], "cross_entropy", reduction=reduction, with_statistics=True)
    options = {"reduction": reduction, "backend": "reference"}
    expected, _ = side_losses([each.double() for each in real], [], "cross_entropy", **options)
    assert_close(loss, expected)  # dtypes included
    assert statistics.dtype == torch.float64
    total = sum(each.sum() for each in loss) if reduction == "none" else loss
    grads = torch.autograd.grad(total, real)
    assert [each.dtype for each in grads] == [each.dtype for each in real]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("game", GAMES[:-1])
def test_gradients_of_every_order(game, reduction, sign):
    inputs = tuple(logits(shape, torch.float64) for shape in ((5, 1), (3,), (2, 2)))

    def loss(x, y, z):
        options = {"sign": sign, "factor": 0.5, "reduction": reduction, "with_statistics": True, **LABELS}
        value, _ = side_losses([x, y], [z], game, **options, backend="native")
        return value if reduction != "none" else torch.cat([each.flatten() for each in value])

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(lambda *inputs: loss(*inputs) ** 2, inputs)


def test_only_one_scale_may_require_grad():
    x, y = logits((6,)), logits((7,)).detach()
    for game in GAMES[:-1]:
        loss, _ = side_losses([x, y], [], game, backend="native")
        expected, _ = side_losses([x, y], [], game, backend="reference")
        assert_close(torch.autograd.grad(loss, x)[0], torch.autograd.grad(expected, x)[0])


def test_a_retained_graph_gives_the_same_gradient_twice():
    x, y = logits((6,)), logits((7,))
    loss, _ = side_losses([x, y], [], "hinge", backend="native")
    first = torch.autograd.grad(loss, (x, y), torch.tensor(2.0), retain_graph=True)
    second = torch.autograd.grad(loss, (x, y), torch.tensor(2.0))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_same_bits_for_any_number_of_threads():
    sides = [logits((70_000,)), logits((5_001,))], [logits((50_001,))]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            loss, statistics = side_losses(*sides, "cross_entropy", with_statistics=True)
            results.append((loss, statistics, *torch.autograd.grad(loss, [*sides[0], *sides[1]])))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@pytest.mark.parametrize("backend", ["native", "reference", None])
@pytest.mark.parametrize(("game", "slope"), [
    ("cross_entropy", torch.nan), ("least_squares", torch.nan), ("hinge", torch.nan), ("wasserstein", -0.5),
])  # fmt: skip
def test_nan_in_a_logit_is_nan_in_its_gradient_alone(game, slope, backend):
    x, y = torch.tensor([torch.nan, 0.3], requires_grad=True), torch.tensor([0.1], requires_grad=True)
    loss, statistics = side_losses([x, y], [], game, with_statistics=True, backend=backend)
    grad_x, grad_y = torch.autograd.grad(loss, (x, y))
    assert loss.isnan() and statistics[0, 0].isnan() and not statistics[1].isnan().any()
    assert grad_x[1].isfinite() and grad_y.isfinite().all()
    assert_close(grad_x[0].item(), slope, equal_nan=True)


@pytest.mark.parametrize("backend", ["native", "reference", None])
def test_cross_entropy_of_infinite_logits_is_the_limit(backend):
    for logit, loss, slope in ((torch.inf, 0.0, 0.0), (-torch.inf, torch.inf, -1.0)):
        x = torch.tensor([logit], requires_grad=True)
        value, _ = side_losses([x], [], "cross_entropy", backend=backend)
        assert value.item() == loss and torch.autograd.grad(value, x)[0].item() == slope


def test_opcheck_and_compile():
    x, y = logits((6, 1)), logits((2, 3))
    for game, reduction in itertools.product(range(len(GAMES) - 1), range(len(REDUCTIONS))):
        arguments = ([x, y], 1, game, -1.0, 0.9, 0.0, 0.5, reduction, True, True)
        torch.library.opcheck(torch.ops.fastgan.side_losses.default, arguments)
    for reduction in REDUCTIONS:
        step = lambda x, y: total(side_losses([x], [y], "hinge", reduction=reduction)[0])  # noqa: B023, E731
        expected = torch.autograd.grad(step(x, y), (x, y))
        actual = torch.autograd.grad(torch.compile(step, fullgraph=True)(x, y), (x, y))
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other)


def test_a_penalty_through_it_matches_double_backward():
    """The squared norm of the loss's gradient, as of R1, differentiated with respect to weights."""
    weight = torch.randn(6, requires_grad=True)
    x = torch.randn(8, 6, requires_grad=True)
    gradients = []
    for backend in ("native", "reference"):
        loss, _ = side_losses([(x @ weight).tanh()], [], "cross_entropy", backend=backend)
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        gradients.append(torch.autograd.grad(gradient.square().sum(), weight)[0])
    assert_close(*gradients)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_vmap_is_call_by_call(reduction):
    x, y = torch.randn(3, 5), torch.randn(4)
    for backend in ("native", None):

        def loss(x, backend=backend):
            options = {"reduction": reduction, "with_statistics": True, "backend": backend}
            value, statistics = side_losses([x, y], [], "cross_entropy", **options)
            return tuple(value) if reduction == "none" else value, statistics

        together, each = torch.vmap(loss)(x), [loss(one) for one in x]
        for i in range(3):
            one, other = torch.utils._pytree.tree_map(lambda t: t[i], together), each[i]  # noqa: B023
            assert_close(one[1], other[1])
            if reduction != "none":
                assert_close(one[0], other[0])


def test_errors_name_what_is_wrong():
    x = torch.rand(3)
    with pytest.raises(
        ValueError, match="game must be one of cross_entropy, .*wasserstein, got 'relativistic'"
    ):
        side_losses([x], [], "relativistic")
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'median'"):
        side_losses([x], [], "hinge", reduction="median")
    with pytest.raises(ValueError, match="real_logits or fake_logits must be given, got no logits"):
        side_losses([], [], "hinge")
    with pytest.raises(ValueError, match=r"scores\[1\] must not be empty, got shape \(0,\)"):
        side_losses([], [x, x[:0]], "hinge", names=("real", "scores"))
    with pytest.raises(TypeError, match="fake_logits must be a floating-point tensor"):
        side_losses([x], [x.long()], "hinge")
    with pytest.raises(ValueError, match="one device, got real_logits on cpu, fake_logits on meta"):
        side_losses([x], [x.to("meta")], "hinge")


def test_logits_of_inference_mode_stand_beside_others():
    with torch.inference_mode():
        real = torch.randn(5, 1)
    fake = torch.randn(5, 1, requires_grad=True)
    for game in GAMES[:-1]:
        loss, _ = side_losses([real], [fake], game, backend="native")
        expected, _ = side_losses([real], [fake], game, backend="reference")
        assert_close(torch.autograd.grad(loss, fake)[0], torch.autograd.grad(expected, fake)[0])
