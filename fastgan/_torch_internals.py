"""Everything that fastgan asks of torch and torch does not promise to keep, and nothing of it elsewhere.

All names are there from torch 2.10, the oldest that is supported, to 2.14; those without another remark are
older than 2.10. What can be done without is looked up by `getattr`, and a torch without it takes the slower
or the more careful way that each function names. tests/test_torch_internals.py fails if a meaning changes,
and `make wheel` runs it against three versions of torch. (C++ has one such place, `empty_like` in
csrc/stable.h.)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

Function = TypeVar("Function", bound=Callable[..., Any])


def _missing(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer


# --- who watches ------------------------------------------------------------------------------------------


transform: Callable[[], Any] = torch._C._functorch.peek_interpreter_stack
"""The innermost transform of `torch.func` that is active, or None.

Transforms need an `autograd.Function` with a `setup_context` and a batching rule, and their tensors have
no values to look at. Nothing public tells, and neither answer would be safe: without it every op fails.
"""


def inside_transform() -> bool:
    """Whether a :data:`transform` is active."""
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


def version(tensor: Tensor) -> int:
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


def opaque_to_dynamo(function: Callable[..., Any]) -> tuple[Callable[[], bool], Callable[..., Any]]:
    """(`tell_dynamo`, `opaque`): `opaque` calls the function, and `torch.compile` takes it as it is, without
    reading it, once `tell_dynamo` was called.

    The function begins with

        if torch.compiler.is_dynamo_compiling() and tell_dynamo():
            return opaque(*arguments)

    so that Dynamo itself calls `tell_dynamo` while it traces. `torch.compiler.allow_in_graph` does the same
    when it is called before, but imports Dynamo, which takes as long as importing torch: processes that
    neither compile nor make an optimizer (`fastgan info`, `sample`, `encode`) do without it. Where Dynamo
    reads `opaque` all the same, it finds an error: it would otherwise lose second-order gradients inside of
    transforms without a word.
    """

    def opaque(*arguments: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            raise RuntimeError(
                "this torch's Dynamo traces functions that torch.compiler.allow_in_graph names"
            )
        return function(*arguments)

    @mark_constant_for_dynamo
    def tell_dynamo() -> bool:
        torch.compiler.allow_in_graph(opaque)
        return True

    return tell_dynamo, opaque


# --- modules ------------------------------------------------------------------------------------------------

WRAPPED = ("_orig_mod", "_forward_module")
"""By which names `torch.compile` and Lightning Fabric have the network that they wrap, among its parts.

Averages and checkpoints name tensors as the bare network does. Without these names they would carry the
wrapper's.
"""

BatchNorm = nn.modules.batchnorm._BatchNorm
"""The base of batch normalization in any number of dimensions, lazy and synchronized ones included.

There is no public one; without it each class would have to be listed.
"""


def parameter_table(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The module's own parameters by name: the dictionary itself, in which they are replaced.

    `named_parameters` gives a copy, and walks through all parts. EMA looks into the tables at every update to
    see whether a parameter was replaced, where a walk takes longer than the update.
    """
    return module._parameters


def buffer_table(module: nn.Module) -> dict[str, Tensor | None]:
    """The module's own buffers by name; as :func:`parameter_table`."""
    return module._buffers


def module_table(module: nn.Module) -> dict[str, nn.Module | None]:
    """The module's own parts by name; as :func:`parameter_table`."""
    return module._modules


def is_sharded_by_fsdp(module: object) -> bool:
    """Whether FSDP, of either version, spreads the module's parameters over processes.

    By the names of its classes: importing `torch.distributed.fsdp` takes long, and fails where torch was
    built without torch.distributed. A class of another name is not recognized, and penalties of it not
    refused.
    """
    names = {kind.__name__ for kind in type(module).__mro__}
    return "FSDPModule" in names or any("FullyShardedDataParallel" in name for name in names)


class ConvolvingConv2d(nn.Conv2d):
    """`nn.Conv2d` whose convolution is the method :meth:`convolve`.

    `nn.Conv2d.forward` hands weight and bias to a method with a private name, which layers that change their
    weights first call, too. Overriding `forward` instead would pass those by.
    """

    def convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.convolve(input, weight, bias)


def convolves_as_torch(kind: type[nn.Conv2d]) -> bool:
    """Whether a subclass of `nn.Conv2d` leaves the convolution itself to it."""
    return kind._conv_forward is nn.Conv2d._conv_forward


def padding_widths(layer: nn.Conv2d) -> list[int]:
    """The layer's padding as `torch.nn.functional.pad` takes it, also of "same"."""
    return layer._reversed_padding_repeated_twice


# --- optimizers ---------------------------------------------------------------------------------------------

AMP_SCALING = "_step_supports_amp_scaling"
"""The attribute by which `torch.amp.GradScaler` recognizes optimizers whose step unscales the gradients
itself.

GradScaler then sets `grad_scale` and `found_inf` on the optimizer, two tensors on its device, for the time of
the step. Without it GradScaler unscales in a sweep of its own and waits for the device at every step.
"""


def supports_amp_scaling(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's step does nothing where `found_inf` is 1, as torch's with ``fused=True``."""
    return getattr(optimizer, AMP_SCALING, False)


def init_group(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> None:
    """Gives each of the group's parameters with a gradient its state, as the first step of torch's Adam,
    AdamW and RMSprop does.

    So state dicts are torch's to the letter. Without it the state's names would have to be written down again
    here.
    """
    lists: list[list] = [[] for _ in range(6)]
    optimizer._init_group(group, *lists)  # type: ignore[attr-defined]


# In one launch for a list of tensors; torch.optim is made of these. Without them it would be a loop.
foreach_copy_ = torch._foreach_copy_
foreach_lerp_ = torch._foreach_lerp_
foreach_clamp_min_ = torch._foreach_clamp_min_
foreach_clamp_max_ = torch._foreach_clamp_max_
