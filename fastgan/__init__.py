"""fastgan: fused losses, regularizers and optimizer updates for GAN and image-to-image training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fastgan import losses, ops, optim
from fastgan.ops import use
from fastgan.patching import patch, unpatch

__version__ = "0.1.0"
__all__ = ["load", "losses", "ops", "optim", "patch", "unpatch", "use"]


def load(path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Any:
    """A trained model of a recipe, ready for use (extra `train`).

    What it does is its recipe's: `generate` of dcgan; `encode` and `decode` of stegastamp; `upscale` of
    enhancenet; `translate` of starganv2 and zi2zi. Images are tensors in [0, 1] or PIL's, and come back in
    the kind that was given. See docs/models.md, and :class:`fastgan.training.model.Model` for what all have.

    Args:
        path: a run's folder, such as "runs/first", whose newest intact checkpoint is taken; a checkpoint; or
            a model's file: the run's model.safetensors, or one of `fastgan export` or `Model.save`.
        device: where it computes.
        dtype: in which its networks compute: float32, float64, bfloat16 or float16; None: the file's, float32
            in a run.

    Returns:
        The recipe's subclass of :class:`fastgan.training.model.Model`, with averaged weights if the run kept
        them.

    Raises:
        FileNotFoundError: there is no model.
        ModuleNotFoundError: a package of the extra `train` is not installed.
        OSError: a file cannot be read.
        TypeError, ValueError: a file that is damaged or no model, a recipe that is not installed, or an
            unusable device or dtype; the message has the file's name, or the argument's and the value.
    """
    import fastgan.recipes  # noqa: F401 - registers them
    from fastgan.training.model import load_model

    return load_model(path, device=device, dtype=dtype)
