"""Reading machine code: paths, loops, accesses, registers."""

from __future__ import annotations

from fractions import Fraction

import pytest

pytest.importorskip("triton")

import torch

from fastgan import ops
from tests.kernels.cuda_ways import executed, longest
from tests.kernels.fake_cuda import Memory, backward, fake_cuda
from tests.kernels.machine_code import MachineCode, _touched, machine_code, specialized

# Two instructions, a loop of four, a slow path within it that is skipped, and one behind the end.
CODE = """
  REG:40 STACK:0
        /*0000*/                   LDG.E.128 R4, desc[UR6][R2.64] ;
        /*0010*/                   MOV R1, R2 ;
        /*0020*/                   LDG.E R8, desc[UR6][R2.64] ;
        /*0030*/              @!P1 BRA 0x60 ;
        /*0040*/                   CALL.REL.NOINC 0xb0 ;
        /*0050*/                   STL [R1], R3 ;
        /*0060*/                   DADD R4, R4, R6 ;
        /*0070*/               @P0 BRA 0x20 ;
        /*0080*/               @P2 EXIT ;
        /*0090*/                   STG.E.U8 desc[UR6][R2.64], R4 ;
        /*00a0*/                   EXIT ;
        /*00b0*/                   MUFU.RCP R3, R3 ;
        /*00c0*/                   RET.REL.NODEC R2 0x0 ;
"""


def test_paths_loops_and_accesses():
    code = MachineCode(CODE)
    assert [i.address >> 4 for i in code.path] == [0, 1, 2, 3, 6, 7, 8, 9, 10]
    assert [[i.address >> 4 for i in loop] for loop in code.loops] == [[2, 3, 6, 7]]
    assert code.executed([10]) == 5 + 4 * 10
    assert (code.registers, code.spills, code.calls, code.double_precision) == (40, 1, 1, 1)
    assert code.accesses("LDG") == [128, 32] and code.accesses("STG") == [8]


def test_the_longest_path():
    code = MachineCode(CODE)
    (loop,) = code.branches_back
    end = code.instructions[-1].address
    assert longest(code, loop.target, loop.address, lambda _: False, {}) == 4
    assert longest(code, 0, end, lambda _: False, {}) == 9
    assert longest(code, 0, end, lambda _: False, {loop.target: loop.address}) == 5
    assert longest(code, 0, end, lambda i: i.name.startswith("STG"), {}) == 7


# A branch over a store, two branches of arithmetic of which one is longer, a loop with one or two stores.
BRANCHES = """
        /*0000*/               @P0 BRA 0x20 ;
        /*0010*/                   STG.E.U8 desc[UR6][R2.64], R4 ;
        /*0020*/              @!P1 BRA 0x50 ;
        /*0030*/                   MOV R1, R2 ;
        /*0040*/                   BRA 0x70 ;
        /*0050*/                   MOV R1, R3 ;
        /*0060*/                   MOV R3, R4 ;
        /*0070*/               @P2 BRA 0xa0 ;
        /*0080*/                   STG.E.128 desc[UR6][R2.64], R4 ;
        /*0090*/                   MOV R3, R4 ;
        /*00a0*/                   STG.E desc[UR6][R2.64], R4 ;
        /*00b0*/               @P0 BRA 0x70 ;
        /*00c0*/                   EXIT ;
"""


def test_branches_named_by_their_accesses():
    code = MachineCode(BRANCHES)
    loop = {"loop STG 1x128 1x32": 3}
    assert executed(code, loop) == 2 + 1 + 2 + 3 * 5 + 1
    assert executed(code, loop | {"over STG 1x8": 0}) == 1 + 1 + 2 + 3 * 5 + 1
    assert executed(code, loop | {"over STG 1x8": Fraction(1, 2)}) == 1 + 0.5 + 1 + 2 + 3 * 5 + 1
    assert executed(code, loop | {"over STG 1x128": 0}) == 2 + 1 + 2 + 3 * 3 + 1
    with pytest.raises(AssertionError, match="over STG 4x8"):
        executed(code, loop | {"over STG 4x8": 0})
    with pytest.raises(KeyError):
        executed(code, {})


def launches_of(image: torch.Tensor, matrix: torch.Tensor):
    with fake_cuda() as log:
        image = torch.empty(image.shape, device="cuda", requires_grad=True)
        output = ops.perspective_warp(image, torch.empty(matrix.shape, dtype=torch.float64, device="cuda"))
        forward = log.take()
        grads = backward(output, torch.empty_like(output))
        assert grads[image].shape == image.shape
        return forward, log.take()


def test_accessed_arguments_and_specializations_of_a_launch():
    (forward,) = launches_of(torch.empty(2, 3, 16, 33), torch.empty(2, 3, 3))[0].triton
    source, target, options = specialized(forward, 90)
    assert target.arch == 90 and options["num_warps"] == forward.arguments["num_warps"]
    by_name = dict(zip(forward.kernel.arg_names, range(99), strict=False))
    divisible = {
        path[0] for path, attributes in source.attrs.items() if ["tt.divisibility", 16] in attributes
    }
    assert {by_name["image"], by_name["height"]} <= divisible
    assert by_name["width"] not in divisible
    assert source.constants[(by_name["image_stride_w"],)] == 1
    assert _touched(machine_code(forward, 90).source) == ["image", "matrix", "warped"]


def test_memory_counts_elements_with_an_address_of_their_own():
    tensor = torch.empty(8, 1, 5, 7, device="meta")[2:].expand(-1, 3, -1, -1)
    memory = Memory.of(tensor)
    assert memory.elements == 6 * 35 and memory.data_ptr() == 2 * 35 * 4
