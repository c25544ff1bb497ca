"""Tests on emulated kernels fail without any single barrier or fence of csrc/cuda."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch

from tests.kernels import test_emulated_jpeg, test_emulated_optimizer
from tests.kernels.emulation import ROOT, without
from tests.ops.optimizer_cases import tensors

BARRIER = re.compile(r"__sync\w+\(|__threadfence\(")
PLACES = [
    (path.name, number)
    for path in sorted((ROOT / "csrc" / "cuda").iterdir())
    for number, line in enumerate(path.read_text().splitlines(), 1)
    if BARRIER.search(line.partition("//")[0])
]


def jpeg(rounding):
    image, tables = test_emulated_jpeg.out_of_range((33, 130)), 1 + 60 * torch.rand(2, 2, 8, 8)
    test_emulated_jpeg.check(image, tables, test_emulated_jpeg.form_of("4:2:0", "fancy", rounding))


def step():
    case = "adam, all"
    arrays = tensors(case, torch.float32, shapes=test_emulated_optimizer.MANY)
    test_emulated_optimizer.check(case, arrays)


CASES = {
    "jpeg.cu": [partial(jpeg, "straight_through"), partial(jpeg, "cubic")],
    "optimizer.cu": [step],
}


@pytest.mark.parametrize("file, line", PLACES)
def test_no_barrier_can_be_left_out(file, line):
    def run():
        for case in CASES[file]:
            case()

    run()
    with without(file, line), pytest.raises((AssertionError, RuntimeError)):
        run()


def test_barriers_are_found_in_the_sources():
    assert len(PLACES) >= 13
