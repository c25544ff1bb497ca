"""rosinality's stylegan2-pytorch, whose losses stand in the script itself"""

from fastgan.compat import rosinality
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import of_average, of_gradient, of_logits


def _in(module: str) -> tuple[Replacement, ...]:
    return (
        Replacement(module, "d_logistic_loss", rosinality.d_logistic_loss, probe=of_logits(2)),
        Replacement(module, "g_nonsaturating_loss", rosinality.g_nonsaturating_loss, probe=of_logits()),
        Replacement(
            module, "d_r1_loss", rosinality.d_r1_loss, probe=of_gradient(lambda r1, out, x: r1(out, x))
        ),
        Replacement(
            module, "accumulate", rosinality.accumulate,
            probe=of_average(lambda move, model, average: move(average, model, 0.9)),
        ),
    )  # fmt: skip


TARGET = Target(
    "rosinality",
    (*_in("__main__"), *_in("train")),
    (Kept("train.g_path_regularize", "fastgan has no equal"),),
)
