#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "jpeg_rows.h"
#include "jpeg_sweep.h"

// Shared by forward and backward: the samples of one block of work as two strips of eight rows, one with all 8x8 blocks
// of luma side by side and one with those of chroma, so that they fill vectors whatever the image's width.
namespace fastgan {
namespace {

template <typename S>
class Strip {
 public:
  explicit Strip(int64_t blocks)
      : stride_(8 * ((blocks + kLanes - 1) / kLanes * kLanes)), samples_(scratch<S>(8 * stride_)) {
    for (int64_t row = 0; row < 8; ++row) std::fill(at(blocks, row), at(0, row) + stride_, S(0));
  }

  // Row `row` of samples, starting at the given block of it.
  S* at(int64_t block, int64_t row = 0) { return &samples_[row * stride_ + 8 * block]; }
  int64_t stride() const { return stride_; }
  int64_t groups() const { return stride_ / (8 * kLanes); }

 private:
  int64_t stride_;
  Scratch<S> samples_;
};

template <typename S>
struct Strips {
  Strips(const JpegSizes& sizes, int64_t mcu_rows)
      : luma_columns(sizes.luma_stride / 8),
        chroma_columns(sizes.chroma_stride / 8),
        luma(mcu_rows * sizes.mcu_height / 8 * luma_columns),
        chroma(2 * mcu_rows * chroma_columns) {}

  // Row `row` of the work's luma, and of its Cb (component 1) or Cr (2).
  S* luma_row(int64_t row) { return luma.at(row / 8 * luma_columns, row % 8); }
  S* chroma_row(int component, int64_t row) {
    return chroma.at((row / 8 * 2 + component - 1) * chroma_columns, row % 8);
  }

  int64_t luma_columns, chroma_columns;
  Strip<S> luma, chroma;
};

// The rows of MCUs of one block of work.
struct Work {
  Work(const JpegSizes& sizes, const JpegBlocks& blocks, int64_t block)
      : image(block / blocks.per_image),
        first(block % blocks.per_image * blocks.rows),
        rows(std::min(blocks.rows, sizes.mcu_rows - first)) {}

  int64_t image, first, rows;
};

// Prefetches the row of pixels that lies `ahead` rows after (image, row), counted through all images. A block reads its
// pixels in a burst and then computes for long without touching memory; meanwhile it prefetches the next block's
// pixels. Always inlined, because GCC considers a function that only prefetches free of effects, and drops calls to it.
FASTGAN_HOST_DEVICE void fetch_row(const ImageView& view, int64_t image, int64_t row, int64_t ahead) {
  const int64_t line = image * view.sizes[2] + row + ahead, n = line / view.sizes[2];
  if (n >= view.sizes[0]) return;
  const int64_t bytes = view.sizes[3] * view.strides[3] * size_of(view.dtype);
  for (int c = 0; c < 3; ++c) {
    const char* data = static_cast<const char*>(view.at(n, c, line % view.sizes[2], 0));
    for (int64_t at = 0; at < bytes; at += 64) FASTGAN_PREFETCH(data + at);
  }
}

template <typename S>
void replicate_last(S* row, int64_t count, int64_t padded) {
  std::fill(row + count, row + padded, row[count - 1]);
}

// Reads the work's pixels into centred samples, padded to whole MCUs as libjpeg does: the last column is repeated
// before chroma is subsampled, the last row after it. Calls `on_row(row, rgb, has_nan)` once for every row of the
// image.
template <typename S, typename In, typename OnRow>
void read_samples(
    const ImageView& image, const JpegSizes& sizes, const JpegOptions& options, const Work& work, Strips<S>& strips,
    OnRow on_row) {
  const int64_t width = sizes.width, padded = sizes.luma_stride;
  const Scratch<In> buffer = scratch<In>(3 * width);
  const Scratch<S> chroma = scratch<S>(4 * padded);  // Cb and Cr of one or two rows
  for (int64_t row = 0; row < work.rows * sizes.mcu_height; ++row) {
    const int64_t wanted = work.first * sizes.mcu_height + row;
    const int64_t source = std::min(wanted, sizes.height - 1);
    const In* rgb[3];
    for (int c = 0; c < 3; ++c) {
      rgb[c] = load(image.at(work.image, c, source, 0), image.dtype, image.strides[3], width, &buffer[c * width]);
    }
    const bool subsampled = options.horizontal == 2;
    const int64_t chroma_row = row / options.vertical, turn = row % options.vertical;
    S* cb = subsampled ? &chroma[2 * turn * padded] : strips.chroma_row(1, chroma_row);
    S* cr = subsampled ? cb + padded : strips.chroma_row(2, chroma_row);
    S* luma = strips.luma_row(row);
    const bool nan =
        options.truncate ? convert_row<true>(rgb, width, luma, cb, cr) : convert_row<false>(rgb, width, luma, cb, cr);
    if (wanted == source) on_row(row, rgb, nan);
    for (S* samples : {luma, cb, cr}) replicate_last(samples, width, padded);
    if (!subsampled || turn + 1 < options.vertical) continue;
    for (int c = 0; c < 2; ++c) {
      const S *above = &chroma[c * padded], *below = options.vertical == 2 ? &chroma[(2 + c) * padded] : nullptr;
      subsample_row(above, below, sizes.chroma_stride, strips.chroma_row(1 + c, chroma_row));
    }
  }
  const int64_t last = sizes.chroma_height - 1 - 8 * work.first;
  for (int64_t row = last + 1; row < 8 * work.rows; ++row) {
    for (int c = 1; c <= 2; ++c)
      std::copy_n(strips.chroma_row(c, last), sizes.chroma_stride, strips.chroma_row(c, row));
  }
}

template <typename S>
BlockTable<S> block_table(const JpegTables& tables, int64_t image, int component) {
  BlockTable<S> table;
  const int64_t first = tables.at(image, component);
  for (int i = 0; i < 64; ++i) {
    if constexpr (IsExact<S>::value) {
      table.steps[i] = tables.whole_steps[first + i];
      table.reciprocals[i] = reciprocal_above(table.steps[i]);
    } else {
      table.steps[i] = static_cast<S>(tables.values[first + i]);
      table.reciprocals[i] = 0;
    }
  }
  return table;
}

// Calls visit(chroma, group, strip, table, noise or null) for every group of 16 blocks in both strips.
template <typename S, typename Visit>
void for_all_blocks(
    Strips<S>& strips, const JpegSizes& sizes, const JpegOptions& options, const JpegTables& tables, uint64_t seed,
    const Work& work, Visit visit) {
  for (int chroma = 0; chroma < 2; ++chroma) {
    const BlockTable<S> table = block_table<S>(tables, work.image, chroma);
    Strip<S>& strip = chroma ? strips.chroma : strips.luma;
    const int64_t columns = chroma ? strips.chroma_columns : strips.luma_columns;
    for (int64_t group = 0; group < strip.groups(); ++group) {
      alignas(64) S noise[64][kLanes];
      const bool noisy = options.rounding == Rounding::kNoise;
      if (noisy) {
        uint64_t numbers[kLanes];
        for (int64_t i = 0; i < kLanes; ++i) {
          const int64_t line = (group * kLanes + i) / columns, column = (group * kLanes + i) % columns;
          const int component = chroma ? 1 + line % 2 : 0;
          const int64_t row = chroma ? work.first + line / 2 : work.first * (sizes.mcu_height / 8) + line;
          numbers[i] = sizes.block_number(work.image, component, row, column);
        }
        block_noise<S>(seed, numbers, noise);
      }
      visit(chroma, group, strip, table, noisy ? noise : nullptr);
    }
  }
}

// Calls body(S(), In()) with the arithmetic S that the rounding needs and the real type In in which the image is read.
template <typename Body>
void with_arithmetic(const JpegOptions& options, Dtype image, Body body) {
  const bool exact = options.rounding == Rounding::kStraightThrough;
  if (image == Dtype::kFloat64) {
    exact ? body(int32_t(), double()) : body(double(), double());
  } else {
    exact ? body(int32_t(), float()) : body(float(), float());
  }
}

// Calls body(std::integral_constant<Rounding, ...>), instantiated only for the roundings of the arithmetic S.
template <typename S, typename Body>
void with_rounding(Rounding rounding, Body body) {
  if constexpr (IsExact<S>::value) {
    body(std::integral_constant<Rounding, Rounding::kStraightThrough>());
  } else if (rounding == Rounding::kCubic) {
    body(std::integral_constant<Rounding, Rounding::kCubic>());
  } else if (rounding == Rounding::kAtZero) {
    body(std::integral_constant<Rounding, Rounding::kAtZero>());
  } else if (rounding == Rounding::kNoise) {
    body(std::integral_constant<Rounding, Rounding::kNoise>());
  } else {
    body(std::integral_constant<Rounding, Rounding::kNone>());
  }
}

}  // namespace
}  // namespace fastgan
