"""`fastgan.patch` on the ops of StyleGAN2, as BasicSR and rosinality's code have them."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch
import torch.utils.cpp_extension
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import fastgan
from tests.ops import filters
from tests.ops.filters import taps, upfirdn2d_by_steps

STEPS = "import torch\nfrom torch.nn import functional as F\n" + "".join(
    inspect.getsource(function) + "\n"
    for function in (filters.pair, filters.four, filters.upfirdn2d_by_steps)
)
UPFIRDN2D = """
def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)):
    return upfirdn2d_by_steps(input, kernel, up, down, (*pad, *pad)[:4])
"""
# On the CPU the slope is 0.2, as in the original.
RELU = """
from torch.nn import functional as F
from torch.utils.cpp_extension import load

fused = load("fused", sources=["fused_bias_act.cpp", "fused_bias_act_kernel.cu"])

def fused_leaky_relu(input, bias=None, negative_slope=0.2, scale=2**0.5):
    if bias is not None:
        input = input + bias.reshape(-1, *[1] * (input.dim() - 2))
    return scale * F.leaky_relu(input, 0.2)
"""
RELU_OF_EXTENSION = """
import os
from torch.autograd import Function

if os.getenv("BASICSR_JIT") == "True":
    from torch.utils.cpp_extension import load
    fused_act_ext = load("fused", sources=["fused_bias_act.cpp"])

class Slopes(Function):
    @staticmethod
    def forward(ctx, grad, out, *options):
        ctx.save_for_backward(out)
        ctx.options = options
        x = fused_act_ext.fused_bias_act(grad, grad.new_empty(0), out, 3, 1, *options)
        return x, x.sum([0, *range(2, x.dim())])

    @staticmethod
    def backward(ctx, tangent, tangent_bias):
        y = fused_act_ext.fused_bias_act(tangent, tangent_bias, *ctx.saved_tensors, 3, 1, *ctx.options)
        return y, None, None, None

class Values(Function):
    @staticmethod
    def forward(ctx, x, bias, *options):
        y = fused_act_ext.fused_bias_act(x, bias, x.new_empty(0), 3, 0, *options)
        ctx.save_for_backward(y)
        ctx.options = options
        return y

    @staticmethod
    def backward(ctx, grad):
        return *Slopes.apply(grad, *ctx.saved_tensors, *ctx.options), None, None

def fused_leaky_relu(input, bias, negative_slope=0.2, scale=2**0.5):
    return Values.apply(input, bias, negative_slope, scale)
"""
LOADS = """
from torch.utils.cpp_extension import load
upfirdn2d_op = load("upfirdn2d", sources=["upfirdn2d.cpp"])
"""
COPIES = {
    "op/__init__.py": "from .fused_act import fused_leaky_relu\nfrom .upfirdn2d import upfirdn2d\n",
    "op/fused_act.py": RELU,
    "op/upfirdn2d.py": STEPS + LOADS + UPFIRDN2D,
    "models/__init__.py": "",
    "models/stylegan2/__init__.py": "",
    "models/stylegan2/op/__init__.py": "",
    "models/stylegan2/op/fused_act.py": RELU_OF_EXTENSION.replace("fused_act_ext", "fused").replace(
        'os.getenv("BASICSR_JIT") == "True"', "True"
    ),
    "models/stylegan2/op/upfirdn2d.py": STEPS + LOADS + UPFIRDN2D.replace("(*pad, *pad)[:4]", "pad[:2] * 2"),
    "basicsr/__init__.py": "",
    "basicsr/ops/__init__.py": "",
    "basicsr/ops/fused_act/__init__.py": "from .fused_act import fused_leaky_relu\n",
    "basicsr/ops/fused_act/fused_act.py": RELU_OF_EXTENSION,
    "basicsr/ops/upfirdn2d/__init__.py": "from .upfirdn2d import upfirdn2d\n",
    "basicsr/ops/upfirdn2d/upfirdn2d.py": STEPS + UPFIRDN2D,
}
MODULES = {
    "rosinality.op": ("op.fused_act", "op.upfirdn2d"),
    "basicsr": ("basicsr.ops.fused_act.fused_act", "basicsr.ops.upfirdn2d.upfirdn2d"),
}


@pytest.fixture
def copies(write, monkeypatch):
    """Written, on a machine without a compiler."""

    def load(name, sources):
        raise OSError("CUDA_HOME environment variable is not set")

    monkeypatch.setattr(torch.utils.cpp_extension, "load", load)
    monkeypatch.delenv("BASICSR_JIT", raising=False)
    write(COPIES)
    return load


def imported(library):
    return [importlib.import_module(module) for module in MODULES[library]]


def relu_by_steps(x, bias=None, slope=0.2, scale=2**0.5):
    return scale * F.leaky_relu(x if bias is None else x + bias.reshape(-1, *(1,) * (x.dim() - 2)), slope)


def both_orders(function, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    first = torch.autograd.grad((y - 1).square().sum(), leaves, create_graph=True)
    return y, *first, *torch.autograd.grad(first[0].square().sum(), leaves)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("first", ["import", "patch"])
@pytest.mark.parametrize("library", sorted(MODULES))
def test_values_and_both_orders_of_gradient_are_those_of_the_formula(
    copies, monkeypatch, library, first, dtype
):
    if first == "import":
        monkeypatch.setattr(torch.utils.cpp_extension, "load", lambda name, sources: "compiled")
        imported(library)
    with fastgan.patch(library, quiet=True) as report:
        relu, filtering = imported(library)
        paths = {f"{relu.__name__}.fused_leaky_relu", f"{filtering.__name__}.upfirdn2d"}
        assert paths <= set(report.replaced)
        assert ("op.fused_act.fused" in report.kept) is (first == "import" and library == "rosinality.op")
        tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
        b = torch.randn(3, dtype=dtype)
        for shape in ((5, 3), (2, 3, 6, 5)):
            x = torch.randn(shape, dtype=dtype)
            ours, theirs = (
                both_orders(lambda x, b, f=f: f(x.sin(), b), x, b)
                for f in (relu.fused_leaky_relu, relu_by_steps)
            )
            assert_close(ours, theirs, **tolerance)
        kernel = taps(4, 3).to(dtype)
        for up, down, pad in ((2, 1, (3, -1)), (1, 2, (1, 1))):
            ours = both_orders(lambda x, o=(up, down, pad): filtering.upfirdn2d(x, kernel, *o), x)
            steps = both_orders(
                lambda x, o=(up, down, pad): upfirdn2d_by_steps(x, kernel, *o[:2], o[2] * 2), x
            )
            assert_close(ours, steps, **tolerance)


def test_nothing_is_compiled_under_the_patch(copies):
    with pytest.raises(OSError, match="CUDA_HOME"):
        importlib.import_module("op")
    with fastgan.patch("rosinality.op", quiet=True) as report:
        assert "op.fused_act.fused" in report.waiting
        op = importlib.import_module("op")
        assert {"op.fused_act.fused", "op.upfirdn2d.upfirdn2d_op"} <= set(report.replaced)
        assert "op.fused_act.fused (the extension, which is not compiled)" in str(report)
        assert not [path for path in report.waiting if path.startswith("op.")]
    # The function that compiles is torch's again, and the modules work after the patch.
    module = importlib.import_module("op.fused_act")
    assert torch.utils.cpp_extension.load is copies is module.load
    x = torch.randn(2, 3)
    assert_close(op.fused_leaky_relu(x), relu_by_steps(x))


def test_the_older_copy_of_encoders_is_served_without_compiling(copies):
    module = "models.stylegan2.op"
    x, b, kernel = torch.randn(2, 3, 6, 5), torch.randn(3), taps(3, 4)
    with fastgan.patch("rosinality.op", quiet=True) as report:
        relu, filtering = (importlib.import_module(f"{module}.{name}") for name in ("fused_act", "upfirdn2d"))
        functions = {f"{relu.__name__}.fused_leaky_relu", f"{filtering.__name__}.upfirdn2d"}
        extensions = {f"{relu.__name__}.fused", f"{filtering.__name__}.upfirdn2d_op"}
        assert functions | extensions <= set(report.replaced)
        assert_close(relu.fused_leaky_relu(x, b), relu_by_steps(x, b))
        # What this copy drops of a pad, it drops under the patch, too.
        for pad in ((2, 1), (2, 1, 0, 5)):
            expected = upfirdn2d_by_steps(x, kernel, 2, 1, (2, 1, 2, 1))
            assert_close(filtering.upfirdn2d(x, kernel, up=2, pad=pad), expected)


def test_other_extensions_are_compiled_as_before(copies, write):
    write({"op/fused_act.py": RELU + '\nother = load("other", sources=[])\n'})
    with fastgan.patch("rosinality.op", quiet=True), pytest.raises(OSError, match="CUDA_HOME"):
        importlib.import_module("op")
    assert torch.utils.cpp_extension.load is copies


@pytest.mark.parametrize("wanted", ["True", "False"])
def test_basicsr_compiles_only_if_it_is_told_to(copies, monkeypatch, wanted):
    monkeypatch.setenv("BASICSR_JIT", wanted)
    with fastgan.patch("basicsr", quiet=True) as report:
        path = "basicsr.ops.fused_act.fused_act.fused_act_ext"
        assert (path in report.waiting) is (wanted == "True")
        relu, _ = imported("basicsr")
        assert (path in report.replaced) is hasattr(relu, "fused_act_ext") is (wanted == "True")


def test_what_stands_in_for_the_extensions_has_their_functions(copies, monkeypatch):
    """Forks whose own functions are kept call it."""
    monkeypatch.setenv("BASICSR_JIT", "True")
    with fastgan.patch("basicsr", "rosinality.op", quiet=True):
        (relu, _), (_, filtering) = imported("basicsr"), imported("rosinality.op")
    for dtype in (torch.float64, torch.bfloat16):
        x, b = torch.randn(2, 3, 6, 5, dtype=dtype), torch.randn(3, dtype=dtype)
        assert_close(relu.fused_leaky_relu(x, b, 0.1, 2.0), relu_by_steps(x, b, 0.1, 2.0))
    x, b = x.double(), b.double()
    ours, theirs = (
        both_orders(lambda x, b, f=f: f(x.sin(), b), x, b) for f in (relu.fused_leaky_relu, relu_by_steps)
    )
    assert_close(ours, theirs)
    extension = relu.fused_act_ext.fused_bias_act
    none = x.new_empty(0)
    assert_close(extension(x, b, none, 1, 0, 0.2, 3.0), 3 * (x + b[:, None, None]))
    assert not extension(x, none, x, 3, 2, 0.2, 3.0).any()
    kernel = taps(4, 3).double()
    y = filtering.upfirdn2d_op.upfirdn2d(x.reshape(6, 6, 5, 1), kernel, 2, 1, 1, 2, 3, 2, 1, -1)
    expected = upfirdn2d_by_steps(x, kernel, (2, 1), (1, 2), (3, 2, 1, -1))
    assert_close(y.reshape(expected.shape), expected)


def test_basicsr_without_its_extension_runs_on_the_cpu_in_all_dtypes(copies):
    relu, _ = imported("basicsr")
    x, b = torch.randn(2, 3, 4, 4), torch.randn(3)
    with pytest.raises(NameError, match="fused_act_ext"):
        relu.fused_leaky_relu(x, b)
    with fastgan.patch("basicsr", quiet=True):
        assert not hasattr(relu, "fused_act_ext")
        assert_close(relu.fused_leaky_relu(x, b, 0.1, 2.0), relu_by_steps(x, b, 0.1, 2.0))
        y = relu.fused_leaky_relu(x.bfloat16(), b.bfloat16())
        assert_close(y.float(), relu_by_steps(x, b), rtol=2e-2, atol=2e-2)
        with pytest.raises(ValueError, match=r"bias must have shape \(3,\), got \(2,\)"):
            relu.fused_leaky_relu(x, b[:2])
    with pytest.raises(NameError, match="fused_act_ext"):
        relu.fused_leaky_relu(x, b)


@pytest.mark.parametrize(
    ("library", "file", "change", "name"),
    [
        ("rosinality.op", "op/fused_act.py", ("(input, 0.2)", "(input, 0.3)"), "fused_leaky_relu"),
        ("rosinality.op", "op/upfirdn2d.py", ("(*pad, *pad)", "(*pad[::-1], *pad)"), "upfirdn2d"),
        (
            "basicsr", "basicsr/ops/fused_act/fused_act.py", ("3, 1, *options", "3, 0, *options"),
            "fused_leaky_relu",
        ),
    ],
)  # fmt: skip
def test_a_fork_with_another_formula_keeps_it(copies, write, library, file, change, name):
    assert change[0] in COPIES[file]
    write({file: COPIES[file].replace(*change)})
    with fastgan.patch(library, quiet=True) as report:
        imported(library)
        (because,) = (text for path, text in report.kept.items() if path.endswith(f".{name}"))
        assert because.startswith("it gives ")


@pytest.mark.parametrize("library", sorted(MODULES))
def test_a_penalty_of_the_gradient_leaves_zeros_before_the_activation_and_not_none(
    copies, monkeypatch, library
):
    """With zeros an optimizer steps, a parameter without a gradient it skips."""
    monkeypatch.setenv("BASICSR_JIT", "True")

    def gradients():
        torch.manual_seed(0)
        convolution, noise = nn.Conv2d(3, 3, 3, bias=False), nn.Parameter(torch.ones(1))
        x, bias = torch.rand(2, 3, 8, 8).requires_grad_(), nn.Parameter(torch.zeros(3))
        y = relu.fused_leaky_relu(convolution(x) + noise, bias)
        (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        gradient.square().sum().backward()
        return convolution.weight.grad, noise.grad, bias.grad

    with fastgan.patch(library, quiet=True):
        relu, _ = imported(library)
        ours = gradients()
    assert_close(ours, gradients())
    assert torch.equal(ours[1], torch.zeros(1)) and torch.equal(ours[2], torch.zeros(3))


def test_what_ours_does_not_take_is_left_to_the_original(copies):
    x, kernel = torch.randn(1, 3, 5, 5), taps(3, 3)
    with fastgan.patch("rosinality.op", quiet=True):
        relu, filtering = imported("rosinality.op")
        trained = kernel.clone().requires_grad_()
        assert torch.autograd.grad(filtering.upfirdn2d(x, trained).sum(), trained)[0].shape == (3, 3)
        ours = relu.fused_leaky_relu(x, None, 0.1), relu.fused_leaky_relu(x.bfloat16())
    theirs = relu.fused_leaky_relu(x, None, 0.1), relu.fused_leaky_relu(x.bfloat16())
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
