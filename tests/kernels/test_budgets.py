"""The kernels keep to docs/gpu-budgets.md, which `make budgets` writes anew."""

from __future__ import annotations

import pytest
import torch

triton = pytest.importorskip("triton")

from tests.kernels import budgets, cuda_code  # noqa: E402
from tests.kernels.budget_cases import CASES, Case  # noqa: E402
from tests.kernels.budgets import (  # noqa: E402
    BANDWIDTH,
    HEADS,
    ISSUE,
    LIMITS,
    PAGE,
    committed,
    compiled_by,
    measured,
    measured_cuda,
    rendered,
    widths,
)  # fmt: skip
from tests.kernels.cuda_cases import CASES as CUDA_CASES  # noqa: E402
from tests.kernels.fake_cuda import backward, fake_cuda  # noqa: E402
from tests.kernels.machine_code import machine_code  # noqa: E402
from tests.kernels.test_triton_compiles import MOST_REGISTERS  # noqa: E402

TABLES = committed()
VERSION = compiled_by()
SAME_COMPILER = triton.__version__ == VERSION
# Columns that depend on the compiler's version.
COMPILER_COLUMNS = {"instructions", "estimate us", "share", "bound by", "loads", "stores", "FP64", "calls"}
BUILT = pytest.mark.skipif(not cuda_code.is_built(), reason="needs _C_cuda, which nvcc builds, for sm_90")


def cells(table: str, row: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(HEADS[table], row, strict=True))


def assert_kept(table: str, actual: tuple[str, ...], budget: tuple[str, ...]) -> None:
    if SAME_COMPILER:
        assert cells(table, actual) == cells(table, budget)
        return
    for name, value in cells(table, actual).items():
        allowed = cells(table, budget)[name]
        if allowed != "-" and (name.startswith("registers") or name == "instructions"):
            limit = MOST_REGISTERS.get(budget[0], 0) if name.startswith("registers") else 0
            assert float(value) <= max(1.25 * float(allowed), limit)
        elif name not in COMPILER_COLUMNS:
            assert value == allowed


def test_the_page_has_exactly_these_tables_and_rows():
    assert rendered(TABLES, VERSION) == PAGE.read_text()
    names = {tuple(row[:2]) for table in ("ops", "small") for row in TABLES[table]}
    assert names == {(case.op, case.variant) for case in (*CASES, *CUDA_CASES)}


@pytest.mark.skipif(not SAME_COMPILER, reason=f"needs Triton {VERSION}, of which the page is")
def test_rows_of_chosen_ops_are_redone_and_others_kept(monkeypatch, tmp_path, capsys):
    def with_wrong_rows(text: str, *ops: str) -> str:
        for op in ops:
            row = next(line for line in text.splitlines() if line.startswith(f"| {op} "))
            text = text.replace(row, row.replace("forward", "changed"))
        return text

    page, text, measured_cases = tmp_path / "budgets.md", PAGE.read_text(), []
    page.write_text(with_wrong_rows(text, "squared_norm", "yuv_l2"))
    monkeypatch.setattr(budgets, "PAGE", page)
    budgets.main(measured_cases.append, ["squared_norm"])
    assert measured_cases == [f"{case}\n" for case in CASES if case.op == "squared_norm"]
    assert page.read_text() == with_wrong_rows(text, "yuv_l2")
    with pytest.raises(SystemExit):
        budgets.main(measured_cases.append, ["blurr"])
    assert "no rows are named 'blurr'; did you mean 'blur'?" in capsys.readouterr().err


@pytest.mark.parametrize("case", CASES, ids=str)
def test_launches_keep_to_their_budget(case: Case):
    for table, actual in measured(case).items():
        budget = [row for row in TABLES[table] if row[:2] == (case.op, case.variant)]
        assert len(actual) == len(budget)
        for row, allowed in zip(actual, budget, strict=True):
            assert_kept(table, row, allowed)


@BUILT
def test_the_cuda_library_keeps_to_its_budget():
    actual = {row[0]: row for row in cuda_code.rows(widths)}
    assert actual.keys() == {row[0] for row in TABLES["CUDA"]}
    for row in TABLES["CUDA"]:
        assert cells("CUDA", actual[row[0]]) == cells("CUDA", row)


@BUILT
def test_calls_of_the_cuda_library_keep_to_their_budget():
    ops = {case.op for case in CUDA_CASES}
    assert list(map(measured_cuda, CUDA_CASES)) == [row for row in TABLES["ops"] if row[0] in ops]


@BUILT
def test_grey_levels_are_rounded_twice_as_on_the_cpu():
    """255 x is rounded to a float, and then to an integer: fused, both steps would round differently."""
    encoders = [code for name, code in cuda_code.kernels().items() if name.startswith("encode_kernel<0")]
    assert len(encoders) == 3
    for code in encoders:
        rounding = [i.name for i in code.instructions if "12582912" in i.operands]
        assert rounding.count("FADD") >= 24
        assert rounding.count("FFMA") == 8  # for the levels of a column's coefficients


@BUILT
def test_adamw_of_float32_is_bound_by_memory():
    """Also on the longest path through the code, with all arrays and statistics."""
    (case,) = [case for case in CUDA_CASES if case.variant == "AdamW, float32"]
    (launch,) = case.launches()
    seconds = launch.programs * launch.threads * launch.instructions / ISSUE
    assert launch.bytes == 28 * case.elements
    assert seconds < 0.7 * launch.bytes / BANDWIDTH


def test_the_limits_are_those_of_rows_below_60_percent():
    rows = [cells("ops", row) for row in TABLES["ops"]]
    low = {row["op"] for row in rows if row["share"] != "-" and float(row["share"].strip("≥%")) < 60}
    assert low == LIMITS.keys()


def test_jpeg_is_bound_by_memory():
    rows = [row for row in (cells("ops", row) for row in TABLES["ops"]) if row["op"] == "jpeg_round_trip"]
    assert {row["bound by"] for row in rows} == {"memory"}
    assert all(float(row["share"].strip("%")) >= 75 for row in rows)


def test_the_optimizers_step_stores_128_bits():
    rows = [row for row in (cells("CUDA", row) for row in TABLES["CUDA"]) if "step_kernel" in row["kernel"]]
    assert rows and all("x128" in row["stores"] for row in rows)


def test_no_budget_has_spills():
    for table in ("kernels", "CUDA"):
        assert {cells(table, row)["spills"] for row in TABLES[table]} == {"0"}


@pytest.mark.parametrize("case", [case for case in CASES if case.op == "perspective_warp"], ids=str)
def test_warps_have_no_atomics(case: Case):
    """The order of atomic additions would vary, and with it the sums."""
    with fake_cuda() as log:
        output = case.call(case.input())
        log.take()
        backward(output, torch.empty_like(output))
        (launch,) = log.take().triton
    names = {i.name.split(".")[0] for i in machine_code(launch, 90).instructions}
    assert not names & {"ATOM", "ATOMG", "ATOMS", "RED"}


def test_double_precision_is_used_only_for_final_sums_and_matrices():
    """That is once per program, or for few numbers. Powers and logarithms that are options need it, too."""
    kernels = [cells("kernels", row) for row in TABLES["kernels"] if "logarithm" not in row[1]]
    with_double_precision = {(row["op"], row["kernel"]) for row in kernels if row["FP64"] != "0"}
    assert {kernel for op, kernel in with_double_precision if op != "perspective_warp"} <= {"finish", "join"}


@pytest.mark.parametrize(
    "op",
    ["yuv_l2", "photometric", "squared_norm", "gradient_budget", "bias_leaky_relu", "feature_distance"],
)
def test_aligned_float32_moves_in_128_bits(op):
    sweeps = [
        row for row in (cells("kernels", row) for row in TABLES["kernels"])
        if row["op"] == op and row["case"].endswith("float32") and row["kernel"] != "finish"
    ]  # fmt: skip
    assert sweeps and all("x128" in row["loads"] for row in sweeps)
    assert all("x128" in row["stores"] for row in sweeps if row["kernel"] != "sum_squares")


@pytest.mark.parametrize("op", ["yuv_l2", "photometric"])
@pytest.mark.parametrize("variant", ["bfloat16", "channels_last", "bfloat16, channels_last"])
def test_half_types_and_channels_last_move_in_128_bits(op, variant):
    rows = [
        row for row in (cells("kernels", row) for row in TABLES["kernels"])
        if (row["op"], row["case"]) == (op, variant) and row["kernel"] != "finish"
    ]  # fmt: skip
    assert rows and all("x128" in row["loads"] and "x128" in row["stores"] for row in rows)
    assert not any("x16" in row["loads"] or "x16" in row["stores"] for row in rows)
