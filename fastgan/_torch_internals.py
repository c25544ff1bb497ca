"""Every private API of torch that fastgan uses; no other file uses one.

All names exist from torch 2.10, the oldest supported version, to 2.14, and unless noted are older than 2.10.
Optional ones are looked up by `getattr`; without them fastgan takes the slower or more careful path that each
docstring names. tests/test_torch_internals.py fails if a meaning changes, and `make wheel` runs it against
three versions of torch. (C++ has one such place, `empty_like` in csrc/stable.h.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

Function = TypeVar("Function", bound=Callable[..., Any])


def _constant(result: Any) -> Callable[..., Any]:
    return lambda *_: result


# --- modes and transforms -----------------------------------------------------------------------------------


transform: Callable[[], Any] = torch._C._functorch.peek_interpreter_stack
"""The innermost transform of `torch.func` that is active, or None.

Transforms need an `autograd.Function` with a `setup_context` and a batching rule, and the values of their
tensors cannot be read. There is no public equivalent, and no safe default: without it every op fails.
"""


def inside_transform() -> bool:
    """Whether a :data:`transform` is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None


_is_wrapped = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", _constant(False))
_unwrapped = getattr(torch._C._functorch, "get_unwrapped", None)


def requires_grad_outside(tensor: Tensor) -> bool:
    """Whether a tensor that a transform has wrapped requires grad outside of that transform.

    Inside of `torch.func.grad` a wrapped argument requires grad only if the transform differentiates by it.
    Without these functions the answer is no, and an op that is differentiated by one argument inside of a
    transform and by another outside raises an error.
    """
    while _unwrapped is not None and _is_wrapped(tensor):
        tensor = _unwrapped(tensor)
        if tensor.requires_grad:
            return True
    return False


_dispatch_mode_count = getattr(torch._C, "_len_torch_dispatch_stack", _constant(1))


def watched_by_modes() -> bool:
    """Whether a dispatch mode intercepts every operation: fake tensors, tracing, flop counters.

    Modes must see the op, so it is then called through the dispatcher. Without this function it always is,
    which takes twice the time, and losses do not check the range of their inputs.
    """
    return _dispatch_mode_count() > 0


# A property of the tensor, not of the thread: backward passes on a GPU run in separate threads.
batched_by_autograd = getattr(torch._C._functorch, "is_legacy_batchedtensor", _constant(True))
"""Whether a tensor is a batch of gradients, of the vmap behind `torch.autograd.grad(is_grads_batched=True)`.

Functorch does not know that vmap, and the strides and data pointers of its tensors are not what they seem.
Without it every tensor counts as one: calls go through the dispatcher, and no saved tensor is overwritten.
"""


def forward_mode_active() -> bool:
    """Whether a `forward_ad.dual_level` is open, so that tensors may have tangents.

    Only then is each argument unpacked to look for a tangent, which is public but slow. Without the private
    level number every call unpacks its arguments.
    """
    return getattr(forward_ad, "_current_level", 0) >= 0


# --- the backward pass --------------------------------------------------------------------------------------

keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", _constant(True))
"""Whether the running backward pass retains its graph.

If not, a backward formula may write its result into a saved tensor. Without this function none does.
"""


below_autograd: Callable[[], AbstractContextManager[None]] = torch._C._AutoDispatchBelowAutograd
"""Context in which operations skip autograd's layer and go straight to their kernels.

For calls that need no graph, or whose graph is recorded by hand; a registered op then skips its Python
layers. C++ has the public equivalent `at::AutoDispatchBelowAutograd`; without it ops cannot run.
"""


def version(tensor: Tensor) -> int:
    """The number of in-place writes to the tensor, by optimizers and by hand.

    Autograd raises if it has changed since the tensor was saved. Without it, as for inference tensors, it is
    always 0 and does not show which of two networks is being trained.
    """
    return 0 if tensor.is_inference() else getattr(tensor, "_version", 0)


def has_module_hooks(module: nn.Module) -> bool:
    """Whether functions are registered on the module or its parts that see or change what passes through.

    Without it, hooks of a network whose layers are called one by one would not be called.
    """
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(part, name, None) for part in module.modules() for name in names)


def has_gradient_hooks(tensor: Tensor) -> bool:
    """Whether functions are registered on the tensor (`register_hook`) that see or change its gradient.

    Without it, hooks of a loss head's trained parameters would run twice where a LossBudget is used.
    """
    return bool(getattr(tensor, "_backward_hooks", None))


@contextlib.contextmanager
def clear_error_about_donated_buffers() -> Iterator[None]:
    """Says what to do where a compiled network is run backward twice.

    A graph of `torch.compile` whose first backward pass did not retain it gives its buffers away, and raises
    when a later pass retains it. The only switch is in a private module.
    """
    try:
        yield
    except RuntimeError as error:
        if "donated" not in str(error):
            raise
        raise RuntimeError(
            "loss terms that share a compiled network's forward pass run it backward once for each: set "
            "torch._functorch.config.donated_buffer = False before it is compiled"
        ) from error


def lerp_all(targets: list[Tensor], ends: list[Tensor], weight: float) -> None:
    """`target.lerp_(end, weight)` for each pair, in one launch for all tensors on a GPU.

    Without the private function, which torch's own optimizers use, in one launch for each.
    """
    if _foreach_lerp is not None:
        _foreach_lerp(targets, ends, weight)
        return
    for target, end in zip(targets, ends, strict=True):
        target.lerp_(end, weight)


_foreach_lerp = getattr(torch, "_foreach_lerp_", None)


# --- operators ----------------------------------------------------------------------------------------------


def schema(op: Any) -> Any:
    """The schema of an overload of an operator, whose arguments have names and types.

    The public way is the text by which the operator was declared, which would have to be parsed.
    """
    return op._schema


has_kernel: Callable[[str, str], bool] = getattr(
    torch._C, "_dispatch_has_kernel_for_dispatch_key", _constant(True)
)
"""Whether an operator, "namespace::name", has a kernel of its own for a dispatch key such as "CPU".

A library built from other sources may lack one. Without this function every declared kernel counts as there,
and a call of one that is not raises NotImplementedError.
"""


# --- Dynamo -------------------------------------------------------------------------------------------------


def mark_constant_for_dynamo(function: Function) -> Function:
    """Has Dynamo call the function while tracing and treat its result as a constant.

    Like `torch.compiler.assume_constant_result`, but without importing Dynamo, which takes seconds. If Dynamo
    ignored the mark, calls of the function would cause graph breaks.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def opaque_to_dynamo(function: Callable[..., Any]) -> tuple[Callable[[], bool], Callable[..., Any]]:
    """(`register`, `opaque`): `opaque` calls the function; after a call of `register` Dynamo puts it into
    graphs without tracing into it.

    The function begins with

        if torch.compiler.is_dynamo_compiling() and register():
            return opaque(*arguments)

    so that Dynamo itself calls `register` while tracing. Calling `torch.compiler.allow_in_graph` beforehand
    would do the same, but imports Dynamo, which takes as long as importing torch: processes that neither
    compile nor make an optimizer (`fastgan info`, `sample`, `encode`) avoid that. If Dynamo traces `opaque`
    nevertheless, it raises: otherwise second-order gradients inside transforms would be lost silently.
    """

    def opaque(*arguments: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            raise RuntimeError(
                "this torch's Dynamo traces functions that torch.compiler.allow_in_graph names"
            )
        return function(*arguments)

    @mark_constant_for_dynamo
    def register() -> bool:
        torch.compiler.allow_in_graph(opaque)
        return True

    return register, opaque


# --- modules ------------------------------------------------------------------------------------------------

WRAPPED = ("_orig_mod", "_forward_module")
"""The attributes under which `torch.compile` and Lightning Fabric keep the module that they wrap.

Averages and checkpoints name tensors as the bare network does. Without these names they would include the
wrapper's prefix.
"""

BatchNorm = nn.modules.batchnorm._BatchNorm
"""The base of batch normalization in any number of dimensions, lazy and synchronized ones included.

There is no public base class; without it each class would have to be listed.
"""


def parameter_table(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The module's direct parameters by name: the dictionary itself, in which they are replaced.

    `named_parameters` copies and walks all submodules. EMA checks the tables at every update for replaced
    parameters, and such a walk would take longer than the update.
    """
    return module._parameters


def buffer_table(module: nn.Module) -> dict[str, Tensor | None]:
    """The module's direct buffers by name; as :func:`parameter_table`."""
    return module._buffers


def module_table(module: nn.Module) -> dict[str, nn.Module | None]:
    """The module's direct submodules by name; as :func:`parameter_table`."""
    return module._modules


def is_wrapped_by_fsdp(module: object) -> bool:
    """Whether the module is a FullyShardedDataParallel, the first FSDP.

    Recognized by class name: importing `torch.distributed.fsdp` takes long, and fails where torch was built
    without torch.distributed. A class of another name is not recognized, and penalties do not refuse it.
    """
    return any("FullyShardedDataParallel" in kind.__name__ for kind in type(module).__mro__)


def sharded_modules(module: object) -> list[Any]:
    """The modules in it that `fully_shard`, the second FSDP, has sharded; by class name, as above."""
    if not isinstance(module, nn.Module):
        return []
    return [m for m in module.modules() if any(kind.__name__ == "FSDPModule" for kind in type(m).__mro__)]


def half_of_sharded(module: object) -> torch.dtype | None:
    """The half precision in which a sharded module computes by its MixedPrecisionPolicy, or None.

    The policy has no public getter. Without this, penalties in half precision are not warned of.
    """
    for part in sharded_modules(module):
        dtype = getattr(getattr(part._get_fsdp_state(), "_mp_policy", None), "param_dtype", None)
        if dtype in (torch.bfloat16, torch.float16):
            return dtype
    return None


class ConvolvingConv2d(nn.Conv2d):
    """`nn.Conv2d` whose convolution is the method :meth:`convolve`.

    `nn.Conv2d.forward` passes weight and bias to a method with a private name, which layers that transform
    their weights call as well. Overriding `forward` instead would miss those layers.
    """

    def convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.convolve(input, weight, bias)


def convolves_as_torch(kind: type[nn.Conv2d]) -> bool:
    """Whether a subclass of `nn.Conv2d` inherits its convolution unchanged."""
    return kind._conv_forward is nn.Conv2d._conv_forward


def padding_widths(layer: nn.Conv2d) -> list[int]:
    """The layer's padding, "same" included, in the form of `torch.nn.functional.pad`."""
    return layer._reversed_padding_repeated_twice


# --- optimizers ---------------------------------------------------------------------------------------------

AMP_SCALING = "_step_supports_amp_scaling"
"""The attribute by which `torch.amp.GradScaler` recognizes optimizers whose step unscales the gradients
itself.

During the step GradScaler then sets `grad_scale` and `found_inf` on the optimizer, two tensors on its device.
Without it GradScaler unscales in a separate sweep and synchronizes with the device at every step.
"""


def supports_amp_scaling(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's step does nothing if `found_inf` is 1, like torch's with ``fused=True``."""
    return getattr(optimizer, AMP_SCALING, False)


def init_group(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> None:
    """Initializes the state of the group's parameters that have a gradient, as the first step of torch's
    Adam, AdamW and RMSprop does.

    This keeps state dicts identical to torch's. Without it the names of the state's entries would have to be
    repeated here.
    """
    lists: list[list] = [[] for _ in range(6)]
    optimizer._init_group(group, *lists)  # type: ignore[attr-defined]


# One launch for a list of tensors; torch.optim is built on these. Without them it would be a loop.
foreach_copy_ = torch._foreach_copy_
foreach_clamp_min_ = torch._foreach_clamp_min_
foreach_clamp_max_ = torch._foreach_clamp_max_
foreach_sub_ = torch._foreach_sub_
foreach_norm = torch._foreach_norm
