"""PyTorch-StudioGAN"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastgan.compat import studiogan
from fastgan.patching._bias_act import bias_act
from fastgan.patching._declare import Kept, Probe, Replacement, Target
from fastgan.patching._filters import filtered_lrelu, upfirdn2d
from fastgan.patching._probes import (
    numbers,
    of_gradient,
    of_logits,
    of_path_length,
    of_penalty,
    with_gradients,
)

_MODULE = "utils.losses"
_GAMES = ("vanilla", "logistic", "ls", "hinge", "wasserstein")


def _crammer_singer(function: Any) -> Any:
    label = torch.tensor([0, 2, 1])
    return with_gradients(lambda x: function(x, label, False), numbers(3, 4))


def _path_length(cls: Any, images: Tensor, latents: Tensor, mean: Any) -> tuple[Tensor, Tensor]:
    regularizer = cls("cpu", pl_weight=3)
    regularizer.pl_mean = torch.full((), mean)
    return regularizer.cal_pl_reg(images, latents), regularizer.pl_mean


def _penalty(call: Callable[..., Any]) -> Probe:
    return of_penalty(call, as_dict=True)


_PROBES: dict[str, Probe] = {
    **{f"d_{game}": of_logits(2, DDP=False) for game in _GAMES},
    **{f"g_{game}": of_logits(1, DDP=False) for game in _GAMES},
    "crammer_singer_loss": _crammer_singer,
    "feature_matching_loss": lambda function: with_gradients(function, numbers(3, 4), numbers(3, 4, seed=1)),
    "PathLengthRegularizer": of_path_length(_path_length),
    "cal_r1_reg": of_gradient(lambda r1, out, x: r1(out, x, "cpu")),
    "stylegan_cal_r1_reg": of_gradient(lambda r1, out, x: r1(out, x)),
    "cal_grad_penalty": _penalty(lambda penalty, d, real, fake: penalty(real, None, fake, d, "cpu")),
    "cal_maxgrad_penalty": _penalty(lambda penalty, d, real, fake: penalty(real, None, fake, d, "cpu")),
    "cal_dra_penalty": _penalty(lambda penalty, d, real, fake: penalty(real, None, d, "cpu")),
}

TARGET = Target(
    "studiogan",
    (
        *(
            Replacement(_MODULE, name, getattr(studiogan, name), probe=probe)
            for name, probe in _PROBES.items()
        ),
        bias_act("utils.style_ops.bias_act"),
        upfirdn2d("utils.style_ops.upfirdn2d"),
        filtered_lrelu("utils.style_ops.filtered_lrelu"),
    ),
    tuple(
        Kept(f"{_MODULE}.{name}", "fastgan has no equal")
        for name in (
            "ConditionalContrastiveLoss", "CrossEntropyLoss", "Data2DataCrossEntropyLoss",
            "latent_optimise", "lecam_reg", "normal_nll_loss",
        )
    ),
)  # fmt: skip
