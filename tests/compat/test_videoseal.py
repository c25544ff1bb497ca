"""Videoseal's loss against its published formula, step by step, over a short training."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastgan.compat.videoseal import VideosealLoss
from fastgan.reference.yuv_l2 import RGB_TO_YUV
from tests.compat.tokenizers import d_loss, norm_at, train_both

BITS = 3


class Watermark(nn.Module):
    """An embedder, and an extractor of a mask and bits."""

    def __init__(self, per_pixel=True, passes_by=False):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.conv_out = nn.Conv2d(6, 3, 3, padding=1)
        self.extractor = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 1 + BITS, 1))
        self.per_pixel, self.passes_by = per_pixel, passes_by

    def forward(self, images):
        watermark = self.conv_out(F.silu(self.first(images)))
        marked = (images + 0.1 * watermark).clamp(0, 1)
        preds = self.extractor(1 - marked.flip(2))
        if self.passes_by:
            preds = preds + watermark.mean(dim=1, keepdim=True)
        return marked, preds if self.per_pixel else preds.mean(dim=(2, 3))


def drawn(step):
    """(images, masks, messages)"""
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=generator)
    masks = torch.rand(2, 1, 16, 16, generator=generator) < 0.6
    masks[1] = masks[0].flip(1)  # the published code needs as many pixels in each
    return images, masks.double(), torch.randint(0, 2, (2, BITS), generator=generator)


def ours(loss, network, _, index, step):
    images, masks, messages = drawn(step)
    marked, preds = network(images)
    return loss(images, marked, masks, messages, preds, index, step, network.conv_out.weight)


def judged(loss, images):
    if loss.discriminator.input_nc == 1:
        luma = torch.tensor(RGB_TO_YUV[0]).to(images.dtype)  # from a buffer in float32, as published
        images = torch.einsum("nchw,c->nhw", images, luma)[:, None]
    return loss.discriminator.main(images)


def perceptual(name, images, marked):
    if name == "yuv":
        matrix = images.new_tensor(RGB_TO_YUV)
        images, marked = (torch.einsum("nchw,dc->ndhw", x, matrix) for x in (images, marked))
    return 0 * marked.sum() if name == "none" else F.mse_loss(images, marked)


def theirs(loss, network, _, index, step):
    images, masks, messages = drawn(step)
    marked, preds = network(images)
    factor = float(step >= loss.discriminator_iter_start)
    if index == 1:
        real, fake = judged(loss, images), judged(loss, marked.detach())
        value = factor * d_loss(loss.disc_loss.__name__.removesuffix("_d_loss"), real, fake)
        means = {"logits_real": real.mean().detach(), "logits_fake": fake.mean().detach()}
        return value, {"disc_loss": value.detach(), "disc_factor": factor, **means}
    losses, weights = {}, {}
    if loss.percep_weight > 0:
        parts = [part.rpartition("_") for part in loss.perceptual_loss.percep_loss.split("+")]
        terms = [float(factor or 1) * perceptual(name, images, marked) for factor, _, name in parts]
        losses["percep"], weights["percep"] = sum(terms), loss.percep_weight
    if loss.disc_weight > 0:
        losses["disc"], weights["disc"] = -judged(loss, marked).mean(), factor * loss.disc_weight
    BCE = F.binary_cross_entropy_with_logits
    if loss.detect_weight > 0:
        losses["detect"], weights["detect"] = BCE(preds[:, :1], masks), loss.detect_weight
    if loss.decode_weight > 0:
        bits, targets = preds[:, 1:], messages.double()
        if bits.dim() == 4:
            inside = masks.expand_as(bits).bool()
            bits, targets = bits[inside], targets[:, :, None, None].expand_as(bits)[inside]
        losses["decode"], weights["decode"] = BCE(bits, targets), loss.decode_weight
    scales = weights
    if loss.balanced:
        norms = {name: norm_at(term, network.conv_out.weight) for name, term in losses.items()}
        total_norm = loss.total_norm or norms[list(norms)[-1]]
        scales = {
            name: (weight / sum(weights.values()) * total_norm / (1e-12 + norms[name])).detach()
            for name, weight in weights.items()
        }
    value = sum(scales[name] * losses[name] for name in losses)
    log = {"total_loss": value.detach(), **{f"loss_{name}": term.detach() for name, term in losses.items()}}
    return value, log | {f"scale_{name}": scale for name, scale in scales.items()}


CASES = {
    "balanced": {"percep_loss": "mse", "decode_weight": 1.0},
    "total norm, of each image": {
        "percep_loss": "yuv", "decode_weight": 2.0, "detect_weight": 0.0, "total_norm": 0.3,
        "disc_loss": "vanilla", "disc_in_channels": 1, "per_pixel": False,
    },
    "sum of distances, no bits": {"percep_loss": "yuv+0.1_mse", "detect_weight": 0.5},
    "no extractor": {"percep_loss": "mse", "detect_weight": 0.0},
    "not balanced": {"balanced": False, "percep_loss": "mse", "decode_weight": 0.5, "disc_weight": 0.2},
    "no discriminator": {"percep_loss": "none", "disc_weight": 0.0, "decode_weight": 0.5},
    "predictions that pass by the images": {
        "percep_loss": "mse", "decode_weight": 1.0, "passes_by": True, "use_actnorm": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_training_is_the_published_one(case):
    options = dict(CASES[case])
    kind = {name: options.pop(name) for name in ("per_pixel", "passes_by") if name in options}
    loss = VideosealLoss(disc_start=10, disc_num_layers=1, **options)
    logs = list(train_both(loss, ours, theirs, network=lambda: Watermark(**kind)))
    assert len(logs) == 20
    assert (loss.shares is None) != loss.balanced
