"""Declared ops: their kernels, schemas, and cases in the tests of all ops."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import torch

import fastgan.augment
import fastgan.losses
import fastgan.optim
from fastgan import _torch_internals
from fastgan.info import describe
from fastgan.ops import _declare, _dispatch, _library

SCHEMAS = {
    name.removeprefix("fastgan::"): getattr(torch.ops.fastgan, name.removeprefix("fastgan::")).default._schema
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("fastgan::")
}
OF_FILE = {file: [name for name in SCHEMAS if name.startswith(file)] for file in _dispatch.OPS}


def has_kernel(name: str, device: str) -> bool:
    return _torch_internals.has_kernel(f"fastgan::{name}", device)


def test_every_op_of_a_file_with_kernels_is_known():
    assert OF_FILE["yuv_l2"] and sorted(OF_FILE["yuv_l2"]) == [
        "yuv_l2",
        "yuv_l2_backward",
        "yuv_l2_backward_",
    ]
    assert all(OF_FILE.values())


@pytest.mark.parametrize("file", [file for file, kernels in _dispatch.OPS.items() if kernels.gpu == "triton"])
def test_triton_kernels_take_what_the_schema_says(file):
    pytest.importorskip("triton")
    module = importlib.import_module(f"fastgan.kernels.{file}")
    for name in OF_FILE[file]:
        arguments = [argument.name for argument in SCHEMAS[name].arguments]
        parameters = list(inspect.signature(getattr(module, name)).parameters)
        if name == "adversarial":  # where `generator` is a kernel
            parameters[parameters.index("for_generator")] = "generator"
        assert parameters == arguments
        assert has_kernel(name, "CUDA")


@pytest.mark.skipif(bool(_library.cpu_missing), reason="the CPU library is missing")
@pytest.mark.parametrize("file", _dispatch.OPS)
def test_cpu_kernels_are_registered(file):
    assert all(has_kernel(name, "CPU") for name in OF_FILE[file])


@pytest.fixture
def declare_test_op(monkeypatch):
    """Declares an op with a fake, in a file named `declared_in_a_test`, which no library has kernels of."""
    monkeypatch.setattr(_dispatch, "OPS", dict(_dispatch.OPS))
    monkeypatch.setattr(_dispatch, "_warned", set())
    library = torch.library.Library("fastgan", "FRAGMENT")
    monkeypatch.setattr(_library, "LIBRARY", library)

    def declare(gpu="triton"):
        fake = lambda x: torch.empty_like(x)  # noqa: E731
        fake.__module__ = "tests.declared_in_a_test"
        _declare.declare("declared_in_a_test(Tensor x) -> Tensor", gpu=gpu)(fake)

    yield declare
    library._destroy()


def test_an_op_whose_own_kernel_is_not_built_runs_its_reference_and_says_so(declare_test_op, monkeypatch):
    monkeypatch.setattr(_library, "cpu_missing", None)
    declare_test_op()
    x, reason = torch.rand(2), "_C was built without a kernel for declared_in_a_test"
    with pytest.warns(RuntimeWarning, match=f"declared_in_a_test runs its PyTorch reference: {reason}$"):
        assert _dispatch.choose("declared_in_a_test", (x,)) == "reference"
    with pytest.raises(RuntimeError, match=reason):
        _dispatch.choose("declared_in_a_test", (x,), "native")
    (line,) = (line for line in describe().splitlines() if line.startswith("declared_in_a_test"))
    assert f"reference (no native: {reason})" in line
    path = Path(fastgan.__file__).parent / "kernels" / "declared_in_a_test.py"
    assert _dispatch.OPS["declared_in_a_test"].gpu_missing == f"there is no {path}"


def test_a_kernel_of_another_library_counts_only_if_that_is_there(declare_test_op, monkeypatch):
    monkeypatch.setattr(_library, "cpu_missing", "_C was not built")
    monkeypatch.setattr(_library, "cuda_missing", None)
    declare_test_op(gpu="native")
    assert _dispatch.why_not("declared_in_a_test", "native", "cpu") == "_C was not built"
    reason = "_C_cuda was built without a kernel for declared_in_a_test"
    assert _dispatch.why_not("declared_in_a_test", "native", "cuda") == reason


def test_outputs_that_a_gradient_needs_must_be_requested():
    x = torch.rand(1, 3, 4, 4, requires_grad=True)
    with pytest.raises(
        RuntimeError, match="bias_leaky_relu needs with_codes where a gradient may be asked for"
    ):
        torch.ops.fastgan.bias_leaky_relu(x, None, 0.2, 1.0, float("inf"), False)
    with pytest.raises(
        RuntimeError, match="yuv_l2 needs a direction_dtype where a gradient may be asked for"
    ):
        torch.ops.fastgan.yuv_l2(x, x.detach(), None, 0.0, 1.0, 1.0, 1.0, 0, None)


def test_the_tests_that_walk_through_all_ops_have_a_case_of_each():
    from tests import support_cases
    from tests.kernels import budget_cases
    from tests.stress import cases

    other_names = {
        "jpeg": "jpeg_round_trip", "yuv_l2": "yuv_color_l2", "adversarial": "AdversarialLoss",
        "optimizer_step": "optimizer", "side_losses": "AdversarialLoss of sides",
        "frequency_distance": "focal_frequency_loss",
    }  # fmt: skip
    walked = {
        "stress": " ".join(cases.CASES),
        "support": " ".join(case.name for case in support_cases.CASES) + " optimizer",
        "budgets": " ".join(case.op for case in budget_cases.CASES),
    }
    for op, kernels in _dispatch.OPS.items():
        for walk, names in walked.items():
            if walk == "budgets" and kernels.gpu != "triton":
                continue  # kernels of CUDA C++ are in other tables of the page
            assert op in names or other_names.get(op, op) in names, f"{op} has no case in {walk}"
