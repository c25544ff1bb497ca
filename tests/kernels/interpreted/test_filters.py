"""The Triton kernels of upfirdn2d and filtered_lrelu, in the interpreter."""

from __future__ import annotations

import random

import pytest
import torch

from fastgan import ops
from tests.kernels.interpreted import interpreted
from tests.ops.filters import drawn_filtered_lrelu, drawn_upfirdn2d, taps
from tests.ops.layouts import exact, image, relative_error

pytestmark = interpreted


@pytest.fixture
def on_triton(monkeypatch):
    """The kernels in the places of those that the operators call."""
    from fastgan.kernels import filtered_lrelu, upfirdn2d

    def use(op, name, kernel):
        monkeypatch.setattr(op, name, kernel)

    import importlib

    of_upfirdn2d = importlib.import_module("fastgan.ops.upfirdn2d")
    of_lrelu = importlib.import_module("fastgan.ops.filtered_lrelu")
    use(of_upfirdn2d, "_upfirdn2d", upfirdn2d.upfirdn2d)
    use(of_lrelu, "_filtered_lrelu", filtered_lrelu.filtered_lrelu)
    use(of_lrelu, "_filtered_lrelu_backward", filtered_lrelu.filtered_lrelu_backward)
    return upfirdn2d


def test_upfirdn2d_equals_the_reference(on_triton):
    draw, kinds = random.Random(5), set()
    cases = [drawn_upfirdn2d(draw) for _ in range(25)]
    cases += [
        (taps(12), (9, 11), {"up": 2, "padding": 6}),
        (taps(12), (20, 24), {"down": 2, "padding": [3, 4, 5, 6]}),
        (taps(31), (5, 40), {"padding": 15}),
        (taps(9, 12), (12, 10), {"down": 2, "padding": 5}),
    ]
    for f, size, options in cases:
        x = image((2, *size), channels=2).detach()
        y = ops.upfirdn2d(x, f, **options)
        expected = ops.upfirdn2d(exact(x), f, **options, backend="reference")
        assert relative_error(y, expected) <= 1e-6
        if f is not None:
            up = options.get("up", 1)
            up = up if isinstance(up, int) else up[0]
            columns, separable = -(-f.shape[-1] // up), f.dim() == 1
            kinds.add((on_triton.plan(1, 1, f.shape[0], columns, 0, separable)[0].__name__, separable))
    assert kinds == {
        ("written_out", True), ("written_out", False), ("row_by_row", True), ("tap_by_tap", False)
    }  # fmt: skip


@pytest.mark.parametrize("down", [1, 3])
def test_large_filters_go_tap_by_tap(on_triton, down):
    x, f = image((1, 7, 6), channels=2).detach(), taps(33)
    assert on_triton.plan(1, down, 33, 33, 0, True)[0] is on_triton.tap_by_tap
    options = {"down": down, "padding": [17, 19], "flip_filter": down == 1}
    y = ops.upfirdn2d(x, f, **options)
    expected = ops.upfirdn2d(exact(x), f, **options, backend="reference")
    assert relative_error(y, expected) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_filtered_lrelu_and_its_transpose_equal_the_reference(on_triton, dtype):
    from fastgan.kernels.filtered_lrelu import filtered_lrelu_backward

    draw, tolerance = random.Random(6), 1e-6 if dtype == torch.float32 else 2e-2
    for number in range(12 if dtype == torch.float32 else 3):
        fu, fd, size, options = drawn_filtered_lrelu(draw)
        x, b = (image((2, *size), channels=3).detach() - 0.5).to(dtype), torch.linspace(-0.2, 0.3, 3)
        b = None if number % 3 == 2 else b
        y = ops.filtered_lrelu(x, fu, fd, b, **options)
        reference = exact(x)
        expected = ops.filtered_lrelu(
            reference, fu, fd, b if b is None else b.double(), **options, backend="reference"
        )
        assert y.dtype == dtype and relative_error(y, expected) <= tolerance
        if dtype != torch.float32:
            continue
        # The codes and the backward kernel, as the formula calls them.
        one = torch.ones(1, 1)
        fu, fd = (one if f is None else f for f in (fu, fd))
        up, down, (left, _, top, _) = options["up"], options["down"], options["padding"]
        mid = [
            side * up + sum(margins) - taps + 1
            for side, margins, taps in (
                (size[0], options["padding"][2:], fu.shape[0]),
                (size[1], options["padding"][:2], fu.shape[-1]),
            )
        ]  # fmt: skip
        from fastgan.kernels.filtered_lrelu import filtered_lrelu

        clamp = torch.inf if options["clamp"] is None else options["clamp"]
        again, codes = filtered_lrelu(
            x, b, fu, fd, up, down, left, top, *mid, *y.shape[2:], options["flip_filter"], options["gain"],
            options["slope"], clamp, True,
        )  # fmt: skip
        assert torch.equal(again, y)
        upstream = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
        grad = filtered_lrelu_backward(
            upstream, codes, fd, fu, down, up, fd.shape[-1] - 1, fd.shape[0] - 1, fu.shape[-1] - 1 - left,
            fu.shape[0] - 1 - top, *size, not options["flip_filter"], options["gain"] * up * up,
            options["slope"],
        )  # fmt: skip
        (expected_grad,) = torch.autograd.grad(expected, reference, upstream.double())
        assert relative_error(grad, expected_grad) <= 1e-5


def test_codes_of_nan_and_of_what_the_clamp_changes(on_triton):
    from fastgan.kernels.filtered_lrelu import filtered_lrelu, filtered_lrelu_backward

    x, one = torch.tensor([torch.nan, -torch.inf, -0.5, 0.5, 3.0]).reshape(1, 1, 1, 5), torch.ones(1, 1)
    y, codes = filtered_lrelu(x, None, one, one, 1, 1, 0, 0, 1, 5, 1, 5, False, 1.0, 0.0, 1.0, True)
    assert codes.flatten().tolist() == [3, 0, 0, 1, 2]
    torch.testing.assert_close(y.flatten(), torch.tensor([torch.nan, 0.0, 0.0, 0.5, 1.0]), equal_nan=True)
    grad = filtered_lrelu_backward(
        torch.ones_like(x), codes, one, one, 1, 1, 0, 0, 0, 0, 1, 5, True, 2.0, 0.5
    )
    torch.testing.assert_close(grad.flatten(), torch.tensor([torch.nan, 1.0, 1.0, 2.0, 0.0]), equal_nan=True)
