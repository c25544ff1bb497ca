"""docs/support.md is correct: every cell agrees with its check."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support_cases import CASES, Case
from tests.support_table import CHECKS, SIGNS, find_out, rendered

PAGE = Path(__file__).parents[1] / "docs" / "support.md"
STATUS = {sign: status for status, sign in SIGNS.items()}


def committed() -> dict[tuple[str, str], str]:
    """The page's cells, by case and use."""
    rows = [row.strip("|\n").split("|") for row in PAGE.read_text().splitlines() if row.startswith("|")]
    head, _, *body = ([cell.strip() for cell in row] for row in rows)
    return {
        (name, use): STATUS[cell] for name, *cells in body for use, cell in zip(head[1:], cells, strict=True)
    }


CELLS = committed()


def test_the_page_has_every_case_and_use():
    assert rendered(lambda case, use: CELLS[case.name, use]) == PAGE.read_text()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("use", CHECKS)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_cell(case: Case, use: str):
    assert find_out(case, use) == CELLS[case.name, use]
