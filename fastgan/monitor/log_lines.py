"""Logs whose lines name their figures, as "epoch: 1, D_real: 0.5"."""

from __future__ import annotations

import re

from fastgan.monitor.log_names import Row

FEWEST_FIGURES = 2
"""Of a line; one with fewer is text that happens to have a number."""
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|nan|inf(?:inity)?)"
_WORD = r"[a-z][\w()/.\-]{0,100}"
# What a logger puts before a message, in capitals.
_LEVEL = r"(?-i:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL)"
# The name may have two words, "D loss", and parentheses, "D(G(z))"; quotes, where Python's dict is printed.
_NAME = rf"(?<![\w.])(?!{_LEVEL}\s)({_WORD}(?: {_WORD})?)"
_VALUE = rf"({_NUMBER})(?![\w:]|\.\d)"
_FIGURE = re.compile(rf"""{_NAME}['"]?\s*[:=]\s*{_VALUE}""", re.IGNORECASE)
# "step 100: d_loss 0.5 g_loss 0.6": after a counter, marks may be missing.
_WITHOUT_MARK = re.compile(rf"{_NAME}\s+{_VALUE}", re.IGNORECASE)
# "[Epoch 1/200] [Batch 3/938]", "Epoch [1/200], Step [3/938]", "Iter 3:", and "[1/200][3/938]" as PyTorch's
# example of DCGAN prints them.
_COUNTER = re.compile(
    r"\b(epochs?|batch|iters?|iterations?|steps?)(?:\s+|\s*[:=]?\s*\[\s*)(\d+)(?!\w|[.:]\d)", re.IGNORECASE
)
_TWO_COUNTERS = re.compile(r"^\s*\[(\d+)/\d+\]\s*\[(\d+)/\d+\]")
# "tensor(0.5, device='cuda:0')" and "np.float32(0.5)", as they are printed.
_WRAPPED = re.compile(
    rf"\b(?:tensor|np\.float\d+)\(\s*\[?\s*({_NUMBER})\s*\]?\s*(?:,[^()\[\]]*)?\)", re.IGNORECASE
)


def rows_of_messages(lines: list[str], notes: list[str]) -> list[Row] | None:
    """The figures that most lines name, "name: number"; None if most lines do not."""
    rows = [_named(line) for line in lines]
    kept = [row for row in rows if len(row) >= FEWEST_FIGURES]
    if 2 * len(kept) < len(lines):
        return None
    if len(kept) < len(lines):
        notes.append(
            f"{len(lines) - len(kept)} of {len(lines)} lines do not name {FEWEST_FIGURES} figures and are "
            "left out"
        )
    return kept


def _named(line: str) -> Row:
    line = _WRAPPED.sub(r"\1", line)
    counters = [(name.casefold(), number) for name, number in _COUNTER.findall(line)]
    if found := _TWO_COUNTERS.match(line):
        counters += [("epoch", found[1]), ("batch", found[2])]
    figures = _FIGURE.findall(line)
    if counters and not figures:
        figures = _WITHOUT_MARK.findall(line)
    # Of a name that is there several times, the first figure counts, as the one before a repetition.
    return {name: float(number) for name, number in reversed([*counters, *figures])}
