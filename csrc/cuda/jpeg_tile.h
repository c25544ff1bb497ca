#pragma once

#include "../math/philox.h"
#include "jpeg_pixels.h"

// What each thread of the CUDA kernels does, in plain C++: a kernel calls these functions one after the other with a
// barrier between them, and csrc/tests/test_jpeg.cpp calls them thread by thread on the CPU.
//
// This file has what is common to the kernels with a DCT, which process a tile of 64 pixels by one row of MCUs in
// shared memory. Their other steps are in jpeg_tile_forward.h and jpeg_tile_backward.h.
namespace fastgan {
namespace tile {

constexpr int kWidth = 64, kColumns = kWidth / 8;  // width of a tile in pixels and in luma blocks
// Threads per tile. Each processes eight pixels of a row (of two rows in 4:2:0), a row of a chroma block, and columns
// of up to three blocks.
constexpr int kThreads = 64;
// Strides of a block's rows, and of blocks, in shared memory, padded against bank conflicts. Rows are accessed by eight
// threads at a time in vectors of 16 bytes: those of eight rows begin 12 words apart, at different multiples of 4
// modulo 32. Columns are accessed by 32 threads at a time in words: those of four blocks begin 104 words apart, at
// different multiples of 8. (One conflict of two threads remains: writing luma of 4:2:0, where a thread's rows are two
// apart.)
constexpr int kRow = 12, kBlock = 8 * kRow + 8;

// The position of a tile.
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
  alignas(16) S samples[24 * kBlock];
};

// A step of a quantization table and, for integers, the reciprocal that `quantize` takes.
template <typename S>
struct alignas(2 * sizeof(S)) Step {
  S step;
  float reciprocal;
};

// The steps of the tile's two tables, computed once per tile instead of once per thread.
template <typename S>
struct Steps {
  Step<S> steps[128];
};

template <typename F>
FASTGAN_HOST_DEVICE constexpr int luma_blocks(F form) {
  return kColumns * form.vertical();
}
template <typename F>
FASTGAN_HOST_DEVICE constexpr int blocks(F form) {
  return luma_blocks(form) + 2 * kColumns / form.horizontal();
}

// The index of a sample of the tile in shared memory.
FASTGAN_HOST_DEVICE int luma_at(int row, int column) {
  return (row / 8 * kColumns + column / 8) * kBlock + row % 8 * kRow + column % 8;
}
template <typename F>
FASTGAN_HOST_DEVICE int chroma_at(F form, int component, int row, int column) {
  const int block = luma_blocks(form) + (component - 1) * (kColumns / form.horizontal()) + column / 8;
  return block * kBlock + row * kRow + column % 8;
}

// Read and write a row of a block, or half of one.
template <int kCount, typename S>
FASTGAN_HOST_DEVICE void get_row(const S* from, S (&v)[kCount]) {
  for (int i = 0; i < kCount; i += 4) {
    const Vector<S, 4> four = read<4>(from + i);
    for (int k = 0; k < 4; ++k) v[i + k] = four.values[k];
  }
}
template <int kCount, typename S>
FASTGAN_HOST_DEVICE void put_row(S* to, const S (&v)[kCount]) {
  for (int i = 0; i < kCount; i += 4) {
    Vector<S, 4> four;
    for (int k = 0; k < 4; ++k) four.values[k] = v[i + k];
    *reinterpret_cast<Vector<S, 4>*>(to + i) = four;
  }
}

template <typename S, typename In>
FASTGAN_HOST_DEVICE void flag_nan(const Job<S, In>& job, const Place& place, int mcu_column) {
  if (!IsExact<S>::value || !job.nan) return;
  job.nan_row(place.image, place.mcu_row)[mcu_column] = 1;
  job.any_nan() = 1;
}

// The mask bits of a thread's pixels for the clamp to [0, 1] of the input: one byte per pixel, for up to two rows of
// eight.
struct InputBits {
  uint32_t words[2][2];
};

// The mask bits of four pixels. Avoids comparisons, whose results a GPU would insert into the mask one by one. With s
// the clamped x, the sign bit of s - x^2 is clear where s = x, and set where s is 0 or 1 instead of x. The sign of NaN
// is arbitrary: therefore a bit of kSuspects is set in `suspects` if a value is NaN (or far from [0, 1]).
constexpr uint32_t kSuspects = 0x40404040;

FASTGAN_HOST_DEVICE uint32_t input_bits(const float (&values)[3][4], const float (&clamped)[3][4], uint32_t& suspects) {
  uint32_t bits = 0;
  FASTGAN_UNROLL
  for (int c = 0; c < 3; ++c) {
    uint32_t words[4];
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) words[i] = bits_of_float(fmaf(-values[c][i], values[c][i], clamped[c][i]));
    const uint32_t signs = gather_bytes<3>(words[0], words[1], words[2], words[3]);
    suspects |= signs;
    bits |= ~(signs >> (7 - c)) & (0x01010101u * kMaskInput << c);
  }
  return bits;
}

FASTGAN_HOST_DEVICE float clamped_to_one(float x) {
#ifdef __CUDA_ARCH__
  return __saturatef(x);
#else
  return bounded(x, 1.0f);
#endif
}

// Finds NaN in a thread's pixels: sets its mask bits, and flags the MCU.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void find_nan(F form, const Job<S, In>& job, const Place& place, int thread, InputBits& bits) {
  const Extent& extent = job.extent;
  const int x = place.left + thread / 8 * 8;
  uint32_t all = 0;
  FASTGAN_UNROLL
  for (int word = 0; word < 4; ++word) {
    if (word >= 2 * form.vertical()) continue;
    const int y = form.vertical() * (8 * place.mcu_row + thread % 8) + word / 2;
    uint32_t nan_bits = 0;
    FASTGAN_NO_UNROLL
    for (int i = 0; i < 4; ++i) {
      FASTGAN_NO_UNROLL
      for (int c = 0; c < 3; ++c) {
        const int column = x + word % 2 * 4 + i;
        const float value = job.image.get(
            place.image, c, y < extent.height ? y : extent.height - 1,
            column < extent.width ? column : extent.width - 1);
        if (value != value) nan_bits |= kMaskInput << c << 8 * i;
      }
    }
    bits.words[word / 2][word % 2] |= nan_bits;
    all |= nan_bits;
  }
  const int mcu_column = x / (8 * form.horizontal());
  if (all) flag_nan(job, place, mcu_column < extent.mcu_columns ? mcu_column : extent.mcu_columns - 1);
}

// Converts four pixels to samples; `clamped` has their values clamped to [0, 1].
template <typename S, typename In>
FASTGAN_HOST_DEVICE void samples_of(
    const Job<S, In>& job, const float (&values)[3][4], float (&clamped)[3][4], YCbCr<S> (&samples)[4]) {
  if constexpr (IsExact<S>::value) {
    if (job.truncate) {
      for (int c = 0; c < 3; ++c) {
        for (int i = 0; i < 4; ++i) clamped[c][i] = truncf(times_255(clamped[c][i])) * (1.0f / 255);
      }
    }
    for (int i = 0; i < 4; ++i) {
      uint32_t levels[3];  // plus the same multiple of 2^16 in all three
      for (int c = 0; c < 3; ++c) levels[c] = bits_of_float(times_255(clamped[c][i]) + kWholeNumbers);
      samples[i] = to_ycbcr(levels[0], levels[1], levels[2]);
    }
  } else {
    for (int i = 0; i < 4; ++i) {
      samples[i] = to_ycbcr(
          grey_level<S, false>(values[0][i]), grey_level<S, false>(values[1][i]), grey_level<S, false>(values[2][i]));
    }
  }
}

// Converts pixels to samples, padded as in libjpeg. Applies the DCT of rows to luma and, without subsampling, to
// chroma. kPlanar: the thread's pixels are inside the image, and can be read as planar vectors. Returns whether there
// may be NaN.
template <Rounding kRounding, bool kPlanar, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE bool load_pixels(
    F form, const Job<S, In>& job, const Place& place, int thread, Shared<S>& shared, InputBits& bits) {
  const Extent& extent = job.extent;
  const int row = thread % 8, column = thread / 8 * 8, x = place.left + column;
  S cb[8] = {}, cr[8] = {};
  uint32_t suspects = 0;
  FASTGAN_UNROLL
  for (int dy = 0; dy < 2; ++dy) {
    if (dy >= form.vertical()) continue;
    const int tile_row = form.vertical() * row + dy, bottom = extent.height - 1;
    int y = 8 * form.vertical() * place.mcu_row + tile_row;
    y = y < bottom ? y : bottom;
    S luma[8];
    FASTGAN_UNROLL
    for (int half = 0; half < 2; ++half) {
      float values[3][4], clamped[3][4];
      if constexpr (kPlanar) {
        job.image.get_planar_four(job.image.row(place.image, y) + x + 4 * half, values);
      } else {
        job.image.get_four_repeated(place.image, y, x + 4 * half, extent.width, values);
      }
      for (int c = 0; c < 3; ++c) {
        for (int i = 0; i < 4; ++i) clamped[c][i] = clamped_to_one(values[c][i]);
      }
      bits.words[dy][half] = input_bits(values, clamped, suspects);
      YCbCr<S> samples[4];
      samples_of(job, values, clamped, samples);
      FASTGAN_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int k = 4 * half + i;
        luma[k] = samples[i].y;
        if (form.horizontal() == 1) {
          cb[k] = samples[i].cb;
          cr[k] = samples[i].cr;
        } else {
          cb[k / 2] += samples[i].cb;
          cr[k / 2] += samples[i].cr;
        }
      }
    }
    if (kRounding != Rounding::kNone) forward_dct<0>(luma);
    put_row(&shared.samples[luma_at(tile_row, column)], luma);
  }
  if (form.horizontal() == 1) {
    if (kRounding != Rounding::kNone) forward_dct<0>(cb);
    if (kRounding != Rounding::kNone) forward_dct<0>(cr);
    put_row(&shared.samples[chroma_at(form, 1, row, column)], cb);
    put_row(&shared.samples[chroma_at(form, 2, row, column)], cr);
  } else {
    S means[2][4];
    for (int i = 0; i < 4; ++i) {
      means[0][i] = form.vertical() == 2 ? mean_of_four(cb[i], i) : mean_of_two(cb[i], i);
      means[1][i] = form.vertical() == 2 ? mean_of_four(cr[i], i) : mean_of_two(cr[i], i);
    }
    put_row(&shared.samples[chroma_at(form, 1, row, column / 2)], means[0]);
    put_row(&shared.samples[chroma_at(form, 2, row, column / 2)], means[1]);
  }
  return suspects & kSuspects;
}

template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void load(
    F form, const Job<S, In>& job, const Place& place, int thread, Shared<S>& shared, InputBits& bits) {
  bool may_have_nan;
  if (IsExact<S>::value && job.image.fours == Fours::kPlanar && place.left + kWidth <= job.extent.width) {
    // The most common case has its own instantiation.
    may_have_nan = load_pixels<kRounding, IsExact<S>::value>(form, job, place, thread, shared, bits);
  } else {
    may_have_nan = load_pixels<kRounding, false>(form, job, place, thread, shared, bits);
  }
  if (may_have_nan) find_nan(form, job, place, thread, bits);
}

// Loads the tables' steps. Integer arithmetic needs integers of one byte: a table with other values makes its image
// NaN.
template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void load_steps(F form, const Job<S, In>& job, const Place& place, int thread, Steps<S>& steps) {
  const float* table = job.tables + int64_t(place.image) * job.table_stride;
  bool all_valid = true;
  FASTGAN_UNROLL
  for (int part = 0; part < 128 / kThreads; ++part) {
    const int index = part * kThreads + thread;
    const float step = table[index];
    Step<S> entry = {};
    if constexpr (kRounding == Rounding::kNone) {
      entry.step = step - step;  // 0 or NaN
    } else if constexpr (IsExact<S>::value) {
      bool valid;
      entry.step = whole_step(step, valid);
      entry.reciprocal = reciprocal_above(entry.step);
      all_valid = all_valid && valid;
    } else {
      entry.step = step;
    }
    steps.steps[index] = entry;
  }
  if (all_valid) return;
  const int per_tile = kColumns / form.horizontal(), first = place.left / (8 * form.horizontal());
  for (int mcu = first; mcu < first + per_tile && mcu < job.extent.mcu_columns; ++mcu) flag_nan(job, place, mcu);
}

// Reads the thread's row of subsampled chroma, which `load` has not transformed; put_chroma_row writes it once the warp
// has read all of the block. Below the image, luma repeats the last row of pixels, but chroma the last row of samples.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void get_chroma_row(
    F form, const Job<S, In>& job, const Place& place, int thread, const Shared<S>& shared, S (&v)[8]) {
  const int row = thread % 8, last = job.extent.chroma_height - 1 - 8 * place.mcu_row;
  get_row(&shared.samples[(luma_blocks(form) + thread / 8) * kBlock + (row < last ? row : last) * kRow], v);
}

// Where nothing is rounded, transform and inverse cancel, and both are left out.
template <Rounding kRounding, typename F, typename S>
FASTGAN_HOST_DEVICE void put_chroma_row(F form, int thread, Shared<S>& shared, S (&v)[8]) {
  if (kRounding != Rounding::kNone) forward_dct<0>(v);
  put_row(&shared.samples[(luma_blocks(form) + thread / 8) * kBlock + thread % 8 * kRow], v);
}

// The noise of one coefficient; 0 unless the rounding adds noise.
template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE S noise_of(F form, const Job<S, In>& job, const Place& place, int block, int coefficient) {
  if constexpr (kRounding != Rounding::kNoise) {
    return 0;
  } else {
    const int chroma_block = block - luma_blocks(form), chroma_columns = kColumns / form.horizontal();
    int component = 0;
    int64_t row = int64_t(place.mcu_row) * form.vertical() + block / kColumns,
            column = place.left / 8 + block % kColumns;
    if (chroma_block >= 0) {
      component = 1 + chroma_block / chroma_columns;
      row = place.mcu_row;
      column = place.left / (8 * form.horizontal()) + chroma_block % chroma_columns;
    }
    const uint64_t number = job.sizes.block_number(place.image, component, row, column);
    const uint64_t seed = static_cast<uint64_t>(*job.seed);
    return uniform(philox(seed, 64 * number + coefficient).words[0]) - 0.5f;
  }
}

}  // namespace tile
}  // namespace fastgan
