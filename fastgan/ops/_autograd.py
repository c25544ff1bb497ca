"""How ops are given their gradients, and what a formula may know about the pass it runs in."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import torch

from fastgan.ops import _library

_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)


def differentiable(name: str, setup_context: Callable, backward: Callable) -> Callable:
    """Registers the gradient of `fastgan::<name>` and returns the op as a function to call.

    Where an output has no gradient, which is so for masks always, the formula gets None instead of zeros that
    somebody would have to write; it is not called where no output has one.

    The registration serves eager mode, `torch.compile` and export. Transforms of `torch.func` accept
    only an `autograd.Function` with a separate `setup_context`, so under them the returned function
    goes through one, with the same two formulas.
    """

    def setup(ctx, inputs, output):
        ctx.set_materialize_grads(False)
        setup_context(ctx, inputs, output)

    def gradients(ctx, *grads):
        if all(grad is None for grad in grads):
            return (None,) * len(ctx.needs_input_grad)
        return backward(ctx, *grads)

    op = getattr(torch.ops.fastgan, name).default
    torch.library.register_autograd(f"fastgan::{name}", gradients, setup_context=setup, lib=_library.LIBRARY)
    function: Any = type(
        f"{name}_function",
        (torch.autograd.Function,),
        {
            "forward": staticmethod(lambda *arguments: op(*arguments)),
            "setup_context": staticmethod(setup),
            "backward": staticmethod(gradients),
        },
    )

    def call(*arguments):
        return function.apply(*arguments) if _inside_functorch() else op(*arguments)

    # Whether a transform is active is known when the graph is traced through, not when Dynamo reads `call`:
    # it would take the registered gradient, which under a transform has no second order, and says nothing.
    _calls.append(call)
    if "torch._dynamo" in sys.modules:
        torch.compiler.allow_in_graph(call)
    return call


def saved_tensors_are_ours() -> bool:
    """Whether this backward pass is the last that can see the tensors saved for it.

    Then a formula may write its result into a saved tensor that nothing else refers to, and spare an
    allocation the size of a gradient. True only for an eager ``backward()`` without ``retain_graph``
    or ``create_graph``; AOTAutograd donates its buffers under the same condition. False where this
    torch does not tell.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or _keeps_graph is None:
        return False
    return not _keeps_graph() and not _inside_functorch()


class _WhenDynamoComes(importlib.abc.MetaPathFinder):
    """Tells Dynamo of our calls as soon as somebody imports it: doing so ourselves would take seconds."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torch._dynamo":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_tell(module):
                execute(module)
                for call in _calls:
                    torch.compiler.allow_in_graph(call)

            spec.loader.exec_module = execute_and_tell  # type: ignore[method-assign]
        return spec


_calls: list[Callable] = []
if "torch._dynamo" not in sys.modules:
    sys.meta_path.insert(0, _WhenDynamoComes())


def _inside_functorch() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None
