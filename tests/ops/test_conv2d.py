"""conv2d against torch's, in values and gradients of first and second order; modules converted to it."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.testing import assert_close

from fastgan.losses import r1_penalty_of
from fastgan.ops import conv2d
from fastgan.ops.conv2d import Conv2d, _conv2d_as_compiled, convert_convolutions
from tests.conftest import DEVICES
from tests.losses.critics import CRITICS, make

CASES = {
    "3x3": ((2, 3, 9, 8), (4, 3, 3, 3), {"padding": 1}),
    "4x4 strided": ((2, 3, 10, 9), (4, 3, 4, 4), {"stride": 2, "padding": 1}),
    "uneven": ((1, 2, 11, 7), (3, 2, 3, 2), {"stride": (3, 2), "padding": (2, 0), "dilation": (1, 2)}),
    "groups": ((2, 4, 6, 6), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "1x1": ((2, 3, 5, 5), (4, 3, 1, 1), {}),
}


def tensors(case, device="cpu", dtype=torch.float64):
    size, weight_size, options = CASES[case]
    draws = torch.Generator().manual_seed(len(case))
    made = [
        torch.randn(shape, generator=draws, dtype=torch.float64).to(device, dtype).requires_grad_()
        for shape in (size, weight_size, weight_size[:1])
    ]
    return (*made, options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES)
def test_equals_torch_to_second_order(case, layout, device):
    x, weight, bias, options = tensors(case, device)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    results = []
    for function in (F.conv2d, _conv2d_as_compiled):
        y = function(x, weight, bias, **options)
        first = torch.autograd.grad(y.sin().sum(), (x, weight, bias), create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in first)
        results.append((y, first, torch.autograd.grad(penalty, (x, weight, bias))))
    assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_both_orders(case):
    x, weight, bias, options = tensors(case)

    def function(x, weight, bias):
        return _conv2d_as_compiled(x, weight, bias, **options)

    assert torch.autograd.gradcheck(function, (x, weight, bias))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias))


@pytest.mark.parametrize("case", CASES)
def test_ops_are_well_formed(case):
    x, weight, bias, options = tensors(case)
    given = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    groups = given.pop("groups")
    pairs = [[v, v] if isinstance(v, int) else list(v) for v in given.values()]
    y = conv2d(x, weight, bias, **options)
    ops = torch.ops.fastgan
    torch.library.opcheck(ops.conv2d.default, (x, weight, bias, *pairs, groups))
    grad = torch.randn_like(y).requires_grad_()
    torch.library.opcheck(ops.conv2d_input_gradient.default, (grad, weight, list(x.shape), *pairs, groups))
    torch.library.opcheck(ops.conv2d_weight_gradient.default, (grad, x, list(weight.shape), *pairs, groups))


def gradients(penalty, network):
    return torch.autograd.grad(penalty, list(network.parameters()), allow_unused=True)


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("kind", CRITICS)
def test_penalties_of_converted_critics(kind, compile):
    network, real, _, extra = make(kind)
    network.eval()  # in training, spectral norm moves on with each pass
    converted = convert_convolutions(copy.deepcopy(network))
    assert converted.state_dict().keys() == network.state_dict().keys()
    assert kind == "mlp" or any(isinstance(module, Conv2d) for module in converted.modules())

    def penalty(x):
        return r1_penalty_of(converted, x, *extra)

    found = gradients(torch.compile(penalty, fullgraph=True)(real) if compile else penalty(real), converted)
    assert_close(found, gradients(r1_penalty_of(network, real, *extra), network), rtol=1e-4, atol=2e-6)


def test_autocast_casts_as_for_torch():
    x, weight, bias, options = tensors("3x3", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, expected = _conv2d_as_compiled(x, weight, bias, **options), F.conv2d(x, weight, bias, **options)
    assert y.dtype == torch.bfloat16
    assert_close(y, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same"}, {"padding": "valid", "stride": 2}, {"padding": 1, "padding_mode": "reflect"},
        {"padding": "same", "padding_mode": "circular", "dilation": 2, "bias": False},
    ],
)  # fmt: skip
def test_module_pads_as_torch(options):
    torch.manual_seed(0)
    module = nn.Conv2d(3, 4, 3, **options)
    converted = convert_convolutions(copy.deepcopy(module))
    x = torch.randn(2, 3, 8, 7)
    assert_close(converted(x), module(x))
    assert_close(converted(x[0]), module(x[0]))
    assert_close(copy.deepcopy(converted)(x), module(x))
    assert_close(pickle.loads(pickle.dumps(converted))(x), module(x))


def test_layers_with_their_own_convolution_stay():
    class Own(nn.Conv2d):
        def _conv_forward(self, input, weight, bias):
            return 2 * super()._conv_forward(input, weight, bias)

    network = nn.Sequential(Own(3, 4, 3), spectral_norm(nn.Conv2d(4, 4, 3)), nn.ConvTranspose2d(4, 3, 3))
    convert_convolutions(network)
    assert not isinstance(network[0], Conv2d) and isinstance(network[1], Conv2d)
    assert network(torch.randn(1, 3, 8, 8)).shape == (1, 3, 6, 6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(3, 8, 8)}, ValueError, r"x must have 4 dimensions, got shape \(3, 8, 8\)"),
        ({"weight": torch.zeros(4, 3)}, ValueError, r"weight must have 4 dimensions, got shape \(4, 3\)"),
        ({"x": torch.zeros(1, 3, 8, 8, dtype=torch.int64)}, (TypeError, ValueError), "x"),
        ({"weight": torch.zeros(4, 2, 3, 3)}, ValueError, "x must have 2 channels"),
    ],
)
def test_wrong_inputs_are_named(change, error, message):
    arguments = {"x": torch.zeros(1, 3, 8, 8), "weight": torch.zeros(4, 3, 3, 3)} | change
    with pytest.raises(error, match=message):
        conv2d(**arguments)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_paddings_by_name_are_those_of_torch(padding):
    x, weight = torch.randn(2, 3, 9, 8), torch.randn(4, 3, 4, 3)
    expected = F.conv2d(x, weight, None, 1, padding, (2, 3))
    assert_close(conv2d(x, weight, None, 1, padding, (2, 3)), expected)
    compiled = torch.compile(conv2d, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, weight, None, 1, padding, (2, 3)), expected)


def test_same_padding_needs_a_stride_of_1():
    with pytest.raises(
        ValueError, match=r"padding 'same' goes with a stride of 1 alone, got stride=\[2, 2\]"
    ):
        conv2d(torch.randn(2, 3, 9, 8), torch.randn(4, 3, 3, 3), stride=2, padding="same")
    with pytest.raises(ValueError, match="padding must be one of valid, same, got 'full'"):
        conv2d(torch.randn(2, 3, 9, 8), torch.randn(4, 3, 3, 3), padding="full")
