"""Every public callable of fastgan with a valid call of it: what tests of all of them walk through.

    for name, entry in ENTRIES.items():
        entry.run(**entry.arguments())

The modules here declare them, by namespace; each new public name needs an entry there, or a line in EXEMPT.
"""

from tests.catalogue import augment, balance, compat, losses, metrics, monitor, ops, optim  # noqa: F401
from tests.catalogue.entry import ENTRIES, Entry, resolve
from tests.catalogue.public import EXEMPT, public_callables

__all__ = ["ENTRIES", "EXEMPT", "Entry", "public_callables", "resolve"]
