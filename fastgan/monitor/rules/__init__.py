"""All rules, in the order in which their verdicts are shown: by severity, then by question."""

from fastgan.monitor.rules import discriminator, game, images, steps, terms
from fastgan.monitor.rules._rule import Rule
from fastgan.monitor.rules._rule import Sign as Sign
from fastgan.monitor.verdict import SEVERITIES

RULES: tuple[Rule, ...] = tuple(
    sorted(
        (*steps.RULES, *images.RULES, *game.RULES, *discriminator.RULES, *terms.RULES),
        key=lambda rule: SEVERITIES.index(rule.severity),
    )
)
VERDICTS: tuple[str, ...] = tuple(dict.fromkeys(rule.name for rule in RULES))
"""The names of all verdicts."""
