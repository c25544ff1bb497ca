#pragma once

#include "../math/philox.h"
#include "jpeg_pixels.h"

// What each thread of the CUDA kernels does, without a word of CUDA: a kernel calls these functions one after the other
// with a barrier between them, and csrc/tests/test_jpeg.cpp calls them thread by thread on the CPU.
//
// Here is what the kernels share that go through the DCT: a tile of 64 pixels by one row of MCUs in shared memory.
// jpeg_tile_forward.h and jpeg_tile_backward.h have the kernels' own steps.
namespace fastgan {
namespace tile {

constexpr int kWidth = 64, kColumns = kWidth / 8;  // pixels and luma blocks across
constexpr int kThreads = 192;                      // eight for each of up to 24 blocks
constexpr int kRow = 9, kBlock = 8 * kRow;         // a row of a block in shared memory: no two of a warp in one bank

// Where a tile lies.
struct Place {
  int image, mcu_row, left;  // left: the first pixel

  FASTGAN_HOST_DEVICE Place(const Divisor& across, const Divisor& mcu_rows, uint32_t index) {
    uint32_t line = across.divide(index);
    left = static_cast<int>(index) * kWidth;
    image = static_cast<int>(mcu_rows.divide(line));
    mcu_row = static_cast<int>(line);
  }
  static int64_t across(const JpegSizes& sizes) { return (sizes.luma_stride + kWidth - 1) / kWidth; }
  static int64_t count(const JpegSizes& sizes) { return sizes.images * sizes.mcu_rows * across(sizes); }
};

template <typename S>
struct Shared {
  S samples[24 * kBlock];
};

// The steps of the tile's two tables, made once and not by each thread that divides by one.
template <typename S>
struct Steps {
  S steps[128];
  float reciprocals[128];  // of 8 steps, for integers
};

template <typename F>
FASTGAN_HOST_DEVICE constexpr int luma_blocks(F form) {
  return kColumns * form.vertical();
}
template <typename F>
FASTGAN_HOST_DEVICE constexpr int blocks(F form) {
  return luma_blocks(form) + 2 * kColumns / form.horizontal();
}

// Where a sample of the tile lies in shared memory.
FASTGAN_HOST_DEVICE int luma_at(int row, int column) {
  return (row / 8 * kColumns + column / 8) * kBlock + row % 8 * kRow + column % 8;
}
template <typename F>
FASTGAN_HOST_DEVICE int chroma_at(F form, int component, int row, int column) {
  const int block = luma_blocks(form) + (component - 1) * (kColumns / form.horizontal()) + column / 8;
  return block * kBlock + row * kRow + column % 8;
}

// A pixel's samples; `bits` are those of its mask that say what the clamp to [0, 1] lets through.
template <typename S, typename In>
FASTGAN_HOST_DEVICE YCbCr<S> sample_of(const Job<S, In>& job, const In* row, int column, bool& nan, int& bits) {
  using fastgan::to_float;
  using tile::to_float;
  const int64_t* strides = job.image.strides;
  const In* pixel = row + column * strides[3];
  const float red = to_float(pixel[0]), green = to_float(pixel[strides[1]]), blue = to_float(pixel[2 * strides[1]]);
  nan = nan || red != red || green != green || blue != blue;
  bits = (passes(red, 0.0f, 1.0f) ? kMaskInput : 0) | (passes(green, 0.0f, 1.0f) ? kMaskInput << 1 : 0) |
         (passes(blue, 0.0f, 1.0f) ? kMaskInput << 2 : 0);
  if (IsExact<S>::value && job.truncate) {
    return to_ycbcr(grey_level<S, true>(red), grey_level<S, true>(green), grey_level<S, true>(blue));
  }
  return to_ycbcr(grey_level<S, false>(red), grey_level<S, false>(green), grey_level<S, false>(blue));
}

template <typename S, typename In>
FASTGAN_HOST_DEVICE void note_nan(const Job<S, In>& job, const Place& place, int mcu_column) {
  if (!IsExact<S>::value || !job.nan) return;
  job.nan_row(place.image, place.mcu_row)[mcu_column] = 1;
  job.any_nan() = 1;
}

// Pixels to samples, padded as libjpeg does. `input_bits`, (8 vertical, kWidth), or null: a part of the masks.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void load(
    F form, const Job<S, In>& job, const Place& place, int thread, Shared<S>& shared, uint8_t* input_bits) {
  const Extent& extent = job.extent;
  const unsigned across = kWidth / form.horizontal();
  for (unsigned index = thread; index < 8 * across; index += kThreads) {
    const int row = index / across, column = index % across;
    const int chroma_row = 8 * place.mcu_row + row, chroma_column = place.left / form.horizontal() + column;
    const bool is_repeated = chroma_row >= extent.chroma_height;
    S cb = 0, cr = 0;
    bool nan = false;
    for (int dy = 0; dy < form.vertical(); ++dy) {
      const int y = chroma_row * form.vertical() + dy, bottom = extent.height - 1;
      const In* from = job.image.row(place.image, y < bottom ? y : bottom);
      const int last = (extent.chroma_height - 1) * form.vertical() + dy;
      for (int dx = 0; dx < form.horizontal(); ++dx) {
        const int tile_x = column * form.horizontal() + dx, tile_y = row * form.vertical() + dy;
        const int x = place.left + tile_x, right = extent.width - 1;
        int bits;
        YCbCr<S> sample = sample_of(job, from, x < right ? x : right, nan, bits);
        shared.samples[luma_at(tile_y, tile_x)] = sample.y;
        if (input_bits) input_bits[tile_y * kWidth + tile_x] = static_cast<uint8_t>(bits);
        if (is_repeated) {  // luma's rows are repeated in pixels, chroma's in samples
          const In* repeated = job.image.row(place.image, last < bottom ? last : bottom);
          sample = sample_of(job, repeated, x < right ? x : right, nan, bits);
        }
        cb += sample.cb;
        cr += sample.cr;
      }
    }
    if (form.horizontal() * form.vertical() == 4) {
      cb = mean_of_four(cb, chroma_column);
      cr = mean_of_four(cr, chroma_column);
    } else if (form.horizontal() * form.vertical() == 2) {
      cb = mean_of_two(cb, chroma_column);
      cr = mean_of_two(cr, chroma_column);
    }
    shared.samples[chroma_at(form, 1, row, column)] = cb;
    shared.samples[chroma_at(form, 2, row, column)] = cr;
    if (nan) {
      const int mcu_column = chroma_column / 8;
      note_nan(job, place, mcu_column < extent.mcu_columns ? mcu_column : extent.mcu_columns - 1);
    }
  }
}

// The steps; integers take whole steps of one byte, and a table that they cannot take makes its image NaN.
template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void load_steps(F form, const Job<S, In>& job, const Place& place, int thread, Steps<S>& steps) {
  if (thread >= 128) return;
  const float step = job.tables[int64_t(place.image) * job.table_stride + thread];
  if constexpr (kRounding == Rounding::kNone) {
    steps.steps[thread] = step - step;  // 0 or NaN
  } else if constexpr (IsExact<S>::value) {
    bool valid;
    const int32_t whole = whole_step(step, valid);
    steps.steps[thread] = whole;
    steps.reciprocals[thread] = 1.0f / static_cast<float>(8 * whole);
    if (valid) return;
    const int per_tile = kColumns / form.horizontal(), first = place.left / (8 * form.horizontal());
    for (int mcu = first; mcu < first + per_tile && mcu < job.extent.mcu_columns; ++mcu) note_nan(job, place, mcu);
  } else {
    steps.steps[thread] = step;
  }
}

// Each of the eight threads of a block transforms one of its rows.
template <typename F, typename S, typename Transform>
FASTGAN_HOST_DEVICE void transform_row(F form, int thread, Shared<S>& shared, Transform transform) {
  if (thread / 8 >= blocks(form)) return;
  S* row = &shared.samples[thread / 8 * kBlock + thread % 8 * kRow];
  S v[8];
  for (int k = 0; k < 8; ++k) v[k] = row[k];
  transform(v);
  for (int k = 0; k < 8; ++k) row[k] = v[k];
}

// Where nothing is rounded, transform and inverse cancel: neither is made.
template <Rounding kRounding, typename F, typename S>
FASTGAN_HOST_DEVICE void forward_row(F form, int thread, Shared<S>& shared) {
  if constexpr (kRounding == Rounding::kNone) return;
  transform_row(form, thread, shared, [](S(&v)[8]) { forward_dct<0>(v); });
}

template <Rounding kRounding, typename F, typename S>
FASTGAN_HOST_DEVICE void inverse_row(F form, int thread, Shared<S>& shared) {
  if constexpr (kRounding == Rounding::kNone) return;
  transform_row(form, thread, shared, [](S(&v)[8]) { inverse_dct<1>(v); });
}

// The noise of one coefficient, where the rounding has it.
template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE S noise_of(F form, const Job<S, In>& job, const Place& place, int block, int coefficient) {
  if constexpr (kRounding != Rounding::kNoise) {
    return 0;
  } else {
    const int of_chroma = block - luma_blocks(form), chroma_columns = kColumns / form.horizontal();
    int component = 0;
    int64_t row = int64_t(place.mcu_row) * form.vertical() + block / kColumns,
            column = place.left / 8 + block % kColumns;
    if (of_chroma >= 0) {
      component = 1 + of_chroma / chroma_columns;
      row = place.mcu_row;
      column = place.left / (8 * form.horizontal()) + of_chroma % chroma_columns;
    }
    const uint64_t number = job.sizes.block_number(place.image, component, row, column);
    const uint64_t seed = static_cast<uint64_t>(*job.seed);
    return uniform(philox(seed, 64 * number + coefficient).words[0]) - 0.5f;
  }
}

}  // namespace tile
}  // namespace fastgan
