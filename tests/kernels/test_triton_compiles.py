"""Every Triton kernel compiles for each architecture without a GPU, and without spilling registers."""

from __future__ import annotations

import re
import subprocess

import pytest

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402
from fastgan.kernels import yuv_l2  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.backends.nvidia.compiler import get_ptxas  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

FLOATS = ["fp32", "bf16", "fp16"]


def sweep_signature(dtype: str) -> dict[str, str]:
    pointers = {"x": dtype, "y": dtype, "direction": dtype, "partial_sums": "fp32", "edge_gain": "fp32"}
    signature = dict.fromkeys(yuv_l2.sweep.arg_names, "i32")
    signature |= {name: f"*{kind}" for name, kind in pointers.items()}
    signature |= dict.fromkeys(["scale_y", "scale_u", "scale_v", "direction_factor"], "fp32")
    return signature


KERNELS = {
    **{
        f"sweep {dtype} direction={direction} {index}": (
            yuv_l2.sweep,
            sweep_signature(dtype),
            {"HAS_DIRECTION": direction, "INDEX": index, "BLOCK": yuv_l2.BLOCK},
        )
        for dtype in FLOATS
        for direction, index in ((True, tl.int32), (False, tl.int32), (True, tl.int64))
    },
    "finish": (
        yuv_l2.finish,
        dict.fromkeys(["partial_sums", "channels", "loss"], "*fp32")
        | dict.fromkeys(["scale_y", "scale_u", "scale_v"], "fp32")
        | dict.fromkeys(["programs", "pixels"], "i32"),
        {"BLOCK": yuv_l2.BLOCK},
    ),
    **{
        f"scale {dtype} in_place={in_place}": (
            yuv_l2.scale,
            {"source": f"*{dtype}", "target": f"*{dtype}", "grad_loss": "*fp32", "factor": "fp32",
             "count": "i32"},
            {"IN_PLACE": in_place, "INDEX": tl.int32, "BLOCK": yuv_l2.BLOCK},
        )
        for dtype in FLOATS
        for in_place in (False, True)
    },
}  # fmt: skip


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_compiles_without_spills(name, capability, tmp_path):
    kernel, signature, constants = KERNELS[name]
    signature = signature | dict.fromkeys(constants, "constexpr")
    compiled = triton.compile(
        ASTSource(kernel, signature, constexprs=constants),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": yuv_l2.WARPS},
    )
    assert compiled.asm["cubin"]
    ptx = tmp_path / "kernel.ptx"
    ptx.write_text(compiled.asm["ptx"])
    architecture = re.search(r"\.target (sm_\w+)", compiled.asm["ptx"]).group(1)
    report = subprocess.run(
        [get_ptxas(capability).path, "-v", f"--gpu-name={architecture}", str(ptx), "-o", "/dev/null"],
        capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    assert "0 bytes spill stores, 0 bytes spill loads" in report
    assert int(re.search(r"Used (\d+) registers", report).group(1)) <= 96
