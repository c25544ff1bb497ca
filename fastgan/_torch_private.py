"""What fastgan asks of torch that torch does not promise to keep.

All of it is there from torch 2.10, the oldest that is supported, to 2.14. What can be done without is looked
up by `getattr`, and a torch without it takes the slower or the more careful way that each function names.
tests/test_torch_private.py fails if a meaning changes.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch.autograd import forward_ad

Function = TypeVar("Function", bound=Callable[..., Any])


def _missing(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer


# --- who watches ------------------------------------------------------------------------------------------


def inside_transform() -> bool:
    """Whether a transform of `torch.func` is active.

    Transforms need an `autograd.Function` with a `setup_context` and a batching rule, and their tensors have
    no values to look at. Nothing public tells, and neither answer would be safe: without it every op fails.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", _missing(1))


def watched_by_modes() -> bool:
    """Whether a mode sees every operation: fake tensors, tracing, flop counters.

    They are to see the op, and so it is called through the dispatcher. Without this function it always is, in
    twice the time, and losses do not look at their inputs.
    """
    return _dispatch_modes() > 0


# Asked of the tensor and not of the thread: backward passes on a GPU run in threads of their own.
batched_by_autograd = getattr(torch._C._functorch, "is_legacy_batchedtensor", _missing(True))
"""Whether a tensor is a batch of gradients, of the vmap behind `torch.autograd.grad(is_grads_batched=True)`.

Functorch knows nothing of that vmap, whose tensors have neither the memory nor the strides that they show.
Without it every tensor counts as one: calls go through the dispatcher, and formulas write into nothing saved.
"""


def forward_mode_active() -> bool:
    """Whether a `forward_ad.dual_level` is open, so that tensors may have tangents.

    Only there is each argument unpacked to see, which is public but slow. Without the level's number it
    always is.
    """
    return getattr(forward_ad, "_current_level", 0) >= 0


# --- the backward pass --------------------------------------------------------------------------------------

keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", _missing(True))
"""Whether the backward pass that is running was asked to retain its graph.

Where it was not, a formula may write its result into what was saved for it. Without it none does.
"""


below_autograd: Callable[[], AbstractContextManager[None]] = torch._C._AutoDispatchBelowAutograd
"""Operations inside go straight to their kernels, past autograd's layer.

For where no graph is wanted, or one is being recorded by hand; it saves a registered op its Python. C++ has
the same as the public `at::AutoDispatchBelowAutograd`; without it ops cannot run.
"""


def version(tensor: torch.Tensor) -> int:
    """A count of what was written into the tensor in place, by optimizers and by hand.

    Autograd raises where it has changed since a tensor was saved. Without it, as for tensors of inference
    mode, it is always 0, and does not show which of two networks is being trained.
    """
    return 0 if tensor.is_inference() else getattr(tensor, "_version", 0)


# --- Dynamo -------------------------------------------------------------------------------------------------


def mark_constant_for_dynamo(function: Function) -> Function:
    """Dynamo calls the function while it traces, and takes what it returns for a constant.

    As `torch.compiler.assume_constant_result`, which imports Dynamo, and that takes seconds. If Dynamo
    stopped heeding the mark, a graph would break where the function is called.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def allow_in_graph(function: Function) -> Function:
    """As `torch.compiler.allow_in_graph`, which imports Dynamo, once somebody else has imported that.

    It hangs on the name of the module `torch._dynamo`. Under another name Dynamo would trace the function
    itself, which is right but for second-order gradients inside of transforms.
    """
    _in_graph.append(function)
    if "torch._dynamo" in sys.modules:
        torch.compiler.allow_in_graph(function)
    return function


class _WhenDynamoComes(importlib.abc.MetaPathFinder):
    """Tells Dynamo of the functions when it is imported."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torch._dynamo":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_tell(module):
                execute(module)
                for function in _in_graph:
                    torch.compiler.allow_in_graph(function)

            spec.loader.exec_module = execute_and_tell  # type: ignore[method-assign]
        return spec


_in_graph: list[Callable] = []
if "torch._dynamo" not in sys.modules:
    sys.meta_path.insert(0, _WhenDynamoComes())
