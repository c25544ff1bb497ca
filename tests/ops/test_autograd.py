"""Every path into an op: plain eager calls, dispatch modes, subclasses, and transforms."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from fastgan.losses import AdversarialLoss, ms_ssim_loss, ssim_loss, yuv_color_l2
from fastgan.ops import (
    bias_leaky_relu,
    feature_distance,
    jpeg_round_trip,
    lpips_head,
    perspective_warp,
    photometric,
    pixel_loss,
    squared_norm,
    yuv_l2,
)
from fastgan.ops.squared_norm import _squared_norm
from fastgan.reference import jpeg as jpeg_reference
from tests.support_cases import CASES


@pytest.fixture
def x():
    return torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)


def test_all_paths_give_the_same_gradient(x):
    (plain,) = torch.autograd.grad(squared_norm(x).sum(), x)
    (registered,) = torch.autograd.grad(torch.ops.fastgan.squared_norm(x).sum(), x)
    transformed = torch.func.grad(lambda y: squared_norm(y).sum())(x.detach())
    torch.testing.assert_close(plain, registered, rtol=0, atol=0)
    torch.testing.assert_close(plain, transformed, rtol=0, atol=0)


def test_no_graph_without_a_gradient(x):
    assert squared_norm(x).grad_fn is not None
    assert squared_norm(x.detach()).grad_fn is None
    with torch.no_grad():
        assert not squared_norm(x).requires_grad


def test_modes_intercept_the_op(x):
    """Dispatch modes, such as tracers and flop counters, intercept the op."""
    intercepted = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            intercepted.append(str(function))
            return function(*args, **(kwargs or {}))

    with Recorder():
        squared_norm(x).sum().backward()
    assert "fastgan.squared_norm.default" in intercepted
    with FlopCounterMode(display=False):
        torch.testing.assert_close(squared_norm(x), x.detach().square().sum((1, 2)))


def test_subclasses_reach_their_own_dispatch(x):
    calls = []

    class Logged(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            calls.append(str(function))
            return super().__torch_function__(function, types, args, kwargs or {})

    _squared_norm(x.detach().as_subclass(Logged))
    assert any("squared_norm" in call for call in calls)


def test_forward_mode_is_refused_instead_of_dropped(x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.detach(), torch.ones_like(x))
        with pytest.raises(NotImplementedError, match="squared_norm has no forward-mode derivative"):
            squared_norm(dual)
        with pytest.raises(NotImplementedError, match="backend='reference'"):
            AdversarialLoss("bce").discriminator(dual, dual)
        assert forward_ad.unpack_dual(squared_norm(dual, backend="reference")).tangent is not None
        squared_norm(x)


# The others differentiate a network, whose weights torch.jit.trace takes for constants.
TRACED = [case for case in CASES if case.name not in ("r1_penalty_of", "gradient_penalty", "R1")]


@pytest.mark.parametrize("case", TRACED, ids=str)
@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_a_trace_of_torch_jit_has_the_values_and_gradients(case):
    """Traced with gradients, it is compared with a trace that torch makes without."""
    of_leaves, tensors = case.function(), case.tensors((2, 32, 31), grad=True)
    # The arguments themselves require grad in both traces, what is computed from them in one.
    function = lambda *tensors: of_leaves(*(x.clone() for x in tensors))  # noqa: E731
    results = []
    for call in (torch.jit.trace(function, tuple(tensors)), function):
        torch.manual_seed(0)
        y = call(*tensors)
        leaves = [x for x in tensors if x.requires_grad]
        results.append((y, *(torch.autograd.grad(y.sum(), leaves) if leaves else ())))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: ssim_loss(x, y, window_size=5),
        lambda x, y: ms_ssim_loss(x, y, weights=(0.5, 0.5), window_size=5),
        lambda x, y: pixel_loss(x, y, kind="charbonnier")[0],
        lambda x, y: pixel_loss(x, y, tv_weight=0.5)[0],
        lambda x, y: yuv_l2(x, y)[0],
        lambda x, y: feature_distance(x, y).sum(),
    ],
    ids=["ssim", "ms_ssim", "pixel_loss", "pixel_loss tv", "yuv_l2", "feature_distance"],
)
@pytest.mark.parametrize("index", [0, 1])
def test_func_grad_where_the_other_argument_requires_grad_outside(loss, index):
    images = [torch.rand(2, 3, 17, 16) for _ in range(2)]
    expected = torch.func.grad(loss, argnums=index)(*images)
    images[1 - index].requires_grad_()
    actual = torch.func.grad(loss, argnums=index)(*images)
    torch.testing.assert_close(actual.detach(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)], ids=str)
@pytest.mark.parametrize("needed", [(False, True), (True, False), (True, True)], ids=str)
@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: yuv_l2(x, y)[0],
        lambda x, y: pixel_loss(x, y, kind="charbonnier")[0],
        lambda x, y: pixel_loss(x, y, kind="l1", tv_weight=0.5)[0],
    ],
    ids=["yuv_l2", "pixel_loss", "pixel_loss tv"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_a_trace_serves_whichever_image_needs_the_gradient(loss, needed, dtypes):
    images = [
        torch.rand(2, 3, 9, 8).to(dtype).requires_grad_(own)
        for dtype, own in zip(dtypes, needed, strict=True)
    ]
    function = lambda *images: loss(*(2 * image for image in images))  # noqa: E731
    results = []
    for call in (torch.jit.trace(function, tuple(images)), function):
        y = call(*images)
        results.append((y, *torch.autograd.grad(y, [image for image in images if image.requires_grad])))
    # A trace adds the variation's gradient to the other in x's dtype, since it cannot know that y needs none.
    rtol, atol = (1e-6, 1e-9) if dtypes[0] == torch.float32 else (2**-7, 2**-13)
    torch.testing.assert_close(*results, rtol=rtol, atol=atol)


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_a_trace_refuses_gradients_that_a_kernel_does_not_have():
    x, y, weight = torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    traced = torch.jit.trace(lambda x, weight: pixel_loss(x, y, weight)[0], (x, weight))
    with pytest.raises(NotImplementedError, match="no gradient with respect to weight"):
        traced(x, weight.requires_grad_()).backward()
    traced = torch.jit.trace(lambda x, noise: photometric(x, noise=noise, seed=1), (x, torch.tensor(0.1)))
    with pytest.raises(NotImplementedError, match="no gradient with respect to its parameters"):
        traced(x, torch.tensor(0.1, requires_grad=True)).sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_a_trace_of_the_reference_makes_its_own_constants():
    jpeg_reference._constants.cache_clear()
    image = torch.rand(1, 3, 16, 16)
    torch.jit.trace(lambda image: jpeg_round_trip(image, 50, backend="reference"), image)


# Functions whose backward pass overwrites a saved tensor where that is allowed.
overwriting = pytest.mark.parametrize(
    "function",
    [
        lambda x, y: feature_distance(x, y).sum(),
        lambda x, y: yuv_color_l2(x, y),
    ],
    ids=["feature_distance", "yuv_l2"],
)


@overwriting
@pytest.mark.parametrize("retain", [False, True])
def test_a_first_order_gradient_has_no_graph(function, retain):
    image, other = torch.rand(2, 2, 3, 8, 8)
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(function(image, other), image, retain_graph=retain)
    assert gradient.grad_fn is None and not gradient.requires_grad
    penalized = torch.rand_like(image, requires_grad=True)
    (penalized - gradient).square().mean().backward()
    assert penalized.grad is not None


@overwriting
def test_a_traced_backward_overwrites_no_saved_tensor(function):
    image, other = torch.rand(2, 2, 3, 8, 8)

    def gradient(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x, other), x)[0]

    operators = [str(node.target) for node in make_fx(gradient)(image).graph.nodes]
    own_operators = [name for name in operators if name.startswith("fastgan")]
    assert any("backward" in name for name in own_operators)
    assert not any(name.split(".")[1].endswith("_") for name in own_operators), own_operators


# --- batches of calls that tests/support_table.py does not cover --------------------------------------------


def test_vmap_of_the_op_itself(x):
    torch.testing.assert_close(torch.vmap(torch.ops.fastgan.squared_norm)(x), torch.vmap(squared_norm)(x))


def test_noise_under_vmap_follows_the_argument_randomness():
    images, noisy = torch.full((3, 2, 3, 8, 9), 0.5), lambda x: photometric(x, noise=0.1)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(noisy)(images)
    same = torch.vmap(noisy, randomness="same")(images)
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    assert not torch.equal(same[0, 0], same[0, 1])
    different = torch.vmap(noisy, randomness="different")(images)
    assert not torch.equal(different[0], different[1]) and not torch.equal(different[1], different[2])
    # Without noise nothing is drawn.
    torch.testing.assert_close(torch.vmap(photometric)(images), images)


@pytest.mark.parametrize("batched", [True, False])
def test_seeds_under_vmap_are_those_of_single_calls(batched):
    images = torch.rand(3, 2, 3, 8, 9)
    seeds = torch.tensor([5, 6, 7]) if batched else torch.tensor(5)
    actual = torch.vmap(lambda x, seed: photometric(x, noise=0.1, seed=seed), (0, 0 if batched else None))(
        images, seeds
    )
    for number, x in enumerate(images):
        assert torch.equal(
            actual[number], photometric(x, noise=0.1, seed=seeds[number] if batched else seeds)
        )


@pytest.mark.parametrize("rounding", ["cubic", "at_zero", "polynomial", "noise", "none"])
def test_surrogates_of_rounding_under_vmap(rounding):
    images, qualities = torch.rand(3, 2, 3, 17, 19), torch.tensor([30.0, 50.0, 90.0])
    code = lambda x, quality: jpeg_round_trip(x, quality, rounding=rounding)  # noqa: E731
    if rounding == "noise":
        with pytest.raises(RuntimeError, match="randomness"):
            torch.vmap(code)(images, qualities)
        decoded = torch.vmap(code, randomness="same")(images, qualities)
        assert decoded.shape == images.shape
        return
    loss = lambda x, quality: code(x, quality).square().sum()  # noqa: E731
    image_gradients, quality_gradients = torch.vmap(torch.func.grad(loss, (0, 1)))(images, qualities)
    for number in range(3):
        leaves = images[number].clone().requires_grad_(), qualities[number].clone().requires_grad_()
        expected = torch.autograd.grad(loss(*leaves), leaves)
        torch.testing.assert_close((image_gradients[number], quality_gradients[number]), expected)


def test_one_table_for_all_images_gets_the_gradient_of_each_call():
    images, tables = torch.rand(3, 2, 3, 17, 19), 20 + 30 * torch.rand(1, 2, 8, 8)
    loss = lambda x, t: jpeg_round_trip(x, None, quantization_tables=t).square().sum()  # noqa: E731
    actual = torch.vmap(torch.func.grad(loss, 1), (0, None))(images, tables)
    for gradient, x in zip(actual, images, strict=True):
        leaf = tables.clone().requires_grad_()
        torch.testing.assert_close(gradient, torch.autograd.grad(loss(x, leaf), leaf)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: feature_distance(x, y, 2, True).sum(),
        lambda x, y: lpips_head(x, y, torch.tensor([0.5, 1.0, 2.0])).sum(),
        lambda x, y: yuv_color_l2(x, y, edge_gain=2.0),
        lambda x, y: bias_leaky_relu(x, y.mean((0, 2, 3)), clamp=0.9).float().sum(),
        lambda x, y: squared_norm(x - y).sum(),
        lambda x, y: perspective_warp(x, torch.eye(3).expand(2, 3, 3) * 1.1, fill=y).float().sum(),
    ],
    ids=["feature_distance", "lpips_head", "yuv_l2", "bias_leaky_relu", "squared_norm", "perspective_warp"],
)
def test_gradients_of_each_call_in_every_type_and_memory_order(function, layout, dtype):
    x, y = (torch.rand(3, 2, 3, 8, 9).sub(0.3).to(dtype).flatten(0, 1).to(memory_format=layout) for _ in "xy")
    x, y = x.unflatten(0, (3, 2)), y.unflatten(0, (3, 2))
    # torch.func.grad inside of vmap, and torch.autograd.grad outside of it.
    inside = torch.vmap(torch.func.grad(function, (0, 1)))(x, y)
    leaves = x.clone().requires_grad_(), y.clone().requires_grad_()
    outside = torch.autograd.grad(torch.vmap(function)(*leaves).sum(), leaves)
    for number in range(3):
        single_call = x[number].clone().requires_grad_(), y[number].clone().requires_grad_()
        expected = torch.autograd.grad(function(*single_call), single_call)
        for actual in (inside, outside):
            assert actual[0].dtype == dtype
            torch.testing.assert_close([gradient[number] for gradient in actual], list(expected))


def test_gains_of_each_call():
    x, y, gains = torch.rand(3, 2, 3, 8, 9), torch.rand(3, 2, 3, 8, 9), torch.tensor([0.0, 1.0, 10.0])
    losses = torch.vmap(lambda x, y, gain: yuv_color_l2(x, y, edge_gain=gain))(x, y, gains)
    for number, gain in enumerate(gains):
        torch.testing.assert_close(losses[number], yuv_color_l2(x[number], y[number], edge_gain=gain))


def test_per_sample_gradients_of_a_network():
    critic = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Conv2d(4, 1, 3))
    parameters = {name: parameter.detach() for name, parameter in critic.named_parameters()}
    images, loss = torch.rand(5, 3, 8, 9), AdversarialLoss("lsgan")

    def sample_loss(parameters, image):
        return loss.generator(torch.func.functional_call(critic, parameters, (image[None],)))

    actual = torch.vmap(torch.func.grad(sample_loss), (None, 0))(parameters, images)
    for number, image in enumerate(images):
        expected = torch.autograd.grad(loss.generator(critic(image[None])), list(critic.parameters()))
        torch.testing.assert_close([gradient[number] for gradient in actual.values()], list(expected))


def test_forward_mode_is_refused_inside_transforms_too(x):
    x = x.detach()
    for function in (
        lambda: torch.func.jvp(squared_norm, (x,), (x,)),
        lambda: torch.func.jacfwd(squared_norm)(x),
        lambda: torch.func.hessian(lambda x: squared_norm(x).sum())(x),
        lambda: torch.func.jvp(torch.vmap(squared_norm), (x,), (x,)),
        lambda: torch.autograd.functional.jacobian(squared_norm, x, vectorize=True, strategy="forward-mode"),
    ):
        with pytest.raises(NotImplementedError, match=r"squared_norm has no .*use\('reference'\)"):
            function()


def test_a_batch_of_gradients_overwrites_no_saved_tensor():
    image, other = torch.rand(2, 2, 3, 8, 8)
    image.requires_grad_()
    loss = yuv_color_l2(image, other)
    gradients = torch.autograd.grad(loss, image, torch.tensor([1.0, 2.0]), is_grads_batched=True)[0]
    expected = torch.autograd.grad(yuv_color_l2(image, other), image)[0]
    torch.testing.assert_close(gradients, torch.stack([expected, 2 * expected]))
