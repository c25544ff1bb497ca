"""Super-resolution: BasicSR and Real-ESRGAN."""

from __future__ import annotations

import importlib
import itertools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastgan.bench.public.base import Training, batches, of_networks


def _older_torchvision() -> None:
    """The module that BasicSR imports a function from, and that newer versions of torchvision lack."""
    from torchvision.transforms import functional

    module: Any = types.ModuleType("torchvision.transforms.functional_tensor")
    module.rgb_to_grayscale = functional.rgb_to_grayscale
    sys.modules.setdefault(module.__name__, module)


def _without_gpu() -> None:
    """`.cuda()`, which some trainers call in any case, leaves things where they are."""
    nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[assignment, method-assign, return-value]
    Tensor.cuda = lambda self, *_, **__: self  # type: ignore[assignment, method-assign]


def _esrgan_options(kind: str) -> dict[str, Any]:
    adam = {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]}
    return {
        "num_gpu": 0, "is_train": True, "dist": False, "rank": 0, "scale": 4, "path": {}, "name": kind,
        "network_g": {
            "type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1,
            "num_grow_ch": 4,
        },
        "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 8},
        "train": {
            "ema_decay": 0.999, "optim_g": dict(adam), "optim_d": dict(adam), "net_d_iters": 1,
            "net_d_init_iters": 0, "total_iter": 1000, "warmup_iter": -1,
            "scheduler": {"type": "MultiStepLR", "milestones": [1000], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1},
        },
        # Paired images: its synthetic degradation views a tensor that newer versions of torch leave strided.
        "l1_gt_usm": True, "percep_gt_usm": True, "gan_gt_usm": False, "high_order_degradation": False,
    }  # fmt: skip


def basicsr(_: Path) -> Training:
    _older_torchvision()
    models = importlib.import_module("basicsr.models")
    trainer = models.build_model({**_esrgan_options("esrgan"), "model_type": "ESRGANModel"})
    low, high = batches(2, 3, 32, 32, low=0.0), batches(2, 3, 128, 128, low=0.0)
    return _super_resolution(trainer, lambda: {"lq": next(low), "gt": next(high)})


def real_esrgan(_: Path) -> Training:
    _older_torchvision()
    _without_gpu()
    models = importlib.import_module("basicsr.models")
    importlib.import_module("realesrgan")
    trainer = models.build_model({**_esrgan_options("real"), "model_type": "RealESRGANModel"})
    low, high = batches(2, 3, 32, 32, low=0.0), batches(2, 3, 128, 128, low=0.0)
    return _super_resolution(trainer, lambda: {"lq": next(low), "gt": next(high)})


def _super_resolution(trainer: Any, data: Callable[[], dict[str, Tensor]]) -> Training:
    numbers = itertools.count(1)

    def step() -> list[Any]:
        trainer.feed_data(data())
        trainer.optimize_parameters(next(numbers))
        return list(trainer.log_dict.values())

    return Training(step, of_networks(trainer.net_g, trainer.net_d, trainer.net_g_ema))
