"""Every public op and loss, forward and backward, on CUDA tensors without a GPU."""

from __future__ import annotations

import pytest

triton = pytest.importorskip("triton")

import torch  # noqa: E402
import triton.language as tl  # noqa: E402
from torch import nn  # noqa: E402

from fastgan import ops  # noqa: E402
from fastgan.kernels import ssim  # noqa: E402
from fastgan.ops.adversarial import discriminator_loss, generator_loss  # noqa: E402
from tests.kernels.fake_cuda import Log, backward, fake_cuda  # noqa: E402
from tests.kernels.machine_code import machine_code  # noqa: E402
from tests.support_cases import CASES, Case  # noqa: E402

SIZE = (2, 33, 36)
CACHED_COPY = "_jpeg_tables.py make"  # copies JPEG's tables to the device, once
HALVES = [case for case in CASES if "half" not in case.leaves_out]


def on_fake_cuda(case: Case, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor], dict, Log]:
    """The output, the inputs, their gradients, and the log of launches."""
    tensors = case.tensors(SIZE, dtype)
    with fake_cuda() as log:
        with torch.device("cuda"):
            function = case.make()
        if isinstance(function, nn.Module):
            function = function.to("cuda", dtype)
        inputs = [
            torch.empty_like(tensor, device="cuda", requires_grad=number in case.differentiated)
            for number, tensor in enumerate(tensors)
        ]
        log.take()
        output = case.call(function, *inputs)
        grads = backward(output, torch.empty_like(output)) if case.differentiated else {}
        return output, inputs, grads, log


def expected(case: Case, dtype: torch.dtype) -> torch.Tensor:
    return case.function(dtype)(*case.tensors(SIZE, dtype))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32(case: Case):
    output, inputs, grads, log = on_fake_cuda(case, torch.float32)
    check(case, torch.float32, output, inputs, grads, log)


@pytest.mark.parametrize("case", HALVES, ids=str)
def test_half(case: Case):
    output, inputs, grads, log = on_fake_cuda(case, torch.float16)
    check(case, torch.float16, output, inputs, grads, log)


def check(case, dtype, output, inputs, grads, log):
    reference = expected(case, dtype)
    assert (output.shape, output.dtype, output.stride()) == (
        reference.shape,
        reference.dtype,
        reference.stride(),
    )
    assert output.is_cuda
    for number in case.differentiated:
        grad = grads[inputs[number]]
        assert (grad.shape, grad.dtype) == (inputs[number].shape, inputs[number].dtype)
        assert grad.is_cuda
    assert not [other.name for other in log.others if other.name in ("_local_scalar_dense", "item")]
    assert set(log.waits) <= {CACHED_COPY}
    for launch in log.triton:
        code = machine_code(launch, 90)
        # Sums of windows lie in registers.
        most = ssim.MAX_REGISTERS if launch.kernel in (ssim.sweep, ssim.gather) else 128
        assert code.spills == 0 and code.registers <= most


def test_numbers_do_not_wait_for_the_device():
    """Nor do the operations that make tensors of them, so that CUDA graphs can capture all of it."""
    with fake_cuda() as log:
        x, matrix = torch.empty(2, 3, 8, 8, device="cuda"), torch.empty(2, 3, 3, device="cuda")
        ops.photometric(x, noise=0.1, contrast=0.9, offset=0.1, desaturation=0.2, seed=3)
        ops.perspective_warp(x, matrix, fill=0.0)
        ops.perspective_warp(x, matrix, fill=1.0)
        ops.yuv_l2(x, x, edge_gain=2.0)
        ops.feature_distance(x, x)
        ops.squared_norm(torch.empty(2, 2**16, device="cuda"))
        discriminator_loss(torch.empty(2**16, device="cuda"), torch.empty(5, device="cuda"), "hinge")
        log = log.take()
    assert not log.waits
    assert {other.name for other in log.others} <= {"empty", "full", "cat"}


@pytest.mark.parametrize("count, index", [(2**20, tl.int32), (2**31 - 1000, tl.int64), (2**31 + 9, tl.int64)])
def test_shares_of_logits_beyond_32_bits(count, index):
    """The type of the indices must hold the end of the last share."""
    with fake_cuda() as log:
        logits, few = torch.empty(count, device="cuda"), torch.empty(5, device="cuda")
        discriminator_loss(logits, few, "hinge")
        generator_loss(logits, None, "hinge")
        generator_loss(logits, logits, "relativistic")
        launches = [launch for launch in log.take().triton if "INDEX" in launch.arguments]
    assert [launch.kernel.__name__ for launch in launches] == ["discriminator", "generator", "pairs"]
    for launch in launches:
        assert launch.arguments["INDEX"] is index
        assert machine_code(launch, 90).spills == 0
