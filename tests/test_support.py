"""docs/support.md is correct: every cell agrees with its check."""

from __future__ import annotations

import pytest

from tests import support_table
from tests.support_cases import CASES, Case
from tests.support_table import CHECKS, PAGE, committed, find_out, main, rendered

CELLS = committed()


def test_rows_of_chosen_ops_are_redone_and_others_kept(monkeypatch, tmp_path, capsys):
    page, text = tmp_path / "support.md", PAGE.read_text()
    row, other_row = (
        next(line for line in text.splitlines() if line.startswith(f"| {op} |")) for op in ("blur", "conv2d")
    )
    wrong_row, wrong_other_row = (line.replace("yes", "n/a") for line in (row, other_row))
    page.write_text(text.replace(row, wrong_row).replace(other_row, wrong_other_row))
    monkeypatch.setattr(support_table, "PAGE", page)
    monkeypatch.setattr(support_table, "find_out", lambda case, use: CELLS[case.name, use])
    main(["blur"])
    assert capsys.readouterr().out == text.replace(other_row, wrong_other_row)
    main(["conv2d", "YUVColorL2"])
    assert capsys.readouterr().out == text.replace(row, wrong_row)
    with pytest.raises(SystemExit):
        main(["blurr"])
    assert "no rows are named 'blurr'; did you mean 'blur'?" in capsys.readouterr().err
    page.write_text(text.replace(f"{row}\n", ""))
    with pytest.raises(SystemExit, match="does not have 'compile' of 'blur': write all rows anew"):
        main(["conv2d"])


def test_the_page_has_every_case_and_use():
    assert rendered(lambda case, use: CELLS[case.name, use]) == PAGE.read_text()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("use", CHECKS)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_cell(case: Case, use: str):
    assert find_out(case, use) == CELLS[case.name, use]
