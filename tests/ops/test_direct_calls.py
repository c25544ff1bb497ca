"""Operators called directly, as `torch.ops.fastgan.X`: without the public functions' checks, none crashes."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree

import fastgan.optim  # noqa: F401  (with it and fastgan.ops all ops are declared)
from fastgan._torch_internals import has_kernel
from fastgan.ops import _library
from fastgan.ops.jpeg import SUBSAMPLINGS
from fastgan.reference.adversarial import GAMES
from fastgan.reference.optimizer_step import ALGORITHMS, StepOptions


def direct_calls(n: int, c: int, h: int, w: int) -> dict[str, list[tuple[Any, ...]]]:
    """Arguments of every operator, for images of this size."""
    x, y = torch.rand(n, c, h, w), torch.rand(n, c, h, w)
    per_sample, per_channel = torch.rand(n), torch.rand(c)
    codes = torch.zeros(x.shape, dtype=torch.uint8)
    masks = torch.zeros(n, h, w, dtype=torch.uint8)
    chroma_masks = torch.zeros(n, (h + 1) // 2, (w + 1) // 2, dtype=torch.uint8)
    seed, number, tables = torch.tensor(3), torch.tensor(0.5), torch.full((n, 2, 8, 8), 9.0)
    matrix = torch.eye(3).expand(n, 3, 3).contiguous()
    lists = [[torch.rand(h, w), torch.rand(c)] for _ in range(6)]
    spectrum = torch.rand(n, 1, c, h, w // 2 + 1, 2)
    steps, options = [torch.tensor(2.0), torch.tensor(2.0)], [float(o) for o in StepOptions(0.1)]
    return {
        "adversarial": [
            (x, y, game, generator, 1.0, 1.0, 0.0, True)
            for game in range(len(GAMES))
            for generator in (False, True)
        ],
        "side_losses": [
            ([x, y], 1, game, 1.0, 1.0, 0.0, 1.0, reduction, True, True)
            for game in range(len(GAMES) - 1)
            for reduction in range(3)
        ],
        "bias_act": [(x, bias, act, 1.5, 10.0) for bias in (per_channel, None) for act in range(7)],
        "bias_act_backward": [
            (x, y, bias, act, 1.5, clamp, dtype)
            for bias in (per_channel, None)
            for act, clamp in ((0, 10.0), (5, 10.0), (6, float("inf")), (8, float("inf")))
            for dtype in (torch.float32, None)
        ],
        "bias_act_double_backward": [
            (x, y, bias, x, bias, act, 1.5, clamp, dtype is not None, dtype)
            for bias in (per_channel, None)
            for act, clamp in ((0, 10.0), (5, 10.0), (6, float("inf")), (8, float("inf")))
            for dtype in (torch.float32, None)
        ],
        "bias_leaky_relu": [(x, per_channel, 0.2, 1.5, 10.0, True), (x, None, 0.2, 1.5, 10.0, False)],
        "bias_leaky_relu_backward": [(x, codes, 0.2, 1.5, torch.float32), (x, codes, 0.2, 1.5, None)],
        "bias_leaky_relu_tangent": [(x, per_channel, codes, 0.2, 1.5), (x, None, codes, 0.2, 1.5)],
        "blur": [(x, torch.rand(n, 3, 3), turned) for turned in (False, True)],
        "feature_distance": [
            (x, y, weight, power, normalize, 1e-10, False, of_mean, True, True)
            for weight in (per_channel, None)
            for power in (1, 2)
            for normalize in (False, True)
            for of_mean in (False, True)
        ],
        "feature_distance_backward": [(x, per_sample, of_mean) for of_mean in (False, True)],
        "feature_distance_backward_": [(x, per_sample, of_mean) for of_mean in (False, True)],
        "feature_matching": [([x, y], [y, x], [1.0, 2.0], 64, signs) for signs in (False, True)],
        "feature_matching_backward": [
            (torch.zeros(n, 64, dtype=torch.int8), per_sample, number, dtype)
            for dtype in (torch.float32, torch.float16)
        ],
        "feature_moments": [(x, y)],
        "feature_moments_backward": [
            (x, y, torch.rand(n, c, 5), torch.rand(n, c, 2), torch.rand(n, c, 5), with_x, with_y)
            for with_x, with_y in ((True, True), (True, False), (False, True))
        ],
        "filtered_lrelu": [
            (
                x,
                bias,
                torch.rand(3),
                torch.rand(2, 3),
                2,
                2,
                3,
                3,
                2 * h,
                2 * w,
                h,
                w,
                flip,
                1.4,
                0.2,
                0.5,
                with_codes,
            )
            for bias, flip, with_codes in ((per_channel, False, True), (None, True, False))
        ],
        "filtered_lrelu_backward": [
            (x, codes, torch.rand(3), torch.rand(2, 3), 2, 1, 1, 1, 0, -1, h, w + 2, flip, 1.4, 0.2)
            for flip in (False, True)
        ],
        "frequency_distance": [
            (spectrum, weights, w, alpha, log, batch)
            for weights in (None, spectrum[..., 0].contiguous())
            for alpha, log, batch in ((1.0, False, True), (0.5, True, False))
        ],
        "frequency_distance_backward": [
            (spectrum, maxima, weights, spectrum, number, w, 0.5, False)
            for weights in (None, spectrum[..., 0].contiguous())
            for maxima in (torch.ones(1), torch.ones(n * c))
        ],
        "gradient_budget": [([x, y], weights) for weights in (None, torch.rand(2))],
        "gradient_norm": [(lists[0],)],
        "jpeg": [
            (x, table, seed, horizontal, vertical, True, rounding, with_masks)
            for table in (tables, torch.full((1, 2, 8, 8), 9.0))
            for horizontal, vertical in SUBSAMPLINGS.values()
            for rounding, with_masks in ((0, True), (3, False))  # straight-through, noise
        ],
        "jpeg_backward": [
            (x, y, table, seed, masks, chroma_masks, 2, 2, True, rounding, wants_image, wants_tables)
            for table in (tables, torch.full((1, 2, 8, 8), 9.0))
            for rounding in (0, 3)
            for wants_image, wants_tables in ((True, True), (True, False), (False, True))
        ],
        "optimizer_step_": [
            (algorithm, *lists, steps, options, *[number] * 4, torch.tensor(4), statistics)
            for algorithm in range(len(ALGORITHMS))
            for statistics in (False, True)
        ],
        "perspective_warp": [(x, matrix, y), (x, matrix, None)],
        "perspective_warp_backward": [(x, matrix)],
        "photometric": [(x, torch.rand(n, 6), seed, with_masks) for with_masks in (False, True)],
        "photometric_backward": [(x, torch.rand(n, 6), masks)],
        "pixel_loss": [
            (*tensors, 0.5, kind, kind, color, 1e-3, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 1.0, True, 1, dtype)
            for kind, color in ((0, 0), (1, 1), (2, 2), (3, 0))
            for tensors in (
                (x, y, x[:, : 1 if color == 1 else None], number, torch.rand(3)),
                (x, None, None, None, None),
            )
            for dtype in (torch.float32, None)
        ],
        "squared_norm": [(x,)],
        "squared_norm_backward": [(x, per_sample)],
        "ssim": [
            (x, y, size, sigma, 1e-4, 9e-4, padding, contrast, 1.0, 0.5, with_x, with_y)
            for size, sigma, padding in ((5, 1.5, 0), (5, 0.0, 1), (3, 1.5, 2))
            for contrast, with_x, with_y in ((True, False, False), (False, True, False), (False, True, True))
        ],
        "ssim_backward": [(x, torch.rand(n, c), dtype) for dtype in (torch.float32, torch.bfloat16)],
        "ssim_backward_": [(x, torch.rand(n, c)), (x, torch.full((n, c), 0.5))],
        "upfirdn2d": [
            (x, f, 2, 1, 1, 3, 1, -1, h, 2 * w + 3, flip, 1.5)
            for f in (torch.rand(4), torch.rand(3, 2), torch.rand(3, 1) * torch.rand(1, 2))
            for flip in (False, True)
        ],
        "yuv_l2": [
            (x, y, gain, 0.5, 1.0, 1.0, 1.0, 1, dtype)
            for gain in (number, None)
            for dtype in (torch.float32, None)
        ],
        "yuv_l2_backward": [(x, number, 1, scaled, torch.float32) for scaled in (False, True)],
        "yuv_l2_backward_": [(x, number, 1, scaled) for scaled in (False, True)],
    }


SIZES = [(2, 3, 5, 6), (0, 3, 5, 6), (2, 0, 5, 6), (2, 3, 0, 6), (2, 3, 5, 0), (0, 0, 0, 0)]


def with_one_empty(arguments: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The arguments with one tensor or list replaced by an empty one, for each in turn."""
    for at, argument in enumerate(arguments):
        replacements: list[Any] = []
        if isinstance(argument, Tensor):
            replacements = [argument[:0] if argument.dim() else argument.new_empty(0)]
        elif isinstance(argument, list):
            replacements = [[]]
            if argument and isinstance(argument[0], Tensor):
                replacements.append([argument[0], argument[1].new_empty(0)])
                replacements.append(argument[:1])
        for replacement in replacements:
            yield (*arguments[:at], replacement, *arguments[at + 1 :])


def shapes(values: Any) -> list[torch.Size]:
    return [tensor.shape for tensor in _pytree.tree_leaves(values) if isinstance(tensor, Tensor)]


def call(name: str, arguments: tuple[Any, ...]) -> str | None:
    """Calls an operator, whose results must have the shapes of its fake's; returns its refusal or None."""
    print(name, *_pytree.tree_map_only(Tensor, lambda tensor: tuple(tensor.shape), arguments), flush=True)
    operator = getattr(torch.ops.fastgan, name).default
    arguments = _pytree.tree_map_only(Tensor, torch.clone, arguments)
    try:
        results = operator(*arguments)
    except RuntimeError as error:
        return str(error)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake_results = operator(*_pytree.tree_map_only(Tensor, mode.from_tensor, arguments))
    assert shapes(results) == shapes(fake_results)
    return None


def is_for_size(refusal: str, size: tuple[int, ...]) -> bool:
    """Whether an operator that needs three channels, or pixels for a window, says so."""
    if "must have 3 channels, got 0" in refusal:
        return size[1] == 0
    return "ssim: x must have at least" in refusal and 0 in size[2:]


def main() -> None:
    for size in SIZES:
        for name, calls in direct_calls(*size).items():
            for arguments in calls:
                refusal = call(name, arguments)
                assert refusal is None or is_for_size(refusal, size), refusal
    for name, calls in direct_calls(*SIZES[0]).items():
        for arguments in calls:
            for changed in with_one_empty(arguments):
                call(name, changed)
    print("done")


pytestmark = pytest.mark.skipif(bool(_library.cpu_missing), reason="the CPU library is missing")


def test_there_are_calls_of_every_operator_with_a_kernel():
    names = {name.removeprefix("fastgan::") for name in torch._C._dispatch_get_all_op_names()}
    with_kernels = {
        name for name in names if hasattr(torch.ops.fastgan, name) and has_kernel(f"fastgan::{name}", "CPU")
    }
    assert direct_calls(*SIZES[0]).keys() == with_kernels


def test_empty_tensors_give_results_or_errors_but_no_crash():
    # In a process of its own, which prints each call before it is made.
    process = subprocess.run(
        [sys.executable, "-m", "tests.ops.test_direct_calls"], cwd=Path(__file__).parents[2],
        capture_output=True, text=True,
    )  # fmt: skip
    calls = process.stdout.splitlines()
    assert process.returncode == 0, f"{process.returncode} in {calls[-1:]}: {process.stderr[-3000:]}"
    assert calls[-1] == "done" and len(calls) > 500


@pytest.mark.parametrize(
    "operator, position, name",
    [
        ("blur", 1, "blur: kernels"),
        ("feature_distance", 2, "feature_distance: weight"),
        ("feature_distance_backward", 1, "feature_distance: grad"),
        ("feature_distance_backward_", 1, "feature_distance: grad"),
        ("filtered_lrelu", 0, "filtered_lrelu: x"),
        ("filtered_lrelu", 1, "filtered_lrelu: b"),
        ("filtered_lrelu_backward", 1, "filtered_lrelu: codes"),
        ("jpeg", 1, "jpeg: tables"),
        ("jpeg_backward", 2, "jpeg: tables"),
        ("perspective_warp", 1, "perspective_warp: matrix"),
        ("perspective_warp_backward", 1, "perspective_warp: matrix"),
        ("photometric", 1, "photometric: parameters"),
        ("photometric_backward", 1, "photometric: parameters"),
        ("squared_norm_backward", 1, "squared_norm: grad"),
        ("upfirdn2d", 0, "upfirdn2d: x"),
        ("upfirdn2d", 1, "upfirdn2d: f"),
    ],
)
def test_small_tensors_that_are_not_contiguous_are_refused_by_name(operator, position, name):
    arguments = list(direct_calls(*SIZES[0])[operator][0])
    arguments[position] = torch.stack([arguments[position]] * 2, dim=-1)[..., 0]
    with pytest.raises(RuntimeError, match=f"{name} must be contiguous"):
        getattr(torch.ops.fastgan, operator)(*arguments)


X = torch.ones(2, 3, 4, 5)
LARGE = torch.ones(16, 64, 128, 64)
STRETCHED = torch.ones(1).expand(LARGE.shape)  # what reads it as contiguous leaves its memory
CODES = torch.zeros(1, dtype=torch.uint8).expand(X.shape)


@pytest.mark.parametrize(
    "operator, arguments, message",
    [
        ("bias_act", (X, torch.ones(1, 3), 0, 1.0, math.inf), "bias must have one dimension, got 2"),
        ("bias_act", (STRETCHED, None, 1, 1.0, math.inf), "x must be contiguous or channels last"),
        ("bias_act", (X[:, ::2], None, 1, 1.0, math.inf), "x must be contiguous or channels last"),
        ("bias_act", (torch.ones(3), None, 1, 1.0, math.inf), "x must have shape .*got 1 dimensions"),
        ("bias_act_backward", (LARGE, STRETCHED, None, 1, 1.0, math.inf, None), "saved must be contiguous"),
        (
            "bias_act_backward", (X, X.to(memory_format=torch.channels_last), None, 1, 1.0, math.inf, None),
            "saved must have the memory format of the gradient",
        ),
        (
            "bias_act_double_backward", (LARGE, STRETCHED, None, LARGE, None, 1, 1.0, 1.0, True, None),
            "tangent_x must be contiguous or channels last",
        ),
        ("bias_leaky_relu_backward", (X, CODES, 0.2, 1.0, None), "codes must be contiguous or channels last"),
        ("bias_leaky_relu_tangent", (X, None, CODES, 0.2, 1.0), "codes must be contiguous or channels last"),
    ],
)  # fmt: skip
def test_activations_in_other_memory_formats_are_refused_by_name(operator, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.fastgan, operator)(*arguments)


@pytest.mark.parametrize(
    "operator, position, name",
    [
        ("feature_distance", 0, "feature_distance: x"),
        ("feature_distance_backward", 0, "feature_distance: direction"),
        ("feature_distance_backward_", 0, "feature_distance: direction"),
        ("feature_matching", 0, "feature_matching: fake"),
        ("feature_matching_backward", 0, "feature_matching: signs"),
        ("feature_moments", 0, "feature_moments: x"),
        ("feature_moments_backward", 0, "feature_moments: x"),
        ("frequency_distance", 0, "frequency_distance: spectrum"),
        ("frequency_distance_backward", 3, "frequency_distance: vectors"),
        ("ssim_backward", 0, "ssim: direction"),
        ("ssim_backward_", 0, "ssim: direction"),
        ("yuv_l2_backward", 0, "yuv_l2: direction"),
        ("yuv_l2_backward_", 0, "yuv_l2: direction"),
    ],
)
def test_tensors_with_gaps_are_refused_by_name_where_memory_is_read_as_one_block(operator, position, name):
    arguments = list(direct_calls(*SIZES[0])[operator][0])

    def with_gaps(tensor):
        return torch.stack([tensor] * 2, dim=-1)[..., 0]

    arguments[position] = _pytree.tree_map_only(Tensor, with_gaps, arguments[position])
    with pytest.raises(RuntimeError, match=f"{name} must be (dense|contiguous)"):
        getattr(torch.ops.fastgan, operator)(*arguments)


@pytest.mark.parametrize(
    "operator, name",
    [
        ("feature_distance", "feature_distance: y"),
        ("feature_matching", "feature_matching: real"),
        ("feature_moments", "feature_moments: y"),
        ("feature_moments_backward", "feature_moments: y"),
    ],
)
def test_maps_that_lie_differently_in_memory_are_refused_by_name(operator, name):
    arguments = list(direct_calls(*SIZES[0])[operator][0])

    def as_channels_last(tensor):
        return tensor.contiguous(memory_format=torch.channels_last)

    arguments[1] = _pytree.tree_map_only(Tensor, as_channels_last, arguments[1])
    with pytest.raises(RuntimeError, match=f"{name} must have the shape and strides of"):
        getattr(torch.ops.fastgan, operator)(*arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            (torch.ones(1, 3, 4, 3, 2), None, 4),
            "spectrum must have 6 dimensions, the last of 2 elements, got 5",
        ),
        ((torch.ones(1, 1, 3, 4, 3, 2), None, 6), "of whose spectrum 3 columns are half, got 6"),
        ((torch.ones(1, 1, 3, 4, 3, 2).half(), None, 4), "spectrum must be float32 or float64"),
        (
            (torch.ones(1, 1, 3, 4, 3, 2), torch.ones(4, 3), 4),
            "matrix must have the spectrum's sizes and dtype",
        ),
        (
            (torch.ones(1, 1, 3, 4, 3, 2), torch.ones(1).expand(1, 1, 3, 4, 3), 4),
            "matrix must be contiguous in its last two dimensions",
        ),
    ],
)
def test_spectra_that_do_not_fit_are_refused_by_name(arguments, message):
    with pytest.raises(RuntimeError, match=f"frequency_distance: .*{message}"):
        torch.ops.fastgan.frequency_distance(*arguments, 1.0, False, False)


@pytest.mark.parametrize("operator", ["ssim", "ssim_backward", "pixel_loss", "yuv_l2", "blur"])
def test_images_of_other_dimensions_are_refused(operator):
    arguments = [
        argument[..., None] if isinstance(argument, Tensor) and argument.dim() == 4 else argument
        for argument in direct_calls(*SIZES[0])[operator][0]
    ]
    with pytest.raises(RuntimeError, match="must have 4 dimensions, got 5"):
        getattr(torch.ops.fastgan, operator)(*arguments)


@pytest.mark.parametrize("position, name, value", [(6, "kind", 4), (7, "tv_kind", -1), (8, "color", 3)])
def test_choices_of_the_pixel_loss_that_do_not_exist_are_refused(position, name, value):
    arguments = list(direct_calls(*SIZES[0])["pixel_loss"][0])
    arguments[position] = value
    with pytest.raises(RuntimeError, match=f"pixel_loss: {name} must .*, got {value}"):
        torch.ops.fastgan.pixel_loss(*arguments)


if __name__ == "__main__":
    main()
