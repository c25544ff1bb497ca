"""Private names of torch have the meaning that fastgan relies on."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.testing import assert_close

import fastgan
from fastgan import _torch_internals as internals
from fastgan.ops import _library

# Names of torch that are used without `torch.` before them.
LISTED = {
    "_buffers", "_parameters", "_modules", "_version", "_conv_forward", "_reversed_padding_repeated_twice",
    "_init_group", "_step_supports_amp_scaling", "_orig_mod", "_forward_module", "_BatchNorm",
    "_local_tensor", "_grad_fn", "_backward_hooks", "_forward_hooks", "_dynamo_marked_constant",
    "_current_level", "_C", "_foreach_copy_", "_per_optimizer_states", "_found_inf_per_device",
}  # fmt: skip
# Private names that are not torch's: those of Python, of named tuples, and of argparse.
OF_OTHERS = {"_getframe", "_exit", "_replace", "_actions", "_asdict"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name != "_"


def private_names_of_torch(tree: ast.AST, own: set[str]) -> set[str]:
    """Private names of torch that a file uses; `own` are all names that fastgan itself defines."""
    torch_names = {"torch"}
    actual = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = (getattr(node, "module", None) or "").split(".")
            for alias in node.names:
                path = [*module, *alias.name.split(".")] if module != [""] else alias.name.split(".")
                if path[0] == "torch":
                    torch_names.add(alias.asname or alias.name.split(".")[0])
                    if any(map(is_private, path)):
                        actual.add(".".join(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root = ast.unparse(node).split(".")[0]
            if root in torch_names or node.attr in LISTED or node.attr not in own | OF_OTHERS:
                actual.add(ast.unparse(node))
        if isinstance(node, ast.Constant) and node.value in LISTED - {"_C"}:
            actual.add(repr(node.value))
        if isinstance(node, ast.FunctionDef) and node.name in LISTED:
            actual.add(f"def {node.name}")
    return actual


def names_defined_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).rpartition(".")[2]
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg


@pytest.mark.parametrize("is_there", [True, False])
def test_lerp_all_moves_each_tensor(monkeypatch, is_there):
    if not is_there:
        monkeypatch.setattr(internals, "_foreach_lerp", None)
    targets, ends = [torch.zeros(3), torch.ones(2, 2)], [torch.ones(3), torch.full((2, 2), 5.0)]
    internals.lerp_all(targets, ends, 0.25)
    assert torch.equal(targets[0], torch.full((3,), 0.25)) and torch.equal(
        targets[1], torch.full((2, 2), 2.0)
    )


def test_private_names_of_torch_stand_in_one_file():
    package = Path(fastgan.__file__).parent
    # The folders of kernels and benchmarks are links in a source tree, which `**` does not follow.
    folders = (package, package / "kernels", package / "bench")
    files = sorted({path.resolve() for folder in folders for path in folder.glob("**/*.py")})
    trees = {path: ast.parse(path.read_text()) for path in files}
    own = {name for tree in trees.values() for name in names_defined_in(tree)}
    actual = {path.name: private_names_of_torch(tree, own) for path, tree in trees.items()}
    assert len(actual.pop("_torch_internals.py")) > 20
    assert {name: used for name, used in actual.items() if used} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import torch\ntorch._foreach_add_([], 1)",
        "import torch._dynamo",
        "from torch._subclasses import FakeTensorMode",
        "from torch.optim.optimizer import _default_to_fused_or_foreach",
        "from torch import nn\nnn.Module._apply",
        "def f(module):\n    return module._buffers",
        "def f(optimizer):\n    return getattr(optimizer, '_step_supports_amp_scaling', False)",
        "def f(x):\n    return x._has_symbolic_sizes_strides",
    ],
)
def test_a_private_name_of_torch_is_found(line):
    assert private_names_of_torch(ast.parse(line), own=set())


def test_wrapped_tensors_may_require_grad_outside():
    answers = []

    def function(x, y):
        answers.append((internals.requires_grad_outside(x), internals.requires_grad_outside(y)))
        return (x * y).sum()

    x, y = torch.rand(2, 3), torch.rand(2, 3, requires_grad=True)
    torch.func.grad(function)(x, y)
    torch.func.vmap(torch.func.grad(function))(x, y)
    function(x, y)
    assert answers == [(False, True), (False, True), (False, False)]


def test_each_of_them_has_a_test():
    tested = Path(__file__).read_text()
    own = [
        node.name if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else ast.unparse(node).split(" ")[0]
        for node in ast.parse(Path(internals.__file__).read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign))
    ]
    names = [name.strip(":") for name in own if not is_private(name.strip(":")) and name != "Function"]
    assert len(names) > 15
    assert [name for name in names if f"internals.{name}" not in tested] == []


# --- who watches, and the backward pass ---------------------------------------------------------------------


def test_transforms_are_known():
    results = []
    function = lambda x: results.append(internals.inside_transform()) or x.sum()  # noqa: E731
    x = torch.rand(3)
    function(x)
    torch.func.grad(function)(x)
    torch.vmap(function)(x)
    torch.func.functionalize(function)(x)
    assert results == [False, True, True, True]
    assert not internals.inside_transform() and internals.transform() is None
    torch.vmap(lambda x: results.append(internals.transform()) or x)(x)
    assert results[-1] is not None


def test_modes_are_known():
    assert not internals.watched_by_modes()
    with torch._subclasses.FakeTensorMode():
        assert internals.watched_by_modes()
    with torch.device("cpu"):  # which changes arguments, and sees no operations
        assert not internals.watched_by_modes()


def test_batches_of_gradients_are_known():
    results = []
    x = torch.rand(3, requires_grad=True)
    y = x.clone()
    y.register_hook(lambda grad: results.append(internals.batched_by_autograd(grad)))
    torch.autograd.grad(y, x, torch.rand(3), retain_graph=True)
    torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True)
    assert results == [False, True]


def test_forward_mode_is_known():
    assert not internals.forward_mode_active()
    with forward_ad.dual_level():
        assert internals.forward_mode_active()
    assert not internals.forward_mode_active()


@pytest.mark.parametrize("retain", [True, False])
def test_a_pass_that_retains_its_graph_is_known(retain):
    results = []
    x = torch.rand(3, requires_grad=True)
    y = x.clone()
    y.register_hook(lambda grad: results.append(internals.keeps_graph()))
    y.sum().backward(retain_graph=retain)
    assert results == [retain]


def test_no_graph_is_recorded_below_autograd():
    x = torch.rand(3, requires_grad=True)
    with internals.below_autograd():
        assert (2 * x).grad_fn is None
    assert (2 * x).grad_fn is not None


def test_versions_count_what_is_written():
    x = torch.nn.Parameter(torch.rand(3))
    before = internals.version(x)
    (x * 2).sum().backward()
    assert internals.version(x) == before
    torch.optim.Adam([x]).step()
    assert internals.version(x) > before
    with torch.inference_mode():
        assert internals.version(torch.rand(3)) == 0


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)  # fmt: skip
def test_hooks_of_a_modules_parts_are_known(register):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert not internals.has_module_hooks(module)
    handle = getattr(module[0], register)(lambda *_: None)
    assert internals.has_module_hooks(module)
    handle.remove()
    assert not internals.has_module_hooks(module)


def test_hooks_of_gradients_are_known():
    x = torch.nn.Parameter(torch.rand(3))
    assert not internals.has_gradient_hooks(x)
    # Which sees the sum of all gradients, and no single one.
    x.register_post_accumulate_grad_hook(lambda p: None)
    assert not internals.has_gradient_hooks(x)
    handles = [x.register_hook(lambda grad: 2 * grad) for _ in range(2)]
    for handle in handles:
        assert internals.has_gradient_hooks(x)
        (gradient,) = torch.autograd.grad(x.sum(), x)
        assert (gradient > 1).all()  # the hook runs in this pass, too
        handle.remove()
    assert not internals.has_gradient_hooks(x)


def test_dynamo_calls_what_is_marked_while_it_traces():
    calls = []

    @internals.mark_constant_for_dynamo
    def note():
        calls.append(sys._getframe())  # which Dynamo cannot trace
        return 2

    compiled = torch.compile(lambda x: note() * x, fullgraph=True, backend="eager")
    x = torch.rand(3)
    assert torch.equal(compiled(x), 2 * x)
    traced = len(calls)
    compiled(x)
    assert len(calls) == traced >= 1


def test_dynamo_takes_opaque_functions_as_they_are():
    def function(x):
        sys._getframe()  # which Dynamo cannot trace
        return 2 * x

    def call(x):
        if torch.compiler.is_dynamo_compiling() and register():
            return opaque(x)
        return function(x)

    register, opaque = internals.opaque_to_dynamo(function)
    x = torch.rand(3)
    for backend in ("eager", "aot_eager"):
        assert torch.equal(torch.compile(call, fullgraph=True, backend=backend)(x), 2 * x)
    _, untold = internals.opaque_to_dynamo(function)
    with pytest.raises(Exception, match="Dynamo traces functions"):
        torch.compile(lambda x: untold(x), fullgraph=True, backend="eager")(x)


@pytest.mark.parametrize("before", ["", "import torch._dynamo\n"])
def test_ops_in_compiled_transforms_have_second_order_gradients(before):
    """With Dynamo imported before or after the ops, which do not import it themselves."""
    script = """
import sys
import fastgan.losses
from fastgan.ops import squared_norm
import torch
assert BEFORE or "torch._dynamo" not in sys.modules

def penalty(x):
    gradient = torch.func.grad(lambda x: squared_norm(x).square().sum())(x)
    return squared_norm(gradient).sum()

x = torch.rand(2, 5, requires_grad=True)
(expected,) = torch.autograd.grad(16 * (x.square().sum(1) ** 3).sum(), x)
for function in (penalty, torch.compile(penalty, fullgraph=True, backend="aot_eager")):
    torch.testing.assert_close(torch.autograd.grad(function(x), x)[0], expected)
""".replace("BEFORE", repr(bool(before)))
    folder = Path(fastgan.__file__).parent.parent
    subprocess.run([sys.executable, "-c", before + script], check=True, cwd=folder)


# --- modules ------------------------------------------------------------------------------------------------


def test_compiled_networks_have_theirs_under_a_known_name():
    bare = nn.Linear(2, 2)
    compiled = torch.compile(bare)
    assert internals.module_table(compiled)[internals.WRAPPED[0]] is bare
    assert list(compiled.state_dict()) == ["_orig_mod.weight", "_orig_mod.bias"]


def test_networks_of_fabric_have_theirs_under_a_known_name():
    fabric = pytest.importorskip("lightning_fabric")
    bare = nn.Linear(2, 2)
    wrapped = fabric.Fabric(accelerator="cpu", devices=1).setup(bare)
    assert internals.module_table(wrapped)[internals.WRAPPED[1]] is bare


def test_batch_norm_is_all_of_them_and_nothing_else():
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LazyBatchNorm2d):
        assert issubclass(kind, internals.BatchNorm)
    for other in (nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm):
        assert not issubclass(other, internals.BatchNorm)


def test_tables_of_a_module_are_where_it_looks_itself():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    assert list(internals.module_table(module)) == ["0", "1"]
    assert internals.parameter_table(module) == internals.buffer_table(module) == {}
    part = module[0]
    parameters, buffers = internals.parameter_table(part), internals.buffer_table(part)
    assert list(parameters) == ["weight", "bias"]
    assert list(buffers) == ["running_mean", "running_var", "num_batches_tracked"]
    part.weight = nn.Parameter(torch.rand(2))
    part.running_mean = torch.rand(2)
    part.load_state_dict({**part.state_dict(), "bias": torch.rand(2)}, assign=True)
    assert parameters is internals.parameter_table(part) and buffers is internals.buffer_table(part)
    assert parameters["weight"] is part.weight and parameters["bias"] is part.bias
    assert buffers["running_mean"] is part.running_mean
    module[1] = nn.Linear(2, 3)
    assert internals.module_table(module)["1"] is module[1]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_modules_that_fsdp_shards_are_known():
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    # fully_shard replaces a module's class by a subclass.
    part = nn.Linear(2, 2)
    part.__class__ = type("FSDPLinear", (FSDPModule, nn.Linear), {})
    assert internals.sharded_modules(nn.Sequential(nn.Linear(2, 2), part)) == [part]
    assert internals.is_wrapped_by_fsdp(object.__new__(FullyShardedDataParallel))
    for other in (nn.Linear(2, 2), nn.DataParallel(nn.Linear(2, 2)), len):
        assert not internals.is_wrapped_by_fsdp(other) and not internals.sharded_modules(other)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_the_precision_of_sharded_modules_is_read(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/s", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        fully_shard(network[0], mesh=mesh)
        fully_shard(network, mesh=mesh, mp_policy=MixedPrecisionPolicy(torch.bfloat16))
        assert internals.half_of_sharded(network) == torch.bfloat16
        assert internals.half_of_sharded(network[0]) is None
    finally:
        torch.distributed.destroy_process_group()


class Doubled(internals.ConvolvingConv2d):
    def convolve(self, input, weight, bias):
        return 2 * F.conv2d(input, weight, bias)


class Halved(nn.Conv2d):
    """Changes its weight first, as weight standardization does."""

    def forward(self, input):
        return self._conv_forward(input, self.weight / 2, self.bias)


def test_convolutions_go_through_their_method():
    x = torch.rand(1, 2, 5, 5)
    layer = Doubled(2, 3, 3)
    assert_close(layer(x), 2 * F.conv2d(x, layer.weight, layer.bias))
    both = type("Both", (Halved, Doubled), {})(2, 3, 3, bias=False)
    assert_close(both(x), F.conv2d(x, both.weight))
    assert internals.convolves_as_torch(nn.Conv2d) and internals.convolves_as_torch(Halved)
    assert not internals.convolves_as_torch(Doubled)


@pytest.mark.parametrize("padding", [0, 2, (1, 2), "same", "valid"])
def test_padding_widths_are_what_pad_takes(padding):
    layer, x = nn.Conv2d(2, 3, (4, 3), padding=padding, dilation=(1, 2)), torch.rand(1, 2, 9, 9)
    padded = F.pad(x, internals.padding_widths(layer))
    assert_close(F.conv2d(padded, layer.weight, layer.bias, dilation=(1, 2)), layer(x))


# --- optimizers ---------------------------------------------------------------------------------------------


def test_a_scaler_gives_the_scale_to_optimizers_that_unscale():
    class Recording(torch.optim.SGD):
        seen = ()

        def step(self, closure=None):
            self.seen = (self.grad_scale.item(), self.found_inf.item())

    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for value, found_inf in ((1.0, 0.0), (torch.inf, 1.0)):
        weight = nn.Parameter(torch.ones(1))
        optimizer = Recording([weight], lr=0.1)
        assert not internals.supports_amp_scaling(optimizer)
        setattr(optimizer, internals.AMP_SCALING, True)
        assert internals.supports_amp_scaling(optimizer)
        scaler.scale((value * weight).sum()).backward()
        scaler.step(optimizer)
        scale = scaler.get_scale()
        assert optimizer.seen == (scale, found_inf) and not hasattr(optimizer, "found_inf")
        assert weight.grad.item() == scale * value  # nothing else has unscaled it
        scaler.update()


def test_torchs_optimizers_leave_out_steps_where_they_are_fused():
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    assert not internals.supports_amp_scaling(torch.optim.Adam([weight], fused=False))
    optimizer = torch.optim.Adam([weight], fused=True)
    assert internals.supports_amp_scaling(optimizer)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert weight.item() == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {}), (torch.optim.Adam, {"amsgrad": True}), (torch.optim.AdamW, {}),
        (torch.optim.RMSprop, {}), (torch.optim.RMSprop, {"centered": True, "momentum": 0.5}),
    ],
)  # fmt: skip
def test_init_group_makes_the_state_of_the_first_step(kind, options):
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    used.grad = torch.zeros(2)
    optimizer, expected = kind([used, unused], **options), kind([used, unused], **options)
    internals.init_group(optimizer, optimizer.param_groups[0])
    expected.step()
    assert list(optimizer.state) == [used] == list(expected.state)
    assert optimizer.state[used].keys() == expected.state[used].keys()
    for name, value in optimizer.state[used].items():
        required = expected.state[used][name]
        assert (value.dtype, value.shape, value.device) == (required.dtype, required.shape, required.device)
        assert not value.any()
    before = dict(optimizer.state[used])
    internals.init_group(optimizer, optimizer.param_groups[0])
    assert all(optimizer.state[used][name] is value for name, value in before.items())


def test_lists_of_tensors_are_changed_in_place():
    def lists():
        return [torch.full((2,), 3.0), torch.full((3,), -3.0)], [torch.ones(2), torch.ones(3)]

    for function, expected in (
        (lambda a, b: internals.foreach_copy_(a, b), (1.0, 1.0)),
        (lambda a, b: internals.foreach_clamp_min_(a, -1.0), (3.0, -1.0)),
        (lambda a, b: internals.foreach_clamp_max_(a, 1.0), (1.0, -3.0)),
        (lambda a, b: internals.foreach_sub_(a, b), (2.0, -4.0)),
    ):
        a, b = lists()
        function(a, b)
        assert [(tensor == value).all().item() for tensor, value in zip(a, expected, strict=True)] == [
            True
        ] * 2


def test_norms_of_lists_are_of_the_dtype_asked_for():
    large = [torch.full((4,), 6e4, dtype=torch.float16), torch.full((9,), 2.0, dtype=torch.float16)]
    norms = internals.foreach_norm(large, 2, dtype=torch.float32)
    assert [norm.item() for norm in norms] == [1.2e5, 6.0]
    assert {norm.dtype for norm in norms} == {torch.float32}


# --- operators ----------------------------------------------------------------------------------------------


def test_kernels_of_an_operator_are_known():
    library = torch.library.Library("fastgan_test_kernels", "DEF")
    library.define("on_cpu(Tensor x) -> Tensor")
    library.define("nowhere(Tensor x) -> Tensor")
    library.define("anywhere(Tensor x) -> Tensor")
    library.impl("on_cpu", torch.sin, "CPU")
    library.impl("anywhere", torch.sin, "CompositeExplicitAutograd")
    known = {
        (name, key)
        for name in ("on_cpu", "nowhere", "anywhere")
        for key in ("CPU", "CUDA")
        if internals.has_kernel(f"fastgan_test_kernels::{name}", key)
    }
    assert known == {("on_cpu", "CPU")}


def test_a_schema_has_arguments_with_types():
    library = torch.library.Library("fastgan_test_schema", "DEF")
    library.define("op(Tensor[] gradients, Tensor? weights, float scale) -> Tensor")
    arguments = internals.schema(torch.ops.fastgan_test_schema.op.default).arguments
    assert [argument.name for argument in arguments] == ["gradients", "weights", "scale"]
    assert isinstance(arguments[0].type, torch.ListType)
    assert arguments[0].type.getElementType() == torch.TensorType.get()
    assert not isinstance(arguments[1].type, torch.ListType)


def test_an_error_about_donated_buffers_says_what_to_do():
    """That torch still raises it is tested in tests/monitor/test_loss_budget_precision.py."""
    assert torch._functorch.config.donated_buffer in (True, False)
    with (
        pytest.raises(RuntimeError, match="donated_buffer = False"),
        internals.clear_error_about_donated_buffers(),
    ):
        raise RuntimeError("This backward function was compiled with non-empty donated buffers")
    with pytest.raises(RuntimeError, match="^another$"), internals.clear_error_about_donated_buffers():
        raise RuntimeError("another")


# --- C++ ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(_library.cpu_missing), reason="the CPU library is missing")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_of_kernels_have_another_dtype_and_the_strides_of_their_input(layout):
    """`empty_like` of csrc/stable.h, which calls torch's dispatcher."""
    x = torch.rand(2, 3, 4, 5).to(memory_format=layout)
    y, codes = torch.ops.fastgan.bias_leaky_relu(x, None, 0.2, 1.0, float("inf"), True)
    assert codes.dtype == torch.uint8 and codes.stride() == y.stride() == x.stride()
