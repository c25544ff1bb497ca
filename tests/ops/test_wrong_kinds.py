"""Errors for arguments of a wrong kind name argument and value. All public functions: tests/stress."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastgan
from fastgan.ops import (
    bias_leaky_relu,
    blur,
    conv2d,
    feature_distance,
    lpips_head,
    perspective_warp,
    photometric,
    squared_norm,
    yuv_l2,
)

IMAGE = torch.rand(2, 3, 8, 8)
NUMBERS = [np.float32(0.5), np.float64(0.5), np.int64(1), np.array(0.5, np.float32), np.array(1)]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: feature_distance(IMAGE, IMAGE, weight=3), TypeError, "weight must .*got int 3"),
        (lambda: lpips_head(IMAGE, IMAGE, None), TypeError, "weight must .*got None"),
        (lambda: feature_distance(IMAGE, IMAGE, torch.tensor(1)), ValueError, "p must be one of 1, 2, got"),
        (lambda: feature_distance(IMAGE, IMAGE, 2, "yes"), TypeError, "normalize must be .*got str 'yes'"),
        (lambda: bias_leaky_relu(IMAGE, gain=None), TypeError, "gain must be a number, got None"),
        (lambda: bias_leaky_relu(IMAGE, gain=True), TypeError, "gain must be a number, got bool True"),
        (lambda: bias_leaky_relu(IMAGE, slope=10**400), ValueError, "slope must be .*got int 1000"),
        (lambda: bias_leaky_relu(IMAGE, clamp=np.ones(2)), TypeError, r"clamp .*got ndarray of shape \(2,\)"),
        (lambda: bias_leaky_relu(IMAGE, gain=np.array(True)), TypeError, "gain must be .*got ndarray"),
        (lambda: bias_leaky_relu(IMAGE, gain=np.array("1")), TypeError, "gain must be .*got ndarray"),
        (lambda: bias_leaky_relu(IMAGE, gain=np.array(1j)), TypeError, "gain must be .*got ndarray"),
        (lambda: bias_leaky_relu(IMAGE, gain=np.ones(1)), TypeError, "gain .*got ndarray of shape"),
        (lambda: yuv_l2(IMAGE, IMAGE, 1.5), TypeError, "yuv_scales must be 3 numbers, got float 1.5"),
        (lambda: yuv_l2(IMAGE, IMAGE, "123"), TypeError, "yuv_scales must be 3 numbers, got str '123'"),
        (lambda: squared_norm(IMAGE.to_sparse()), TypeError, "x must be a dense .*torch.sparse_coo"),
        (lambda: squared_norm(IMAGE.numpy()), TypeError, r"x .*got ndarray of shape \(2, 3, 8, 8\)"),
        (lambda: squared_norm("x"), TypeError, "x must be a floating-point tensor, got str 'x'"),
        (lambda: squared_norm(IMAGE.to(torch.float8_e4m3fn)), TypeError, "x must .*got torch.float8_e4m3fn"),
        (lambda: blur(IMAGE, torch.nested.nested_tensor([torch.ones(3, 3)])), TypeError, "kernels .*nested"),
        (lambda: perspective_warp(IMAGE, torch.eye(3), fill="black"), ValueError, "matrix must have shape"),
        (lambda: photometric(IMAGE, generator=3), TypeError, "generator must be .*got int 3"),
        (lambda: conv2d(IMAGE, torch.ones(2, 3, 3, 3), stride=0), ValueError, "stride must be .*got int 0"),
        (lambda: conv2d(IMAGE, torch.ones(2, 3, 9, 9)), ValueError, r"x .*got x of shape \(2, 3, 8, 8\)"),
        (lambda: fastgan.use(["native"]).__enter__(), ValueError, "backend must be one of .*got list"),
    ],
)  # fmt: skip
def test_argument_and_value_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{type(n).__name__} {n.dtype}")
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_numpy_numbers_are_numbers(number, backend):
    def results(n):
        return [
            bias_leaky_relu(IMAGE - 0.5, slope=n, gain=n, clamp=n, backend=backend),
            yuv_l2(IMAGE, 1 - IMAGE, np.array([n, n, n]), n, backend=backend)[0],
            photometric(IMAGE, noise=n, contrast=n, offset=n, desaturation=n, seed=3, backend=backend),
            perspective_warp(IMAGE, 2 * torch.eye(3).repeat(2, 1, 1), fill=n, backend=backend),
        ]

    for ours, theirs in zip(results(number), results(float(number)), strict=True):
        assert torch.equal(ours, theirs)


def test_numpy_integers_are_integers():
    two = np.int64(2)
    assert torch.equal(feature_distance(IMAGE, 1 - IMAGE, two), feature_distance(IMAGE, 1 - IMAGE, 2))
    assert torch.equal(photometric(IMAGE, noise=0.1, seed=two), photometric(IMAGE, noise=0.1, seed=2))
    weight = torch.rand(4, 3, 3, 3)
    assert torch.equal(conv2d(IMAGE, weight, None, two, (two, 1)), conv2d(IMAGE, weight, None, 2, (2, 1)))
