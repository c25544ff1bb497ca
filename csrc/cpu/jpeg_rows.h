#pragma once

#include "../math/jpeg_layout.h"
#include "../math/philox.h"
#include "clones.h"

// The inner loops of the JPEG kernels, each compiled once per instruction set. They process a row of samples, or 16
// adjacent blocks. S is int32_t (exact) or the real type In in which the image is read.
namespace fastgan {
namespace {

constexpr int64_t kLanes = 16;  // blocks at a time: one AVX-512 vector, so that no loop has a remainder

// Loops over bytes (masks) and numbers take this many elements at a time and convert the bytes in a loop of their own.
// In one loop, compilers would take as many numbers per iteration as a vector has bytes, spill most of them, and
// process the remainder of a row one by one.
constexpr int64_t kSpan = 512;

// --- Rows of pixels -------------------------------------------------------------------------------------------------

// Converts one row of RGB in [0, 1] to centred YCbCr; returns whether it contains NaN.
template <bool kTruncate, typename S, typename In>
FASTGAN_CLONES bool convert_row(const In* const* rgb, int64_t count, S* y, S* cb, S* cr) {
  const In *red = rgb[0], *green = rgb[1], *blue = rgb[2];
  int32_t nan = 0;
#pragma omp simd reduction(| : nan)
  for (int64_t i = 0; i < count; ++i) {
    nan |= (red[i] != red[i]) | (green[i] != green[i]) | (blue[i] != blue[i]);
    const YCbCr<S> sample = to_ycbcr(
        grey_level<S, kTruncate>(red[i]), grey_level<S, kTruncate>(green[i]), grey_level<S, kTruncate>(blue[i]));
    y[i] = sample.y;
    cb[i] = sample.cb;
    cr[i] = sample.cr;
  }
  return nan;
}

// Sets the bits of the values in a row that the clamp to [0, 1] leaves unchanged.
template <typename In>
FASTGAN_CLONES void mask_input_row(const In* const* rgb, int64_t count, uint8_t* mask) {
  const In *red = rgb[0], *green = rgb[1], *blue = rgb[2];
  for (int64_t first = 0; first < count; first += kSpan) {
    const int64_t end = std::min(first + kSpan, count);
    int32_t bits[kSpan];
#pragma omp simd
    for (int64_t i = first; i < end; ++i) {
      bits[i - first] = (passes(red[i], In(0), In(1)) ? 1 : 0) | (passes(green[i], In(0), In(1)) ? 2 : 0) |
                        (passes(blue[i], In(0), In(1)) ? 4 : 0);
    }
    std::copy(bits, bits + end - first, mask + first);
  }
}

template <typename S>
FASTGAN_CLONES void subsample_row(const S* above, const S* below, int64_t count, S* chroma) {
  if (below) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      chroma[i] = mean_of_four<S>(above[2 * i] + above[2 * i + 1] + below[2 * i] + below[2 * i + 1], i);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) chroma[i] = mean_of_two<S>(above[2 * i] + above[2 * i + 1], i);
  }
}

// Stores decoded samples, clamped, in their plane. Sets `bit` in `mask`, if not null, where the clamp changed nothing.
template <typename S>
FASTGAN_CLONES void store_samples(
    const S* samples, int64_t count, Plane<S>* plane, int64_t masked, uint8_t* mask, uint8_t bit) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) plane[i] = static_cast<Plane<S>>(clamp(samples[i], S(-128), S(127)));
  if (!mask) return;
#pragma omp simd
  for (int64_t i = 0; i < masked; ++i) {
    mask[i] = static_cast<uint8_t>(mask[i] | (passes(samples[i], S(-128), S(127)) ? bit : 0));
  }
}

// The vertically weighted sums for the two rows of pixels of one row of chroma. Each is padded by one sample on either
// side that repeats the edge.
template <typename S>
FASTGAN_CLONES void triangle_columns(
    const Plane<S>* above, const Plane<S>* row, const Plane<S>* below, int64_t count, S* upper, S* lower) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    upper[i] = triangle_column<S>(row[i], above[i]);
    lower[i] = triangle_column<S>(row[i], below[i]);
  }
  for (S* sums : {upper, lower}) {
    sums[-1] = sums[0];
    sums[count] = sums[count - 1];
  }
}

// The same for horizontal upsampling alone: the samples themselves, padded.
template <typename S>
FASTGAN_CLONES void pad_samples(const Plane<S>* samples, int64_t count, S* padded) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) padded[i] = samples[i];
  padded[-1] = padded[0];
  padded[count] = padded[count - 1];
}

// Upsamples a padded row of `count` samples to 2 count.
template <int kDirections, typename S>
FASTGAN_CLONES void triangle_row(const S* padded, int64_t count, S* row) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    row[2 * i] = triangle_left<kDirections>(padded[i], padded[i - 1]);
    row[2 * i + 1] = triangle_right<kDirections>(padded[i], padded[i + 1]);
  }
}

template <typename S>
FASTGAN_CLONES void replicate_row(const Plane<S>* samples, int64_t count, int horizontal, S* row) {
  if (horizontal == 1) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) row[i] = samples[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) row[2 * i] = row[2 * i + 1] = samples[i];
  }
}

template <typename S, typename In>
FASTGAN_CLONES void merge_row(
    const Plane<S>* y, const S* cb, const S* cr, int64_t count, In* const* rgb, uint8_t* mask) {
  In *red = rgb[0], *green = rgb[1], *blue = rgb[2];
  if (!mask) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const RGB<S> pixel = to_rgb(YCbCr<S>{y[i], cb[i], cr[i]});
      red[i] = static_cast<In>(clamp(pixel.red, S(0), S(255))) / 255;
      green[i] = static_cast<In>(clamp(pixel.green, S(0), S(255))) / 255;
      blue[i] = static_cast<In>(clamp(pixel.blue, S(0), S(255))) / 255;
    }
    return;
  }
  for (int64_t first = 0; first < count; first += kSpan) {
    const int64_t end = std::min(first + kSpan, count);
    S luma[kSpan];
    int32_t bits[kSpan];
    std::copy(y + first, y + end, luma);
#pragma omp simd
    for (int64_t i = first; i < end; ++i) {
      const RGB<S> pixel = to_rgb(YCbCr<S>{luma[i - first], cb[i], cr[i]});
      const S r = clamp(pixel.red, S(0), S(255)), g = clamp(pixel.green, S(0), S(255)),
              b = clamp(pixel.blue, S(0), S(255));
      red[i] = static_cast<In>(r) / 255;
      green[i] = static_cast<In>(g) / 255;
      blue[i] = static_cast<In>(b) / 255;
      bits[i - first] = (r == pixel.red ? 8 : 0) | (g == pixel.green ? 16 : 0) | (b == pixel.blue ? 32 : 0) |
                        (r + g + b == r + g + b ? 0 : kMaskNan);
    }
#pragma omp simd
    for (int64_t i = first; i < end; ++i) mask[i] = static_cast<uint8_t>(mask[i] | bits[i - first]);
  }
}

// --- Sixteen blocks -------------------------------------------------------------------------------------------------

// One component's quantization table in the kernel's arithmetic.
template <typename S>
struct BlockTable {
  S steps[64];
  float reciprocals[64];  // for `quantize`
};

template <Rounding kRounding, typename S>
FASTGAN_HOST_DEVICE S code_coefficient(S coefficient, S step, float reciprocal, S noise) {
  if constexpr (kRounding == Rounding::kStraightThrough) {
    return quantize(coefficient, reciprocal) * step;
  } else {
    return surrogate<kRounding>(coefficient * S(0.125) / step, noise) * step;
  }
}

// The noise (64, 16) of the 16 blocks with the given numbers.
template <typename S>
FASTGAN_CLONES void block_noise(uint64_t seed, const uint64_t* numbers, S (*noise)[kLanes]) {
  for (uint64_t coefficient = 0; coefficient < 64; ++coefficient) {
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) {
      noise[coefficient][i] = S(uniform(philox(seed, 64 * numbers[i] + coefficient).words[0])) - S(0.5);
    }
  }
}

// Transposes a row of 16 blocks into lanes: lanes[k] is column k of every block. Done in three passes of stride two,
// which compilers turn into shuffles; a stride of eight would become one move per sample.
template <typename S>
FASTGAN_HOST_DEVICE void split_columns(const S* row, S (*lanes)[kLanes]) {
  alignas(64) S halves[2][4 * kLanes], quarters[4][2 * kLanes];
#pragma omp simd
  for (int64_t i = 0; i < 4 * kLanes; ++i) {
    halves[0][i] = row[2 * i];
    halves[1][i] = row[2 * i + 1];
  }
  for (int half = 0; half < 2; ++half) {
#pragma omp simd
    for (int64_t i = 0; i < 2 * kLanes; ++i) {
      quarters[half][i] = halves[half][2 * i];
      quarters[half + 2][i] = halves[half][2 * i + 1];
    }
  }
  for (int quarter = 0; quarter < 4; ++quarter) {
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) {
      lanes[quarter][i] = quarters[quarter][2 * i];
      lanes[quarter + 4][i] = quarters[quarter][2 * i + 1];
    }
  }
}

// The inverse of split_columns.
template <typename S>
FASTGAN_HOST_DEVICE void join_columns(const S (*lanes)[kLanes], S* row) {
  alignas(64) S halves[2][4 * kLanes], quarters[4][2 * kLanes];
  for (int quarter = 0; quarter < 4; ++quarter) {
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) {
      quarters[quarter][2 * i] = lanes[quarter][i];
      quarters[quarter][2 * i + 1] = lanes[quarter + 4][i];
    }
  }
  for (int half = 0; half < 2; ++half) {
#pragma omp simd
    for (int64_t i = 0; i < 2 * kLanes; ++i) {
      halves[half][2 * i] = quarters[half][i];
      halves[half][2 * i + 1] = quarters[half + 2][i];
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < 4 * kLanes; ++i) {
    row[2 * i] = halves[0][i];
    row[2 * i + 1] = halves[1][i];
  }
}

template <typename S>
FASTGAN_HOST_DEVICE void forward_rows(const S* samples, int64_t stride, S (*lanes)[kLanes]) {
  for (int64_t row = 0; row < 8; ++row) {
    S(*columns)[kLanes] = lanes + 8 * row;
    split_columns(samples + row * stride, columns);
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) {
      S v[8];
      for (int k = 0; k < 8; ++k) v[k] = columns[k][i];
      forward_dct<0>(v);
      for (int k = 0; k < 8; ++k) columns[k][i] = v[k];
    }
  }
}

template <typename S>
FASTGAN_HOST_DEVICE void inverse_rows(S (*lanes)[kLanes], S* samples, int64_t stride) {
  for (int64_t row = 0; row < 8; ++row) {
    S(*columns)[kLanes] = lanes + 8 * row;
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) {
      S v[8];
      for (int k = 0; k < 8; ++k) v[k] = columns[k][i];
      inverse_dct<1>(v);
      for (int k = 0; k < 8; ++k) columns[k][i] = v[k];
    }
    join_columns(columns, samples + row * stride);
  }
}

// DCT, quantization, dequantization and inverse DCT, in place. Block i begins at samples + 8 i.
template <Rounding kRounding, typename S>
FASTGAN_CLONES void code_blocks(S* samples, int64_t stride, const BlockTable<S>& table, const S (*noise)[kLanes]) {
  if constexpr (kRounding == Rounding::kNone) {
    // Nothing is rounded, so that transform and inverse cancel; but a table with NaN makes all samples NaN.
    S nothing = 0;
    for (S step : table.steps) nothing += step - step;
    for (int64_t row = 0; nothing != nothing && row < 8; ++row)
      std::fill_n(samples + row * stride, 8 * kLanes, nothing);
    return;
  }
  alignas(64) S lanes[64][kLanes];
  forward_rows(samples, stride, lanes);
  for (int64_t column = 0; column < 8; ++column) {
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) {
      S v[8];
      for (int k = 0; k < 8; ++k) v[k] = lanes[8 * k + column][i];
      forward_dct<1>(v);
      for (int k = 0; k < 8; ++k) {
        const int64_t at = 8 * k + column;
        v[k] = code_coefficient<kRounding>(v[k], table.steps[at], table.reciprocals[at], noise ? noise[at][i] : S(0));
      }
      inverse_dct<0>(v);
      for (int k = 0; k < 8; ++k) lanes[8 * k + column][i] = v[k];
    }
  }
  inverse_rows(lanes, samples, stride);
}

}  // namespace
}  // namespace fastgan
