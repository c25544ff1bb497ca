"""Triton kernels of `fastgan.ops.perspective_warp`, which tells what is computed. One launch each way."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from fastgan.kernels._indexing import index_type
from torch import Tensor

# Chosen by arithmetic, not yet by measurement: 2 pixels per thread, each with four taps in flight.
BLOCK = 256
WARPS = 4


@triton.jit
def is_nan(x):
    return x != x


@triton.jit
def source_pixel(matrix, x, y):
    """The pixel left above the place that output pixel (x, y) comes from, and how far past it that lies.

    In float32, without losing the digits behind the point to a coordinate in the thousands: what is
    computed is how far the place is from (x, y) itself, for small warps a small number.
    """
    m00, m01, m02 = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2)
    m10, m11, m12 = tl.load(matrix + 3), tl.load(matrix + 4), tl.load(matrix + 5)
    m20, m21, m22 = tl.load(matrix + 6), tl.load(matrix + 7), tl.load(matrix + 8)
    to_x, to_y = x.to(tl.float32), y.to(tl.float32)
    m20_, m21_ = m20.to(tl.float32), m21.to(tl.float32)
    bend = m20_ * to_x + m21_ * to_y
    scale = bend + m22.to(tl.float32)
    shift_x = (m00 - m22).to(tl.float32) * to_x + m01.to(tl.float32) * to_y + m02.to(tl.float32)
    shift_y = m10.to(tl.float32) * to_x + (m11 - m22).to(tl.float32) * to_y + m12.to(tl.float32)
    shift_x = (shift_x - to_x * bend) / scale
    shift_y = (shift_y - to_y * bend) / scale
    # NaN and what no integer holds are outside in any case.
    shift_x = tl.where(tl.abs(shift_x) < 1e9, shift_x, 1e9)
    shift_y = tl.where(tl.abs(shift_y) < 1e9, shift_y, 1e9)
    # Of a matrix that is NaN nobody knows where pixels look: each gets and gives NaN in its own place.
    total = m00 + m01 + m02 + m10 + m11 + m12 + m20 + m21 + m22
    broken = is_nan(m00) | is_nan(m01) | is_nan(m02) | is_nan(m10) | is_nan(m11) | is_nan(m12)
    broken = broken | is_nan(m20) | is_nan(m21) | is_nan(m22)
    shift_x = tl.where(broken, 0.0, shift_x)
    shift_y = tl.where(broken, 0.0, shift_y)
    left, above = tl.floor(shift_x), tl.floor(shift_y)
    right = tl.where(broken, total.to(tl.float32), shift_x - left)
    return x + left.to(tl.int32), y + above.to(tl.int32), right, shift_y - above


@triton.jit
def tap_weight(column, row, column_weight, row_weight, width, height, inside):
    exists = inside & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return tl.where(exists, column_weight * row_weight, 0.0)


@triton.jit
def taps(matrix, x, y, height, width, inside):
    """The first of the four pixels around the place, and the weights of all four: 0 outside the image."""
    column, row, right, below = source_pixel(matrix, x, y)
    w00 = tap_weight(column, row, 1.0 - right, 1.0 - below, width, height, inside)
    w01 = tap_weight(column + 1, row, right, 1.0 - below, width, height, inside)
    w10 = tap_weight(column, row + 1, 1.0 - right, below, width, height, inside)
    w11 = tap_weight(column + 1, row + 1, right, below, width, height, inside)
    return column, row, w00, w01, w10, w11


@triton.jit
def output_pixels(blocks, height, width, INDEX: tl.constexpr, BLOCK: tl.constexpr):
    """Image, row and column of this program's pixels, and whether they exist."""
    program = tl.program_id(0)
    pixel = (program % blocks).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    y, x = (pixel // width).to(tl.int32), (pixel % width).to(tl.int32)
    return (program // blocks).to(tl.int64), y, x, y < height


@triton.jit
def read_tap(plane, column, row, stride_w, stride_h, weight):
    place = plane + column.to(tl.int64) * stride_w + row.to(tl.int64) * stride_h
    return weight * tl.load(place, weight != 0.0, 0.0).to(tl.float32)


@triton.jit
def add_tap(plane, column, row, width, weight, grad):
    place = plane + row.to(tl.int64) * width + column.to(tl.int64)
    tl.atomic_add(place, weight * grad, weight != 0.0, sem="relaxed")


@triton.jit
def forward(
    image,  # N C H W, any strides
    warped,  # N C H W, any strides
    fill,  # N C H W, any strides; not touched unless HAS_FILL
    matrix,  # N 3 3 float64
    channels,
    height,
    width,
    blocks,  # of one image: a program's pixels share a matrix
    image_stride_n,
    image_stride_c,
    image_stride_h,
    image_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    fill_stride_n,
    fill_stride_c,
    fill_stride_h,
    fill_stride_w,
    HAS_FILL: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    n, y, x, inside = output_pixels(blocks, height, width, INDEX, BLOCK)
    column, row, w00, w01, w10, w11 = taps(matrix + n * 9, x, y, height, width, inside)
    outside = 1.0 - (w00 + w01 + w10 + w11)
    image += n * image_stride_n
    warped += n * out_stride_n + y.to(tl.int64) * out_stride_h + x.to(tl.int64) * out_stride_w
    fill += n * fill_stride_n + y.to(tl.int64) * fill_stride_h + x.to(tl.int64) * fill_stride_w
    for _ in range(channels):
        value = read_tap(image, column, row, image_stride_w, image_stride_h, w00)
        value += read_tap(image, column + 1, row, image_stride_w, image_stride_h, w01)
        value += read_tap(image, column, row + 1, image_stride_w, image_stride_h, w10)
        value += read_tap(image, column + 1, row + 1, image_stride_w, image_stride_h, w11)
        if HAS_FILL:
            # The weights of a place well inside may miss 1 by a rounding.
            value += outside * tl.load(fill, inside & (outside > 1e-6), 0.0).to(tl.float32)
            fill += fill_stride_c
        tl.store(warped, value.to(warped.dtype.element_ty), inside)
        image += image_stride_c
        warped += out_stride_c


@triton.jit
def backward(
    grad,  # N C H W, any strides
    total,  # N C H W float32, contiguous, zeros: receives the sums
    matrix,  # N 3 3 float64
    channels,
    height,
    width,
    blocks,
    grad_stride_n,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    n, y, x, inside = output_pixels(blocks, height, width, INDEX, BLOCK)
    column, row, w00, w01, w10, w11 = taps(matrix + n * 9, x, y, height, width, inside)
    grad += n * grad_stride_n + y.to(tl.int64) * grad_stride_h + x.to(tl.int64) * grad_stride_w
    total += n * channels * height * width
    for _ in range(channels):
        value = tl.load(grad, inside, 0.0).to(tl.float32)
        add_tap(total, column, row, width, w00, value)
        add_tap(total, column + 1, row, width, w01, value)
        add_tap(total, column, row + 1, width, w10, value)
        add_tap(total, column + 1, row + 1, width, w11, value)
        grad += grad_stride_c
        total += height * width


def perspective_warp(image: Tensor, matrix: Tensor, fill: Tensor | None) -> Tensor:
    """Like image; on its device and current stream."""
    batch, channels, height, width = image.shape
    warped = torch.empty_like(image)
    blocks = triton.cdiv(height * width, BLOCK)
    with torch.cuda.device_of(image):
        forward[(batch * blocks,)](
            image,
            warped,
            image if fill is None else fill,
            matrix,
            channels,
            height,
            width,
            blocks,
            *image.stride(),
            *warped.stride(),
            *(image if fill is None else fill).stride(),
            HAS_FILL=fill is not None,
            INDEX=index_type(height * width, BLOCK),
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    return warped


def perspective_warp_backward(grad: Tensor, matrix: Tensor) -> Tensor:
    """The gradient of the image, in the dtype of grad."""
    batch, channels, height, width = grad.shape
    total = torch.zeros(grad.shape, dtype=torch.float32, device=grad.device)
    blocks = triton.cdiv(height * width, BLOCK)
    with torch.cuda.device_of(grad):
        backward[(batch * blocks,)](
            grad,
            total,
            matrix,
            channels,
            height,
            width,
            blocks,
            *grad.stride(),
            INDEX=index_type(height * width, BLOCK),
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    return torch.empty_like(grad).copy_(total)
