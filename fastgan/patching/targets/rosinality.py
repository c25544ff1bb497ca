"""rosinality's stylegan2-pytorch, whose losses stand in the script itself"""

from fastgan.compat import rosinality
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import of_average, of_gradient, of_logits, of_path_length


def _in(module: str) -> tuple[Replacement, ...]:
    return (
        Replacement(module, "d_logistic_loss", rosinality.d_logistic_loss, probe=of_logits(2)),
        Replacement(module, "g_nonsaturating_loss", rosinality.g_nonsaturating_loss, probe=of_logits()),
        Replacement(
            module, "d_r1_loss", rosinality.d_r1_loss, probe=of_gradient(lambda r1, out, x: r1(out, x))
        ),
        Replacement(
            module, "g_path_regularize", rosinality.g_path_regularize,
            probe=of_path_length(lambda path, images, latents, mean: path(images, latents, mean)),
        ),
        Replacement(
            module, "accumulate", rosinality.accumulate,
            probe=of_average(lambda move, model, average: move(average, model, 0.9)),
        ),
    )  # fmt: skip


TARGET = Target(
    "rosinality",
    (*_in("__main__"), *_in("train")),
    (
        Kept(
            "op.*",
            'fastgan.patch("rosinality.op") replaces its functions, before the script imports its networks',
        ),
    ),
)
