"""How kernels traverse RGB images: a program processes BLOCK consecutive pixels of one image of the batch.

A thread processes RUN of them, as many as fit in vectors of 16 bytes. Where pixels are adjacent in memory,
there is one vector per channel. Where the three channels of a pixel are (channels_last), LINE pixels are
three lines of LINE values:

    red green blue red | green blue red green | blue red green blue
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, index_type


class Walk(NamedTuple):
    """How a launch traverses its images, which is the same for all of them."""

    run: int
    """Consecutive pixels per thread, 4 or 8."""
    block: int
    """Pixels per program."""
    parts: int
    """Programs per image."""
    flat: bool
    """Whether all images have rows without gaps between them."""
    index: tl.dtype
    """The type of pixel indices and of offsets within an image."""

    def line(self, image: Tensor) -> int:
        """LINE of the kernels; 0 if channels are not adjacent, or vectors cannot be used."""
        return self.run if image.stride(1) == 1 and in_vectors(image, self.flat, self.run) else 0


def in_vectors(image: Tensor, flat: bool, run: int) -> bool:
    """Whether `run` pixels form vectors in a way visible to Triton, which only tracks divisibility by 16."""
    _, _, height, width = image.shape
    multiples_of_16 = [image.storage_offset() * image.itemsize, image.stride(0)]
    if not flat:
        multiples_of_16 += [image.stride(2), width]
    if image.stride(1) != 1:
        multiples_of_16.append(image.stride(1))
    adjacent = image.stride(3) == (3 if image.stride(1) == 1 else 1)
    return adjacent and height * width % run == 0 and all(number % 16 == 0 for number in multiples_of_16)


def walk(threads: int, *images: Tensor) -> Walk:
    batch, _, height, width = images[0].shape
    pixels = height * width
    flat = all(image.stride(2) == width * image.stride(3) for image in images)
    furthest = max((height - 1) * image.stride(2) + (width - 1) * image.stride(3) for image in images)
    index = index_type(max(batch * pixels, furthest), 8 * threads)
    # Without vectors, or with 64-bit offsets, eight pixels need too many registers.
    halves = all(image.itemsize == 2 and in_vectors(image, flat, 8) for image in images)
    run = 8 if halves and index is tl.int32 else 4
    before = 3 if pixels % 4 else 0  # `photometric` may begin up to so many pixels before the image
    return Walk(run, threads * run, cdiv(pixels + before, threads * run), flat, index)


@triton.jit
def part_of_image(parts, INDEX: tl.constexpr, BLOCK: tl.constexpr):
    """The index of the program's image, and of its first pixel there."""
    program = tl.program_id(0)
    return (program // parts).to(tl.int64), (program % parts).to(INDEX) * BLOCK


@triton.jit
def place(pixel, width, stride_h, stride_w, FLAT: tl.constexpr):
    return pixel * stride_w if FLAT else pixel // width * stride_h + pixel % width * stride_w


@triton.jit
def places_of_lines(
    first, pixels, width, stride_h, stride_w, FLAT: tl.constexpr, LINE: tl.constexpr, BLOCK: tl.constexpr
):
    """Offsets of the first of the three lines for every LINE pixels, and whether the pixels exist."""
    pixel = first + LINE * tl.arange(0, BLOCK // LINE)
    places = place(pixel, width, stride_h, stride_w, FLAT)[:, None] + tl.arange(0, LINE)[None, :]
    return places, pixel[:, None] < pixels


@triton.jit
def line(value0, value1, value2, value3):
    """Interleaves four tensors [count] to [count, 4]."""
    pairs = tl.join(tl.join(value0, value2), tl.join(value1, value3))
    return tl.reshape(pairs, [value0.shape[0], 4])


@triton.jit
def values(line):
    """Splits [count, 4] into four tensors [count]."""
    even, odd = tl.split(tl.reshape(line, [line.shape[0], 2, 2]))
    value0, value2 = tl.split(even)
    value1, value3 = tl.split(odd)
    return value0, value1, value2, value3


@triton.jit
def in_turn(before, after):
    """Interleaves the rows of two tensors [count, 4] to [2 * count, 4]."""
    return tl.reshape(tl.permute(tl.join(before, after), [0, 2, 1]), [2 * before.shape[0], 4])


@triton.jit
def halves(lines):
    """Splits 8 * count values into their even and odd groups of four, two tensors [count, 4]."""
    return tl.split(tl.permute(tl.reshape(lines, [lines.numel // 8, 2, 4]), [0, 2, 1]))


@triton.jit
def load(
    image, first, pixels, width, stride_c, stride_h, stride_w, inside,
    FLAT: tl.constexpr, LINE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Red, green and blue of the program's pixels, in float32; 0 outside."""
    if LINE == 0:
        places = place(first + tl.arange(0, BLOCK), width, stride_h, stride_w, FLAT)
        red = tl.load(image + places, inside, 0.0)
        green = tl.load(image + stride_c + places, inside, 0.0)
        blue = tl.load(image + stride_c + stride_c + places, inside, 0.0)
    else:
        places, exist = places_of_lines(first, pixels, width, stride_h, stride_w, FLAT, LINE, BLOCK)
        line0 = tl.load(image + places, exist, 0.0)
        line1 = tl.load(image + LINE + places, exist, 0.0)
        line2 = tl.load(image + 2 * LINE + places, exist, 0.0)
        if LINE == 8:  # rearrange to three lines of 4 for every 4 pixels
            begin0, begin1 = halves(line0)
            begin2, end0 = halves(line1)
            end1, end2 = halves(line2)
            line0, line1, line2 = in_turn(begin0, end0), in_turn(begin1, end1), in_turn(begin2, end2)
        red0, green0, blue0, red1 = values(line0)
        green1, blue1, red2, green2 = values(line1)
        blue2, red3, green3, blue3 = values(line2)
        red = tl.reshape(line(red0, red1, red2, red3), [BLOCK])
        green = tl.reshape(line(green0, green1, green2, green3), [BLOCK])
        blue = tl.reshape(line(blue0, blue1, blue2, blue3), [BLOCK])
    return red.to(tl.float32), green.to(tl.float32), blue.to(tl.float32)


@triton.jit
def store(
    image, red, green, blue, first, pixels, width, stride_c, stride_h, stride_w, inside,
    FLAT: tl.constexpr, LINE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    dtype = image.dtype.element_ty
    red, green, blue = red.to(dtype), green.to(dtype), blue.to(dtype)
    if LINE == 0:
        places = place(first + tl.arange(0, BLOCK), width, stride_h, stride_w, FLAT)
        tl.store(image + places, red, inside)
        tl.store(image + stride_c + places, green, inside)
        tl.store(image + stride_c + stride_c + places, blue, inside)
    else:
        places, exist = places_of_lines(first, pixels, width, stride_h, stride_w, FLAT, LINE, BLOCK)
        red0, red1, red2, red3 = values(tl.reshape(red, [BLOCK // 4, 4]))
        green0, green1, green2, green3 = values(tl.reshape(green, [BLOCK // 4, 4]))
        blue0, blue1, blue2, blue3 = values(tl.reshape(blue, [BLOCK // 4, 4]))
        line0 = line(red0, green0, blue0, red1)
        line1 = line(green1, blue1, red2, green2)
        line2 = line(blue2, red3, green3, blue3)
        if LINE == 8:
            begin0, end0 = halves(line0)
            begin1, end1 = halves(line1)
            begin2, end2 = halves(line2)
            line0 = tl.reshape(in_turn(begin0, begin1), [BLOCK // 8, 8])
            line1 = tl.reshape(in_turn(begin2, end0), [BLOCK // 8, 8])
            line2 = tl.reshape(in_turn(end1, end2), [BLOCK // 8, 8])
        tl.store(image + places, line0, exist)
        tl.store(image + LINE + places, line1, exist)
        tl.store(image + 2 * LINE + places, line2, exist)
