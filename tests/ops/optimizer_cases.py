"""Optimizer steps: options, arrays in the middle of training, and tolerances against exact results."""

from __future__ import annotations

import torch

from fastgan.reference.optimizer_step import StepOptions

SHAPES = [(), (1,), (7, 3), (2, 5, 3, 4), (40001,), (0, 3)]
CLIPS = {"grad_clip_value": 1.5, "grad_clip_norm": 3.0, "low": -0.8, "high": 1.0}
OPTIONS = {
    "rmsprop": StepOptions(0.01),
    "rmsprop, all": StepOptions(
        0.01, 0.1, 0.5, 0.9, 1e-4, maximize=True, eps_inside_sqrt=True, average_weight=0.25, **CLIPS
    ),
    "rmsprop, centered": StepOptions(0.01, 0.1, 0.5, 0.9, 1e-4, average_weight=0.25, **CLIPS),
    "adam": StepOptions(0.01, 0.0, 0.9, 0.999),
    "adam, all": StepOptions(
        0.01, 0.1, 0.9, 0.999, 1e-4, decoupled=True, maximize=True, average_weight=0.75, **CLIPS
    ),
}


def tensors(case, dtype, state_dtype=None, device="cpu", shapes=SHAPES):
    """Arguments of a step in the middle of training."""
    generator = torch.Generator().manual_seed(0)

    def draw(kind=dtype, positive=False):
        made = []
        for shape in shapes:
            tensor = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            # A variance stays positive with the square of a mean taken off.
            tensor = (tensor.abs() + 3) if positive else tensor / 4
            tensor = tensor.to(device, kind)
            made.append(tensor.to(memory_format=torch.channels_last) if len(shape) == 4 else tensor)
        return made

    state = state_dtype or dtype
    extra = "," in case
    params, grads, first = draw(), draw(), draw(state, positive=True)
    second = draw(state) if extra or "adam" in case else []
    third = draw(state, positive=True) if extra else []
    averages = draw() if extra else []
    steps = [torch.tensor(4.0, device=device) for _ in shapes]
    return [params, grads, first, second, third, averages, steps]


def as_float64(arrays):
    """On the CPU."""
    return [[tensor.cpu().double().clone() for tensor in tensors] for tensors in arrays]


def assert_close_to_exact(arrays, exact, tolerance):
    """Compares relative to each tensor's largest value, since values near 0 are sums of larger numbers."""
    for ours, theirs in zip(arrays, exact, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            scale = max(b.abs().max().item(), 0.25) if b.numel() else 1.0
            torch.testing.assert_close(a.cpu().double(), b, rtol=0, atol=tolerance * scale)
