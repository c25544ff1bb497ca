"""yuv_color_l2: the kernel of each device against the float64 reference, to every order of gradient."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch.testing import assert_close

from fastgan import ops
from fastgan.losses import YUVColorL2, yuv_color_l2
from fastgan.ops import _library
from fastgan.reference.yuv_l2 import RGB_TO_YUV, edge_falloff

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
SCALES = (1.0, 100.0, 50.0)
SIZES = [(1, 1, 1), (2, 3, 5), (3, 17, 33), (1, 64, 64), (2, 31, 257), (1, 5, 700), (2, 100, 400)]


def images(size, dtype=torch.float32, device="cpu", layout="contiguous"):
    """Two random images in this memory layout."""
    n, h, w = size
    if layout == "channels_last":
        pair = torch.rand(2, n, h, w, 3).permute(0, 1, 4, 2, 3)
    elif layout == "strided":
        pair = torch.rand(2, n, 5, w + 3, 2 * h)[:, :, 1:4, 2:-1, ::2].transpose(-1, -2)
    elif layout == "expanded":
        pair = torch.rand(2, 1, 3, h, 1).expand(2, n, 3, h, w)
    else:
        pair = torch.rand(2, n, 3, h, w)
    pair = pair.to(device=device, dtype=dtype)
    return [image.detach().requires_grad_() for image in pair]


def loss_and_gradients(x, y, scales, gain, backend=None):
    loss, channels = yuv_color_l2(x, y, scales, gain, return_channels=True, backend=backend)
    return loss, channels, *torch.autograd.grad(loss, (x, y))


def in_float64(x, y, scales, gain):
    x, y = (image.detach().double().cpu().requires_grad_() for image in (x, y))
    gain = gain.double().cpu() if isinstance(gain, torch.Tensor) else gain
    return loss_and_gradients(x, y, scales, gain, backend="reference")


# On a GPU the distance to the border is a quotient with an error of up to 2 units in the last place, and the
# relative error of a pixel's weight is four times as large.
TOLERANCE = {"cpu": 1e-6, "cuda": 2e-6}


def relative_error(actual, expected):
    error = (actual.detach().cpu().double() - expected.detach()).norm() / expected.detach().norm()
    return error.item()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided", "expanded"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gain", [0.0, 10.0])
def test_kernel_matches_float64_reference(device, layout, size, gain):
    x, y = images(size, device=device, layout=layout)
    results = loss_and_gradients(x, y, SCALES, gain)
    for actual, expected in zip(results, in_float64(x, y, SCALES, gain), strict=True):
        assert actual.dtype == torch.float32
        assert relative_error(actual, expected) <= TOLERANCE[device]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gain", [0.0, 10.0])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kernel_matches_float64_reference_on_photographs(device, gain, memory_format, photographs):
    clean = photographs.clone().to(device).contiguous(memory_format=memory_format)
    x = (clean + 0.02 * torch.randn_like(clean)).clamp(0, 1).requires_grad_()
    y = clean.requires_grad_()
    results = loss_and_gradients(x, y, (1.0, 100.0, 100.0), gain)
    expected = in_float64(x, y, (1.0, 100.0, 100.0), gain)
    for actual, reference in zip(results, expected, strict=True):
        assert relative_error(actual, reference) <= TOLERANCE[device]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtypes", [
    (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float16),
    (torch.bfloat16, torch.float32), (torch.float32, torch.float16), (torch.float16, torch.bfloat16),
])  # fmt: skip
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_half_types_err_at_most_twice_as_much_as_plain_pytorch(device, dtypes, layout):
    x, y = (i[k].detach().to(dtype).requires_grad_() for k, (i, dtype) in enumerate(
        zip([images((2, 37, 53), device=device, layout=layout)] * 2, dtypes, strict=True)))  # fmt: skip
    results = loss_and_gradients(x, y, SCALES, 3.0)
    plain = plain_in_own_dtype(x, y, SCALES, 3.0)
    exact = in_float64(x, y, SCALES, 3.0)
    assert results[0].dtype == torch.float32
    assert (results[2].dtype, results[3].dtype) == dtypes
    for actual, naive, expected in zip(results, plain, exact, strict=True):
        assert relative_error(actual, expected) <= 2 * relative_error(naive, expected) + 1e-6


def plain_in_own_dtype(x, y, scales, gain):
    """The formula in plain PyTorch, every operation in the images' dtype."""
    difference = x - y
    dtype = difference.dtype
    red, green, blue = difference.unbind(1)
    yuv = torch.stack([r * red + g * green + b * blue for r, g, b in RGB_TO_YUV], 1)
    yuv = yuv * (1 + gain * edge_falloff(*x.shape[2:], dtype=dtype, device=x.device))
    channels = yuv.square().mean(dim=(0, 2, 3))
    loss = (channels * torch.tensor(scales, dtype=dtype, device=x.device)).sum()
    return loss, channels, *torch.autograd.grad(loss, (x, y))


def test_falloff_is_one_on_the_border_and_zero_from_a_quarter_in():
    falloff = edge_falloff(40, 80, dtype=torch.float64, device=torch.device("cpu"))
    assert (falloff[0] == 1).all() and (falloff[-1] == 1).all()
    assert (falloff[:, 0] == 1).all() and (falloff[:, -1] == 1).all()
    assert (falloff[10:30, 20:60] == 0).all()
    assert falloff[5, 40].item() == pytest.approx(0.5)
    assert_close(falloff, falloff.flip(0, 1))


def test_falloff_is_the_published_one_without_its_asymmetry():
    size = 400
    published = torch.ones(size, size, dtype=torch.float64)
    for i in range(size // 4):
        ramp = (math.cos(4 * math.pi * i / size + math.pi) + 1) / 2
        for index in (-i, i):
            published[index, :] *= ramp
        for index in (-i, i):
            published[:, index] *= ramp
    ours = edge_falloff(size, size, dtype=torch.float64, device=torch.device("cpu"))
    top_left = (slice(0, size // 2), slice(0, size // 2))
    assert_close(ours[top_left], 1 - published[top_left])
    assert (ours - (1 - published)).abs().max() < 0.021


def test_gain_weights_the_border_by_its_square():
    black = torch.zeros(1, 3, 8, 8)
    on_border, in_centre = black.clone(), black.clone()
    on_border[..., 0, 0] = 0.5
    in_centre[..., 4, 4] = 0.5
    border = yuv_color_l2(on_border, black, edge_gain=10.0)
    centre = yuv_color_l2(in_centre, black, edge_gain=10.0)
    assert (border / centre).item() == pytest.approx(121.0, rel=1e-6)
    assert centre.item() == pytest.approx(0.25 / 64, rel=1e-6)  # grey: only Y differs


@pytest.mark.parametrize("device", DEVICES)
def test_channels_are_the_unscaled_means_and_carry_no_gradient(device):
    x, y = images((2, 16, 24), device=device)
    loss, channels = yuv_color_l2(x, y, SCALES, 2.0, return_channels=True)
    scales = torch.tensor(SCALES, device=device)
    assert not channels.requires_grad
    assert_close((channels * scales).sum(), loss.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("gain", [0.0, 3.0])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_gradients_of_first_and_second_order(gain, backend):
    x, y = images((2, 5, 9), dtype=torch.float64)
    loss = lambda a, b: yuv_color_l2(a, b, (1.0, 2.0, 3.0), gain, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(loss, (x, y))
    assert torch.autograd.gradgradcheck(loss, (x, y))


@pytest.mark.parametrize("device", DEVICES)
def test_r1_style_penalty_through_the_loss(device):
    """The squared gradient norm, differentiated with respect to a network's weights, as for D."""

    def penalty(device, dtype, backend):
        torch.manual_seed(1)
        network = torch.nn.Conv2d(3, 3, 3, padding=1).to(device=device, dtype=dtype)
        x = torch.rand(2, 3, 12, 20, dtype=torch.float64).to(device, dtype).requires_grad_()
        y = torch.rand(2, 3, 12, 20, dtype=torch.float64).to(device, dtype)
        loss = yuv_color_l2(network(x).sigmoid(), y, SCALES, 5.0, backend=backend)
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        (loss + 1e3 * gradient.square().sum()).backward()
        return [parameter.grad for parameter in network.parameters()]

    expected = penalty("cpu", torch.float64, "reference")
    for actual, reference in zip(penalty(device, torch.float32, None), expected, strict=True):
        assert relative_error(actual, reference) <= 1e-5


def test_backward_twice_with_retained_graph_gives_the_same_gradient():
    """The saved buffer is overwritten only if the graph is freed."""
    x, y = images((1, 8, 8))
    y.requires_grad_(False)
    loss = yuv_color_l2(x, y, SCALES, 1.0)
    (first,) = torch.autograd.grad(3 * loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(3 * loss, x, retain_graph=True)
    (last,) = torch.autograd.grad(3 * loss, x)
    assert_close(second, first, rtol=0, atol=0)
    assert_close(last, first, rtol=0, atol=0)


@pytest.mark.parametrize("which", ["x", "y"])
def test_one_gradient_alone_matches_both(which):
    x, y = images((2, 9, 11))
    expected = torch.autograd.grad(yuv_color_l2(x, y, SCALES, 4.0), (x, y))
    index = "xy".index(which)
    (x, y)[1 - index].requires_grad_(False)
    (x, y)[index].grad = None
    yuv_color_l2(x, y, SCALES, 4.0).backward()
    assert_close((x, y)[index].grad, expected[index])


@pytest.mark.parametrize("device", DEVICES)
def test_saves_at_most_one_gradient(device):
    saved = []
    x, y = images((2, 64, 64), device=device)
    y.requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        yuv_color_l2(x, y, SCALES, 10.0)
    assert sum(size for size in saved if size > 64) <= x.numel() * x.element_size()


@pytest.mark.parametrize("gain", [0.0, 10.0])
def test_same_bits_for_any_number_of_threads(gain):
    x, y = images((4, 203, 311))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(loss_and_gradients(x, y, SCALES, gain))
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        for actual, expected in zip(others, results[0], strict=True):
            assert torch.equal(actual, expected)


@pytest.mark.gpu
def test_same_bits_on_every_run_on_a_gpu():
    x, y = images((8, 203, 311), device="cuda")
    first = loss_and_gradients(x, y, SCALES, 10.0)
    for _ in range(3):
        repeated = loss_and_gradients(x, y, SCALES, 10.0)
        assert all(torch.equal(a, b) for a, b in zip(first, repeated, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_edge_gain_tensor_equals_number_and_follows_a_schedule(device):
    x, y = images((1, 20, 30), device=device)
    module = YUVColorL2(SCALES, edge_gain=2.0).to(device)
    assert_close(module(x, y), yuv_color_l2(x, y, SCALES, 2.0))
    module.edge_gain.fill_(7.0)
    assert_close(module(x, y), yuv_color_l2(x, y, SCALES, 7.0))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("scales", "gain", "loss_scale"),
    [((1, 100, 100), 10.0, 1.0), ((1e4,) * 3, 10.0, 1.0), ((1, 100, 100), 100.0, 1.0), ((1, 1, 1), 0.0, 1e6)],
)
def test_float16_gradients_that_fit_are_finite_and_exact(device, scales, gain, loss_scale):
    """In both orders, also where only 2 / (N H W) or an outer factor brings them into float16's range."""
    x, y = images((3, 100, 110), device=device)
    x, y = x.detach().half(), y.detach().half()
    direction = torch.randn(x.shape, device=device).half()
    results = []
    for dtype, backend in ((torch.float16, None), (torch.float64, "reference")):
        image = x.to(dtype).requires_grad_()
        loss, _ = ops.yuv_l2(image, y.to(dtype), scales, gain, backend=backend)
        (retained,) = torch.autograd.grad(loss_scale * loss, image, retain_graph=True)
        (gradient,) = torch.autograd.grad(loss_scale * loss, image, create_graph=True)
        (second,) = torch.autograd.grad((gradient.to(torch.float64) * direction).sum(), image)
        loss, _ = ops.yuv_l2(image, y.to(dtype), scales, gain, backend=backend)
        (last,) = torch.autograd.grad(loss_scale * loss, image)
        results.append([tensor.double() for tensor in (retained, gradient, second, last)])
    for ours, exact in zip(*results, strict=True):
        assert exact.abs().max() < 65504
        assert_close(ours, exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item())


def test_the_module_refuses_an_unknown_backend_in_its_constructor():
    with pytest.raises(ValueError, match="backend must be one of native, triton, reference, got 'cuda'"):
        YUVColorL2(backend="cuda")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("direction_dtype", [None, torch.float32])
@pytest.mark.parametrize(("layout", "gain"), [("contiguous", 3.0), ("channels_last", None)])
def test_opcheck(device, direction_dtype, layout, gain):
    x, y = images((2, 7, 9), device=device, layout=layout)
    if direction_dtype is None:
        x, y = x.detach(), y.detach()
    gain = None if gain is None else torch.tensor(gain, device=device)
    arguments = (x, y, gain, 2.0, 1.0, 2.0, 3.0, -1, direction_dtype)
    torch.library.opcheck(torch.ops.fastgan.yuv_l2.default, arguments)
    direction = torch.rand(2, 3, 7, 9, device=device, requires_grad=True)
    grad_loss = torch.tensor(0.7, device=device, requires_grad=True)
    torch.library.opcheck(
        torch.ops.fastgan.yuv_l2_backward.default, (direction, grad_loss, -1, False, torch.float32)
    )
    torch.library.opcheck(
        torch.ops.fastgan.yuv_l2_backward_.default, (direction.detach(), grad_loss.detach(), 1, True)
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiles_without_a_graph_break(device, layout):
    x, y = images((2, 16, 24), device=device, layout=layout)
    y.requires_grad_(False)

    @torch.compile(fullgraph=True)
    def step(x, y, gain):
        loss, channels = yuv_color_l2(x * 1.0, y, SCALES, gain, return_channels=True)
        return 3 * loss, channels

    for gain in (0.0, 2.0, 5.0):
        gain = torch.tensor(gain, device=device)
        loss, channels = step(x, y, gain)
        (gradient,) = torch.autograd.grad(loss, x)
        expected, expected_channels, expected_gradient, _ = in_float64(x, y, SCALES, gain)
        assert relative_error(loss, 3 * expected) <= 1e-6
        assert relative_error(channels, expected_channels) <= 1e-6
        assert relative_error(gradient, 3 * expected_gradient) <= 1e-6


@pytest.mark.parametrize("which", ["x", "y"])
def test_compiles_with_dynamic_shapes(which):
    loss = lambda x, y: yuv_color_l2(x * 1.0, y, SCALES, 1.0)  # noqa: E731
    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    for size in ((2, 8, 9), (3, 10, 12)):
        x, y = (picture.detach() for picture in images(size))
        leaf = (x if which == "x" else y).requires_grad_()
        assert_close(torch.autograd.grad(compiled(x, y), leaf), torch.autograd.grad(loss(x, y), leaf))


def test_a_schedule_of_gain_tensors_does_not_recompile():
    torch._dynamo.reset()
    x, y = images((1, 8, 8))
    step = torch.compile(lambda x, y, gain: yuv_color_l2(x, y, SCALES, gain), fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for gain in range(4):
            step(x, y, torch.tensor(float(gain)))


def test_works_under_functorch_grad():
    x, y = images((1, 8, 8))
    expected = loss_and_gradients(x, y, SCALES, 1.0)[2]
    gradient = torch.func.grad(lambda x: yuv_color_l2(x, y.detach(), SCALES, 1.0))(x.detach())
    assert_close(gradient, expected)


@pytest.mark.gpu
def test_cuda_graph_capture_and_replay():
    x, y = (image.detach() for image in images((2, 64, 96), device="cuda"))
    gain = torch.tensor(1.0, device="cuda")
    x.requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.autograd.grad(yuv_color_l2(x, y, SCALES, gain), x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = yuv_color_l2(x, y, SCALES, gain)
        (gradient,) = torch.autograd.grad(loss, x)
    for value in (0.0, 6.0):
        gain.fill_(value)
        with torch.no_grad():
            x.uniform_()
        graph.replay()
        expected, _, expected_gradient, _ = in_float64(x, y.clone(), SCALES, gain)
        assert relative_error(loss, expected) <= TOLERANCE["cuda"]
        assert relative_error(gradient, expected_gradient) <= TOLERANCE["cuda"]


# --- choice of implementation ---------------------------------------------------------------------------


def test_backend_argument_beats_context_beats_environment(monkeypatch):
    x, y = images((1, 4, 4))
    chosen = lambda backend=None: ops._dispatch.choose("yuv_l2", (x, y), backend)  # noqa: E731
    assert chosen() == "native"
    monkeypatch.setenv("FASTGAN_BACKEND", "reference")
    assert chosen() == "reference"
    with ops.use("native"):
        assert chosen() == "native"
        assert chosen("reference") == "reference"
    assert chosen() == "reference"


def test_unservable_request_raises_and_automatic_choice_warns_once(monkeypatch):
    x, y = images((1, 4, 4))
    with pytest.raises(RuntimeError, match="no triton kernel for device 'cpu'"):
        yuv_color_l2(x, y, backend="triton")
    with pytest.raises(ValueError, match=r"one of native, triton, reference, got 'fast'"):
        yuv_color_l2(x, y, backend="fast")
    monkeypatch.setattr(_library, "cpu_missing", "_C was not built with this installation")
    monkeypatch.setattr(ops._dispatch, "_warned", set())
    with pytest.raises(RuntimeError, match="was not built"):
        yuv_color_l2(x, y, backend="native")
    with pytest.warns(RuntimeWarning, match="runs its PyTorch reference: _C was not built"):
        first = yuv_color_l2(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(yuv_color_l2(x, y), first)


# --- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x, y, options, error, message", [
    (torch.rand(2, 4, 8, 8), torch.rand(2, 4, 8, 8), {}, ValueError, r"\(N, 3, H, W\), got \(2, 4, 8, 8\)"),
    (torch.rand(3, 8, 8), torch.rand(3, 8, 8), {}, ValueError, r"\(N, 3, H, W\), got \(3, 8, 8\)"),
    (torch.rand(2, 3, 8, 8), torch.rand(1, 3, 8, 8), {}, ValueError, r"same shape.*\(2, 3.*\(1, 3"),
    (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.rand(1, 3, 8, 8), {}, TypeError, "got torch.uint8"),
    (torch.rand(1, 3, 8, 8), [1, 2], {}, TypeError, "y must be a tensor, got list"),
    (torch.rand(0, 3, 8, 8), torch.rand(0, 3, 8, 8), {}, ValueError, r"not be empty, got shape \(0, 3"),
    (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8, device="meta"), {}, ValueError, "x on cpu, y on meta"),
    (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), {"edge_gain": torch.ones(2)}, ValueError, r"\(2,\)"),
    (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), {"edge_gain": torch.ones((), device="meta")},
     ValueError, "edge_gain on meta"),
    (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), {"edge_gain": torch.ones((), requires_grad=True)},
     ValueError, "not differentiable"),
    (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), {"edge_gain": "10"}, TypeError, "got str"),
    (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), {"yuv_scales": (1, 2)}, ValueError, r"got \(1, 2\)"),
    (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), {"yuv_scales": (1, 2, math.nan)}, ValueError, "nan"),
])  # fmt: skip
def test_wrong_inputs_are_named(x, y, options, error, message):
    with pytest.raises(error, match=message):
        yuv_color_l2(x, y, **options)


def test_nan_in_an_image_reaches_the_loss_and_its_own_gradient_only():
    x, y = images((1, 8, 8))
    with torch.no_grad():
        x[0, 1, 2, 3] = math.nan
    loss, _, gradient, _ = loss_and_gradients(x, y, SCALES, 0.0)
    assert loss.isnan()
    assert gradient.isnan().sum() == 3
