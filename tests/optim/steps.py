"""Optimizers side by side with torch's, on the same gradients."""

from __future__ import annotations

import torch

from fastgan.optim import Adam, AdamW, RMSprop

PAIRS = {
    "RMSprop": (RMSprop, torch.optim.RMSprop),
    "Adam": (Adam, torch.optim.Adam),
    "AdamW": (AdamW, torch.optim.AdamW),
}
SHAPES = [(5, 7), (1,), (3, 2, 4, 4), (2049,), ()]


def parameters(dtype=torch.float32, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    made = [tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor for tensor in made]
    return [torch.nn.Parameter(tensor) for tensor in made]


def train(params, optimizer, steps, *, first=0, before=lambda: None, after=lambda: None):
    """Runs steps with gradients that depend only on the step's number."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in params:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.grad = noise.to(parameter.device, parameter.dtype)
        before()
        optimizer.step()
        after()


def assert_same(ours, theirs, rtol):
    """Compares relative to the largest of all values, since single ones may be close to 0."""
    scale = max(tensor.detach().double().abs().max().item() for tensor in theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=rtol * scale)


def assert_same_state(ours, our_params, theirs, their_params, rtol):
    for name in theirs.state[their_params[0]]:
        sides = ((ours, our_params), (theirs, their_params))
        assert_same(*([optimizer.state[p][name] for p in params] for optimizer, params in sides), rtol)
    assert ours.state[our_params[0]].keys() == theirs.state[their_params[0]].keys()
