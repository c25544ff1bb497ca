"""StarGAN v2"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from fastgan.compat import starganv2
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import numbers, of_average, of_gradient, with_gradients


def _both_sides(function: Any) -> Iterator[Tensor]:
    for target in (1, 0):
        yield from with_gradients(lambda x, target=target: function(x, target), numbers(6, scale=3))


TARGET = Target(
    "starganv2",
    (
        Replacement("core.solver", "adv_loss", starganv2.adv_loss, probe=_both_sides),
        Replacement(
            "core.solver", "r1_reg", starganv2.r1_reg, probe=of_gradient(lambda r1, out, x: r1(out, x))
        ),
        Replacement(
            "core.solver", "moving_average", starganv2.moving_average,
            probe=of_average(lambda move, model, average: move(model, average, beta=0.9)),
        ),
    ),
    (
        Kept("core.solver.compute_d_loss", "it calls adv_loss and r1_reg; the sum is its own"),
        Kept("core.solver.compute_g_loss", "it calls adv_loss; its L1 terms are inline"),
    ),
)  # fmt: skip
