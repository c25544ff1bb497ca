"""A seeded part of the junk calls; and that the harness tells faults from errors that say what is wrong."""

from __future__ import annotations

import pytest
import torch

from tests.catalogue import ENTRIES
from tests.catalogue.entry import Entry
from tests.stress import junk_calls

# Entries that have faults left. To be emptied.
REMAINING: dict[str, set[str]] = {
    "JPEG layers": {
        "losses.DiffJPEG", "losses.DiffJPEG.forward", "losses.RandomJPEG", "losses.RandomJPEG.forward",
        "losses.diff_jpeg_coding", "losses.jpeg_codec_differentiable",
    },
    "features": {
        "losses.LPIPS", "losses.LPIPS.forward", "losses.LPIPS.precompute", "losses.LPIPSLoss",
        "losses.LPIPSLoss.forward", "losses.PerceptualLoss", "losses.PerceptualLoss.feature_maps",
        "losses.PerceptualLoss.forward", "losses.PerceptualLoss.parts", "losses.PerceptualLoss.precompute",
        "losses.gram_matrix", "losses.layer_index", "metrics.FrechetDistance",
        "metrics.FrechetDistance.update",
    },
    "adversarial losses, labels, penalties": {
        "losses.AdversarialLoss", "losses.AdversarialLoss.discriminator", "losses.AdversarialLoss.halves",
        "losses.BinaryLoss", "losses.CategoryLoss", "losses.CategoryLoss.forward", "losses.R1",
        "losses.R1.__call__", "losses.adv_loss", "losses.approximate_r1", "losses.bce_secret_loss",
        "losses.d_bce_loss", "losses.d_lsgan_loss", "losses.gradient_penalty", "losses.r1_penalty",
        "losses.r1_penalty_of", "losses.r2_penalty",
    },
    "optimizers": {
        "optim.Adam", "optim.Adam.add_param_group", "optim.Adam.load_state_dict", "optim.Adam.step",
        "optim.AdamW", "optim.AdamW.add_param_group", "optim.AdamW.load_state_dict", "optim.AdamW.step",
        "optim.EMA", "optim.EMA.check_updated_by", "optim.EMA.follow_all_but", "optim.EMA.load_state_dict",
        "optim.RMSprop", "optim.RMSprop.add_param_group", "optim.RMSprop.load_state_dict",
        "optim.RMSprop.step", "optim.RMSprop.tensorflow_style", "optim.update_ema",
    },
    "compat": {
        "compat.basicsr.DiffJPEG", "compat.basicsr.DiffJPEG.forward", "compat.basicsr.GANLoss",
        "compat.basicsr.GANLoss.forward", "compat.basicsr.PerceptualLoss",
        "compat.basicsr.PerceptualLoss.forward", "compat.basicsr.gradient_penalty_loss",
        "compat.basicsr.r1_penalty", "compat.pix2pix.GANLoss", "compat.pix2pix.GANLoss.forward",
        "compat.pix2pix.cal_gradient_penalty", "compat.r3gan.ZeroCenteredGradientPenalty",
        "compat.starganv2.adv_loss", "compat.starganv2.r1_reg", "compat.studiogan.cal_grad_penalty",
        "compat.studiogan.cal_r1_reg", "compat.studiogan.d_hinge", "compat.studiogan.d_ls",
        "compat.studiogan.d_vanilla", "compat.studiogan.d_wasserstein", "compat.studiogan.g_hinge",
        "compat.studiogan.g_ls", "compat.studiogan.g_vanilla", "compat.studiogan.g_wasserstein",
    },
}  # fmt: skip


def test_junk_is_refused_by_name():
    left = {name for names in REMAINING.values() for name in names}
    result = junk_calls.run(1500, seed=20260714, names=[name for name in ENTRIES if name not in left])
    assert result["faults"] == []
    assert result["accepted"] + result["refused"] == 1500


def test_remaining_entries_exist():
    assert set().union(*REMAINING.values()) <= ENTRIES.keys()


def _scaled(x, gain):
    return x * gain


def _raises(message):
    def function(x, gain):
        raise ValueError(message)

    return function


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (_scaled, "passes on"),
        (lambda x, gain: x.no_such_method(gain), "raises AttributeError"),
        (_raises("gain is not right"), "does not name"),
        (_raises("the factor must be a number, got 'strong'"), "does not name"),
        (_raises("gain must be one of 1, 2, got None"), "does not name"),
        (_raises("gain must be a number, got 'strong'"), None),
        (_raises("gain must be a number, got str"), None),
    ],
)
def test_harness_tells_faults(monkeypatch, function, fault):
    """As fastgan's own, which this file is made to be."""
    monkeypatch.setattr(junk_calls, "FASTGAN", junk_calls.Path(__file__).parent)
    entry = Entry("ops.blur", dict, function)
    valid, arguments = {"x": torch.ones(2), "gain": 1.0}, {"x": torch.ones(2), "gain": "strong"}
    with pytest.raises(Exception) as caught:
        entry.run(**arguments)
    found = junk_calls._fault(caught.value, entry, arguments, valid, {"gain"})
    assert found is None if fault is None else found.startswith(fault)
