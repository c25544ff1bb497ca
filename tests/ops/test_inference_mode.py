"""Constants created under torch.inference_mode, as targets, kernels and schedules may be.

Autograd cannot save such tensors, so that PyTorch's own losses and convolutions refuse them. Kernels of
fastgan accept them; references, and functions of PyTorch's operations, refuse them as PyTorch does.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan import losses, ops
from fastgan.losses import LPIPS, PerceptualLoss

REFUSED = "Inference tensors cannot be saved for backward"


def rand(*shape, dtype=torch.float32):
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(3))


IMAGE = (2, 3, 16, 16)
# A function of an image, and one that makes the constants that it takes as well.
CALLS = {
    "blur": (ops.blur, lambda: (rand(2, 3, 3),)),
    "blur, float64 kernels": (ops.blur, lambda: (rand(2, 3, 3, dtype=torch.float64),)),
    "perspective_warp": (
        lambda x, matrix, fill: ops.perspective_warp(x, matrix, fill=fill),
        lambda: (2 * torch.eye(3).repeat(2, 1, 1), rand(*IMAGE)),
    ),
    "perspective_warp, float64 matrix": (
        ops.perspective_warp, lambda: (2 * torch.eye(3).double().repeat(2, 1, 1),)
    ),
    "photometric": (
        lambda x, a, b: ops.photometric(x, noise=a, contrast=a, offset=b, desaturation=a, seed=3),
        lambda: (rand(2), rand(2, 3)),
    ),
    "jpeg_round_trip, qualities": (ops.jpeg_round_trip, lambda: (torch.tensor([50.0, 60.0]),)),
    "jpeg_round_trip, tables": (
        lambda x, tables: ops.jpeg_round_trip(x, 50, rounding="cubic", quantization_tables=tables),
        lambda: (torch.full((1, 2, 8, 8), 9.0),),
    ),
    "yuv_color_l2": (
        lambda x, y, gain: losses.yuv_color_l2(x, y, (1, 2, 3), gain),
        lambda: (rand(*IMAGE), torch.tensor(3.0)),
    ),
    "YUVColorL2": (lambda x, y, loss: loss(x, y), lambda: (rand(*IMAGE), losses.YUVColorL2(edge_gain=2.0))),
    "pixel_loss": (
        lambda x, y, weight, gain: losses.pixel_loss(
            x, y, weight, kind="l2", tv_weight=0.5, tv_kind="l2", edge_gain=gain, weighted_mean=True
        ),
        lambda: (rand(*IMAGE), rand(2, 1, 16, 16), torch.tensor(3.0)),
    ),
    "feature_distance": (ops.feature_distance, lambda: (rand(*IMAGE),)),
    "feature_moments": (lambda x, y: torch.stack(ops.feature_moments(x, y)), lambda: (rand(*IMAGE),)),
    "feature_matching_loss": (
        lambda x, y: losses.feature_matching_loss([x], [y], with_logits=False), lambda: (rand(*IMAGE),)
    ),
    "focal_frequency_loss": (losses.focal_frequency_loss, lambda: (rand(*IMAGE), rand(16, 16))),
    "lpips_head": (ops.lpips_head, lambda: (rand(*IMAGE), rand(3))),
    "ssim_l1_loss": (losses.ssim_l1_loss, lambda: (rand(*IMAGE),)),
    "bias_act": (lambda x, bias: ops.bias_act(x, bias, act="swish"), lambda: (rand(3),)),
    "bias_leaky_relu": (ops.bias_leaky_relu, lambda: (rand(3),)),
    "upfirdn2d": (lambda x, f: ops.upfirdn2d(x, f, 2), lambda: (rand(4),)),
    "filtered_lrelu": (
        lambda x, fu, fd, b: ops.filtered_lrelu(x, fu, fd, b, 2), lambda: (rand(4), rand(3), rand(3))
    ),
    "gradient_budget": (
        lambda x, y, weights: torch.cat([t.flatten() for t in ops.gradient_budget([x, y], weights)]),
        lambda: (rand(*IMAGE), rand(2)),
    ),
    "cycle_consistency_loss": (losses.cycle_consistency_loss, lambda: (rand(*IMAGE),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_constants_of_inference_mode_can_be_saved_for_backward(name):
    function, make = CALLS[name]
    gradients = []
    for inference in (False, True):
        with torch.inference_mode(inference):
            constants = make()
        image = (1 - rand(*IMAGE)).requires_grad_()
        result = function(image, *constants)
        gradients.append(torch.autograd.grad(result.square().sum(), image)[0])
    assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize("make", [LPIPS, PerceptualLoss])
def test_targets_of_inference_mode_are_accepted(make):
    loss, target = make(weights=None, value_range=(0, 1)), rand(1, 3, 40, 40)
    with torch.inference_mode():
        features, copied = loss.precompute(target), target.clone()
    gradients = []
    for reference in (target, copied, features):
        image = (1 - target).requires_grad_()
        gradients.append(torch.autograd.grad(loss(image, reference).sum(), image)[0])
    assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-8)
    assert_close(gradients[2], gradients[0], rtol=1e-4, atol=1e-8)


def test_plain_pytorch_refuses_to_save_them():
    """For comparison: functions made of PyTorch's own operations cannot do better."""
    with torch.inference_mode():
        target, weight, weights = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3), torch.ones(3)
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    for call in (
        lambda: F.mse_loss(x, target),
        lambda: F.binary_cross_entropy_with_logits(x, target),
        lambda: F.conv2d(x, weight),
        lambda: losses.bce_secret_loss(x, target),
        lambda: ops.conv2d(x, weight),
        lambda: ops.lpips_head(x, target, weights, backend="reference"),
    ):
        with pytest.raises(RuntimeError, match=REFUSED):
            call()
