"""From the rows of a run to verdicts: a function of the rows alone, whenever and wherever they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import ROWS, History, is_overdue
from fastgan.monitor.rules import RULES, Rule, Sign
from fastgan.monitor.rules._rule import MOST_LOOKS
from fastgan.monitor.verdict import Verdict
from fastgan.ops._checks import as_number, as_whole_number, check_instance, described


@dataclass
class _State:
    """A rule's condition for one subject, over consecutive looks."""

    holding_since: int = 0
    holding: int = 0
    passed: int = 0
    near: int = 0
    """Looks, one after the other, that were too near the bound for either."""
    looks: int = 0
    first_look: int = 0
    last_look: int = 0
    verdict: Verdict | None = None


class Diagnosis:
    """Verdicts on a run, kept up to date row by row.

    The same rows in the same order give the same verdicts: while a run goes on, when it is resumed, from its
    finished folder, and from one process or several.

    Args:
        facts: what is known of the run beside its figures.
        rules: those to follow.

    Attributes:
        history: all rows so far.
        past: verdicts that were taken back, in the order in which they were.
    """

    def __init__(self, facts: Facts | None = None, rules: Sequence[Rule] = RULES) -> None:
        if facts is not None:
            check_instance("facts", facts, Facts, "a fastgan.monitor.Facts")
        self.facts = facts or Facts()
        if not isinstance(rules, (list, tuple)) or any(not isinstance(rule, Rule) for rule in rules):
            raise TypeError(f"rules must be a list of rules, got {described(rules)}")
        self.rules = tuple(rules)
        self.history = History()
        self.past: list[Verdict] = []
        self._states: dict[tuple[str, str], _State] = {}
        self._standing: set[tuple[str, str]] = set()  # names and subjects of the verdicts that hold
        self._has_judged = False

    @property
    def has_judged(self) -> bool:
        """Whether any rule has found what it reads. If not, that there are no verdicts says nothing."""
        return self._has_judged

    def add(self, step: int, row: Mapping[str, float]) -> list[Verdict]:
        """Adds the figures of a log line or an evaluation; returns the verdicts that are new with them.

        Args:
            step: training steps done so far.
            row: numbers by name; NaN and infinity are figures, too.

        Raises:
            TypeError, ValueError: a step that is no whole number, or before the newest one; a row that does
                not map names to numbers.
        """
        step = as_whole_number("step", step, least=0)
        check_instance("row", row, Mapping, "a dict of numbers by name")
        for name, value in row.items():
            check_instance("a name in row", name, str, "a string")
            if type(value) is not float:
                row = {**row, name: as_number(f"row[{name!r}]", value)}
        self.history.add(step, row)
        new = []
        for rule in self.rules:
            if self._stands_any(rule.unless):
                self._forget(rule, step)
                continue
            for sign in rule.check(self.history, self.facts):
                verdict = self._look(rule, sign, step)
                if verdict:
                    new.append(verdict)
        for state in self._states.values():
            # What the rule reads is not measured any more, or has no meaning now.
            if state.verdict and is_overdue(step, state.first_look, state.last_look, state.looks):
                self._take_back(state, step)
        return new

    def verdicts(self) -> list[Verdict]:
        """The verdicts that hold, gravest first."""
        order = {rule.name: place for place, rule in enumerate(self.rules)}
        found = [state.verdict for state in self._states.values() if state.verdict]
        return sorted(found, key=lambda verdict: (order[verdict.name], verdict.step, verdict.subject))

    def _stands_any(self, names: Sequence[str]) -> bool:
        """Whether one of these verdicts, each NAME or "NAME SUBJECT", holds."""
        return any(name in names or f"{name} {subject}" in names for name, subject in self._standing)

    def _forget(self, rule: Rule, step: int) -> None:
        """Takes a rule's verdicts back at once, and begins anew with it."""
        for key in [key for key in self._states if key[0] == rule.name]:
            self._take_back(self._states.pop(key), step)

    def _take_back(self, state: _State, step: int) -> None:
        if state.verdict:
            self.past.append(replace(state.verdict, ended=step))
            self._standing.discard((state.verdict.name, state.verdict.subject))
        state.verdict, state.holding, state.near = None, 0, 0

    def _look(self, rule: Rule, sign: Sign, step: int) -> Verdict | None:
        """Follows a rule's condition for one subject; returns the verdict if it is new."""
        state = self._states.setdefault((rule.name, sign.subject), _State(first_look=step))
        self._has_judged = True
        state.looks += 1
        state.last_look = step
        if sign.holds is None:
            state.near += 1
            if state.near >= MOST_LOOKS:
                self._take_back(state, step)
            return None
        state.near = 0
        if not sign.holds:
            state.holding = 0
            state.passed += 1
            # One odd row is in the means of ROWS looks, and takes nothing back.
            if state.passed >= rule.looks + ROWS - 1:
                self._take_back(state, step)
            return None
        state.passed = 0
        state.holding += 1
        if state.holding == 1:
            state.holding_since = step
        if state.verdict:
            state.verdict = replace(state.verdict, says=sign.says, evidence=sign.evidence)
            return None
        held = step - state.holding_since
        fewest = rule.held if self.facts.counts_updates else 0
        is_long = held >= rule.run_share * step or state.holding >= MOST_LOOKS
        if state.holding < rule.looks or held < fewest or not is_long:
            return None
        advice = self.facts.advice
        state.verdict = Verdict(
            rule.name, rule.severity, sign.subject, state.holding_since, sign.says, sign.evidence,
            advice.get(f"{rule.name} {sign.subject}", advice.get(rule.name, rule.advice)), rule.source,
        )  # fmt: skip
        self._standing.add((rule.name, sign.subject))
        return state.verdict
