"""What torch does not promise means what fastgan takes it to mean."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad

import fastgan
from fastgan import _torch_private as private


def test_private_names_of_torch_stand_in_one_file():
    package = Path(fastgan.__file__).parent
    found = set()
    for path in [*package.glob("**/*.py"), *(package / "kernels").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            named = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            is_private = any(part.startswith("_") and not part.endswith("__") for part in named.split("."))
            if named.startswith(("torch.", "forward_ad.")) and is_private:
                found.add((path.name, named))
    outside = {(file, named) for file, named in found if file != "_torch_private.py"}
    # What optimizers of one's own are made of, and as stable as torch's.
    assert outside == {("_pairs.py", "torch._foreach_copy_")}


def test_transforms_are_known():
    seen = []
    function = lambda x: seen.append(private.inside_transform()) or x.sum()  # noqa: E731
    x = torch.rand(3)
    function(x)
    torch.func.grad(function)(x)
    torch.vmap(function)(x)
    torch.func.functionalize(function)(x)
    assert seen == [False, True, True, True]
    assert not private.inside_transform()


def test_modes_are_known():
    assert not private.watched_by_modes()
    with torch._subclasses.FakeTensorMode():
        assert private.watched_by_modes()
    with torch.device("cpu"):  # which changes arguments, and sees no operations
        assert not private.watched_by_modes()


def test_batches_of_gradients_are_known():
    seen = []
    x = torch.rand(3, requires_grad=True)
    y = x.clone()
    y.register_hook(lambda grad: seen.append(private.batched_by_autograd(grad)))
    torch.autograd.grad(y, x, torch.rand(3), retain_graph=True)
    torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True)
    assert seen == [False, True]


def test_forward_mode_is_known():
    assert not private.forward_mode_active()
    with forward_ad.dual_level():
        assert private.forward_mode_active()
    assert not private.forward_mode_active()


@pytest.mark.parametrize("retain", [True, False])
def test_a_pass_that_retains_its_graph_is_known(retain):
    seen = []
    x = torch.rand(3, requires_grad=True)
    y = x.clone()
    y.register_hook(lambda grad: seen.append(private.keeps_graph()))
    y.sum().backward(retain_graph=retain)
    assert seen == [retain]


def test_no_graph_is_recorded_below_autograd():
    x = torch.rand(3, requires_grad=True)
    with private.below_autograd():
        assert (2 * x).grad_fn is None
    assert (2 * x).grad_fn is not None


def test_versions_count_what_is_written():
    x = torch.nn.Parameter(torch.rand(3))
    before = private.version(x)
    (x * 2).sum().backward()
    assert private.version(x) == before
    torch.optim.Adam([x]).step()
    assert private.version(x) > before
    with torch.inference_mode():
        assert private.version(torch.rand(3)) == 0


def test_dynamo_calls_what_is_marked_while_it_traces():
    calls = []

    @private.mark_constant_for_dynamo
    def note():
        calls.append(sys._getframe())  # which Dynamo cannot trace
        return 2

    compiled = torch.compile(lambda x: note() * x, fullgraph=True, backend="eager")
    x = torch.rand(3)
    assert torch.equal(compiled(x), 2 * x)
    traced = len(calls)
    compiled(x)
    assert len(calls) == traced >= 1


def test_dynamo_is_told_when_it_comes_and_not_imported():
    script = """
import sys, fastgan, torch
from fastgan import _torch_private as private
assert "torch._dynamo" not in sys.modules
from fastgan.ops.squared_norm import _squared_norm
import torch._dynamo
from torch._dynamo import trace_rules
assert _squared_norm in private._in_graph
assert all(id(function) in trace_rules._allowed_callable_ids.function_ids for function in private._in_graph)
late = private.allow_in_graph(lambda x: x)
assert id(late) in trace_rules._allowed_callable_ids.function_ids
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(fastgan.__file__).parent.parent)
