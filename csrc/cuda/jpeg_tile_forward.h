#pragma once

#include "jpeg_tile.h"

//     encode  one tile: what jpeg_tile.h has, then the columns and the way into planes of decoded samples
//     merge   one pixel: chroma upsampling, colour
namespace fastgan {
namespace tile {

// --- encode ---------------------------------------------------------------------------------------------------------

// Each of the eight threads of a block runs one of its columns: DCT, quantization, inverse DCT.
template <Rounding kRounding, typename S, typename In>
FASTGAN_HOST_DEVICE void code_column(const Job<S, In>& job, const Place& place, int thread, Shared<S>& shared) {
  const int block = thread / 8, column = thread % 8;
  if (block >= blocks(job.sizes)) return;
  S* first = &shared.samples[block * kBlock + column];
  if constexpr (kRounding == Rounding::kNone) {
    // Transform and inverse cancel, but a table with NaN makes all NaN: what this column's steps say of that goes into
    // the gap behind a row, where `finish_row` finds it.
    S nothing = 0;
    for (int k = 0; k < 8; ++k) {
      bool valid;
      const S step = step_of(job, place, block, 8 * k + column, valid);
      nothing += step - step;
    }
    shared.samples[block * kBlock + column * kRow + 8] = nothing;
    return;
  }
  S v[8];
  for (int k = 0; k < 8; ++k) v[k] = first[k * kRow];
  forward_dct<1>(v);
  bool all_valid = true;
  for (int k = 0; k < 8; ++k) {
    bool valid;
    const S step = step_of(job, place, block, 8 * k + column, valid);
    all_valid = all_valid && valid;
    if constexpr (kRounding == Rounding::kStraightThrough) {
      v[k] = quantize(v[k], step, 1.0f / static_cast<float>(8 * step)) * step;
    } else {
      const S noise = noise_of<kRounding>(job, place, block, 8 * k + column);
      v[k] = surrogate<kRounding>(v[k] * S(0.125) / step, noise) * step;
    }
  }
  inverse_dct<0>(v);
  for (int k = 0; k < 8; ++k) first[k * kRow] = v[k];
  if (IsExact<S>::value && !all_valid) {  // a table that integers cannot take makes its image NaN
    for (int64_t mcu = place.left / job.sizes.mcu_width; mcu < (place.left + kWidth) / job.sizes.mcu_width; ++mcu) {
      if (mcu < job.sizes.mcu_columns) job.nan_flag(place.image, place.mcu_row, mcu) = 1;
    }
  }
}

// Each of the eight threads of a block finishes one of its rows: the rest of the inverse DCT.
template <Rounding kRounding, typename S>
FASTGAN_HOST_DEVICE void finish_row(const JpegSizes& sizes, int thread, Shared<S>& shared) {
  if constexpr (kRounding == Rounding::kNone) {
    if (thread / 8 >= blocks(sizes)) return;
    S* block = &shared.samples[thread / 8 * kBlock];
    S nothing = 0;  // or NaN
    for (int k = 0; k < 8; ++k) nothing += block[k * kRow + 8];
    for (int k = 0; k < 8; ++k) block[thread % 8 * kRow + k] += nothing;
  } else {
    inverse_row<kRounding>(sizes, thread, shared);
  }
}

// Samples, clamped, to their planes; masks of what came in and of the decoded samples.
template <typename S, typename In>
FASTGAN_HOST_DEVICE void store(const Job<S, In>& job, const Place& place, int thread, const Shared<S>& shared) {
  const JpegSizes& sizes = job.sizes;
  for (int index = thread; index < 8 * sizes.vertical * kWidth; index += kThreads) {
    const int row = index / kWidth, column = index % kWidth;
    const int64_t y = place.mcu_row * sizes.mcu_height + row, x = place.left + column;
    if (x >= sizes.luma_stride) continue;
    const S sample = shared.samples[luma_at(row, column)];
    job.planes.y(sizes, place.image, y, x) = static_cast<Plane<S>>(clamp(sample, S(-128), S(127)));
    if (!job.masks || y >= sizes.height || x >= sizes.width) continue;
    const bool nan = IsExact<S>::value && lies_in_nan(sizes, job.nan, place.image, place.mcu_row, x / sizes.mcu_width);
    int bits = nan || passes(sample, S(-128), S(127)) ? kMaskLuma : 0;
    for (int c = 0; c < 3; ++c) {
      const float value = job.image.get(place.image, c, y, x);
      if (passes(value, 0.0f, 1.0f)) bits |= kMaskInput << c;
    }
    job.mask(place.image, y, x) = static_cast<uint8_t>(bits);
  }
  const int across = kWidth / sizes.horizontal;
  for (int index = thread; index < 8 * across; index += kThreads) {
    const int row = index / across, column = index % across;
    const int64_t y = 8 * place.mcu_row + row, x = place.left / sizes.horizontal + column;
    if (x >= sizes.chroma_stride) continue;
    const bool nan = IsExact<S>::value && lies_in_nan(sizes, job.nan, place.image, place.mcu_row, x / 8);
    int bits = 0;
    for (int c = 1; c <= 2; ++c) {
      const S sample = shared.samples[chroma_at(sizes, c, row, column)];
      job.planes.c(sizes, place.image, c, y, x) = static_cast<Plane<S>>(clamp(sample, S(-128), S(127)));
      if (nan || passes(sample, S(-128), S(127))) bits |= c == 1 ? kMaskCb : kMaskCr;
    }
    if (job.chroma_masks && y < sizes.chroma_height && x < sizes.chroma_width) {
      job.chroma_mask(place.image, y, x) = static_cast<uint8_t>(bits);
    }
  }
}

// --- merge ----------------------------------------------------------------------------------------------------------

// Cb or Cr at a pixel.
template <typename S, typename In>
FASTGAN_HOST_DEVICE S upsampled(const Job<S, In>& job, int64_t n, int component, int64_t row, int64_t column) {
  const JpegSizes& sizes = job.sizes;
  const int64_t y = row / sizes.vertical, x = column / sizes.horizontal;
  if (!sizes.fancy || sizes.horizontal == 1) return job.planes.c(sizes, n, component, y, x);
  const bool right = column % 2;
  const int64_t beside = clamp(x + (right ? 1 : -1), int64_t(0), sizes.chroma_width - 1);
  const S here = job.planes.c(sizes, n, component, y, x), there = job.planes.c(sizes, n, component, y, beside);
  if (sizes.vertical == 1) return right ? triangle_right<1>(here, there) : triangle_left<1>(here, there);
  const int64_t farther = clamp(y + (row % 2 ? 1 : -1), int64_t(0), sizes.chroma_height - 1);
  const S nearer_sum = triangle_column<S>(here, job.planes.c(sizes, n, component, farther, x));
  const S farther_sum = triangle_column<S>(there, job.planes.c(sizes, n, component, farther, beside));
  return right ? triangle_right<2>(nearer_sum, farther_sum) : triangle_left<2>(nearer_sum, farther_sum);
}

template <typename S, typename In>
FASTGAN_HOST_DEVICE void merge(const Job<S, In>& job, int64_t n, int64_t row, int64_t column) {
  const JpegSizes& sizes = job.sizes;
  const YCbCr<S> sample = {
      job.planes.y(sizes, n, row, column), upsampled(job, n, 1, row, column), upsampled(job, n, 2, row, column)};
  const RGB<S> pixel = to_rgb(sample);
  const S values[3] = {pixel.red, pixel.green, pixel.blue};
  const bool nan = IsExact<S>::value && touches_nan(sizes, job.nan, n, row, column);
  int bits = 0;
  for (int c = 0; c < 3; ++c) {
    const S clamped = clamp(values[c], S(0), S(255));
    if (clamped == values[c]) bits |= kMaskOutput << c;
    if (nan || values[c] != values[c]) bits |= kMaskNan;
    const float level = nan ? float_from_bits(0x7fc00000u) : static_cast<float>(clamped) / 255;
    from_float(level, job.decoded.at(n, c, row, column));
  }
  if (job.masks) {
    uint8_t& mask = job.mask(n, row, column);
    mask = static_cast<uint8_t>(mask | bits);
  }
}

}  // namespace tile
}  // namespace fastgan
