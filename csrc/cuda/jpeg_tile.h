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
// Of a tile: each has eight pixels of a row of samples, a row of chroma, and columns of up to three blocks.
constexpr int kThreads = 64;
// A row of a block in shared memory, and a block. Eight threads at a time read or write rows in pieces of 16 bytes, and
// 32 of them columns in words, each on banks of their own: pieces of eight rows begin 12 words apart, at different
// multiples of 4 modulo 32, and columns of four blocks 104 words apart, at different multiples of 8. (Luma's rows of
// 4:2:0, each thread's two apart, are written by two threads at once on the same banks.)
constexpr int kRow = 12, kBlock = 8 * kRow + 8;

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
  alignas(16) S samples[24 * kBlock];
};

// A step of a table, and for integers what `quantize` takes.
template <typename S>
struct alignas(2 * sizeof(S)) Step {
  S step;
  float reciprocal;
};

// Those of the tile's two tables, made once and not by each thread that divides by one.
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

// Where a sample of the tile lies in shared memory.
FASTGAN_HOST_DEVICE int luma_at(int row, int column) {
  return (row / 8 * kColumns + column / 8) * kBlock + row % 8 * kRow + column % 8;
}
template <typename F>
FASTGAN_HOST_DEVICE int chroma_at(F form, int component, int row, int column) {
  const int block = luma_blocks(form) + (component - 1) * (kColumns / form.horizontal()) + column / 8;
  return block * kBlock + row * kRow + column % 8;
}

// A row of a block, or a half of it.
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
FASTGAN_HOST_DEVICE void note_nan(const Job<S, In>& job, const Place& place, int mcu_column) {
  if (!IsExact<S>::value || !job.nan) return;
  job.nan_row(place.image, place.mcu_row)[mcu_column] = 1;
  job.any_nan() = 1;
}

// Which values of a thread's pixels the clamp to [0, 1] lets through: of up to two rows of eight pixels, a byte of
// masks for each.
struct InputBits {
  uint32_t words[2][2];
};

// Those of four pixels. Without comparisons, of which GPUs would put one result after the other into its bit: for x
// clamped to s, s - x^2 is not negative where s = x, and negative, if only by its sign, where s = 0 or 1 is another
// number. What NaN has for a sign is left open; with it, `suspects` has one of the bits kSuspects, as it has with
// numbers far from [0, 1].
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

// Looks for NaN in a thread's pixels, and lets it through the masks.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void find_nan(F form, const Job<S, In>& job, const Place& place, int thread, InputBits& bits) {
  const Extent& extent = job.extent;
  const int x = place.left + thread / 8 * 8;
  uint32_t all = 0;
  FASTGAN_UNROLL
  for (int word = 0; word < 4; ++word) {
    if (word >= 2 * form.vertical()) continue;
    const int y = form.vertical() * (8 * place.mcu_row + thread % 8) + word / 2;
    uint32_t found = 0;
    FASTGAN_NO_UNROLL
    for (int i = 0; i < 4; ++i) {
      FASTGAN_NO_UNROLL
      for (int c = 0; c < 3; ++c) {
        const int column = x + word % 2 * 4 + i;
        const float value = job.image.get(
            place.image, c, y < extent.height ? y : extent.height - 1,
            column < extent.width ? column : extent.width - 1);
        if (value != value) found |= kMaskInput << c << 8 * i;
      }
    }
    bits.words[word / 2][word % 2] |= found;
    all |= found;
  }
  const int mcu_column = x / (8 * form.horizontal());
  if (all) note_nan(job, place, mcu_column < extent.mcu_columns ? mcu_column : extent.mcu_columns - 1);
}

// Four pixels' samples; `clamped` are their values clamped to [0, 1].
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
      uint32_t levels[3];  // and what all three have in common
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

// Pixels to samples, padded as libjpeg does; luma, and chroma where it has as many samples, go through the DCT of rows
// at once. kPlanar: the thread's pixels are inside the image, and four of a channel lie together. Returns whether there
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
    // What is most often asked for, in a version of its own.
    may_have_nan = load_pixels<kRounding, IsExact<S>::value>(form, job, place, thread, shared, bits);
  } else {
    may_have_nan = load_pixels<kRounding, false>(form, job, place, thread, shared, bits);
  }
  if (may_have_nan) find_nan(form, job, place, thread, bits);
}

// The steps; integers take whole steps of one byte, and a table that they cannot take makes its image NaN.
template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void load_steps(F form, const Job<S, In>& job, const Place& place, int thread, Steps<S>& steps) {
  const float* table = job.tables + int64_t(place.image) * job.table_stride;
  bool all_valid = true;
  FASTGAN_UNROLL
  for (int part = 0; part < 128 / kThreads; ++part) {
    const int index = part * kThreads + thread;
    const float step = table[index];
    Step<S> made = {};
    if constexpr (kRounding == Rounding::kNone) {
      made.step = step - step;  // 0 or NaN
    } else if constexpr (IsExact<S>::value) {
      bool valid;
      made.step = whole_step(step, valid);
      made.reciprocal = reciprocal_above(made.step);
      all_valid = all_valid && valid;
    } else {
      made.step = step;
    }
    steps.steps[index] = made;
  }
  if (all_valid) return;
  const int per_tile = kColumns / form.horizontal(), first = place.left / (8 * form.horizontal());
  for (int mcu = first; mcu < first + per_tile && mcu < job.extent.mcu_columns; ++mcu) note_nan(job, place, mcu);
}

// The rows of chroma that `load` has left, one a thread: read, and once the warp has read all of the block, written.
// Below the image, luma repeats its last row of pixels, but chroma its last row of samples.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void get_chroma_row(
    F form, const Job<S, In>& job, const Place& place, int thread, const Shared<S>& shared, S (&v)[8]) {
  const int row = thread % 8, last = job.extent.chroma_height - 1 - 8 * place.mcu_row;
  get_row(&shared.samples[(luma_blocks(form) + thread / 8) * kBlock + (row < last ? row : last) * kRow], v);
}

// Where nothing is rounded, transform and inverse cancel: neither is made.
template <Rounding kRounding, typename F, typename S>
FASTGAN_HOST_DEVICE void put_chroma_row(F form, int thread, Shared<S>& shared, S (&v)[8]) {
  if (kRounding != Rounding::kNone) forward_dct<0>(v);
  put_row(&shared.samples[(luma_blocks(form) + thread / 8) * kBlock + thread % 8 * kRow], v);
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
