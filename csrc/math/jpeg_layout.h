#pragma once

#include <cstdint>

#include "jpeg.h"

// The options and sizes of a JPEG round trip, shared by the CPU and CUDA kernels.
namespace fastgan {

struct JpegOptions {
  int horizontal = 2, vertical = 2;  // pixels per chroma sample
  bool fancy = true;                 // triangle upsampling, as libjpeg's default; else nearest
  Rounding rounding = Rounding::kStraightThrough;
  bool truncate = false;  // integer grey levels are rounded down, not to nearest
};

// The sizes that follow from those of the image and from the subsampling.
struct JpegSizes {
  JpegSizes(int64_t images, int64_t height, int64_t width, const JpegOptions& options)
      : images(images),
        height(height),
        width(width),
        horizontal(options.horizontal),
        vertical(options.vertical),
        chroma_height((height + vertical - 1) / vertical),
        chroma_width((width + horizontal - 1) / horizontal),
        mcu_height(8 * vertical),
        mcu_width(8 * horizontal),
        mcu_rows((height + mcu_height - 1) / mcu_height),
        mcu_columns((width + mcu_width - 1) / mcu_width),
        luma_stride(mcu_columns * mcu_width),
        chroma_stride(mcu_columns * 8),
        fancy(options.fancy && (options.horizontal == 1 || chroma_width > 2)) {}

  int64_t images, height, width;
  int horizontal, vertical;
  int64_t chroma_height, chroma_width;  // samples that the image covers
  int64_t mcu_height, mcu_width, mcu_rows, mcu_columns;
  int64_t luma_stride, chroma_stride;  // widths up to whole MCUs
  bool fancy;                          // libjpeg replicates where a row has at most two chroma samples

  // A block's number in the sequence of noise: its coefficients take counters 64 number, 64 number + 1, ...
  FASTGAN_HOST_DEVICE uint64_t block_number(int64_t image, int component, int64_t row, int64_t column) const {
    const int64_t blocks_per_plane = mcu_rows * vertical * mcu_columns * horizontal;
    const int64_t columns = component ? mcu_columns : mcu_columns * horizontal;
    return static_cast<uint64_t>((3 * image + component) * blocks_per_plane + row * columns + column);
  }
};

// Whether an output pixel depends on NaN. Integers cannot represent NaN, so that `nan` (N, mcu_rows, mcu_columns) marks
// the MCUs that contain one. A pixel depends on its own MCU and, where chroma is smoothed across MCUs, on its
// neighbour's.
FASTGAN_HOST_DEVICE bool touches_nan(
    const JpegSizes& sizes, const uint8_t* nan, int64_t image, int64_t row, int64_t column) {
  const int64_t across = sizes.fancy && sizes.horizontal == 2, down = sizes.fancy && sizes.vertical == 2;
  bool depends = false;
  for (int64_t dy = -down; dy <= down; ++dy) {
    for (int64_t dx = -across; dx <= across; ++dx) {
      const int64_t mcu_row = clamp(row + dy, int64_t(0), sizes.height - 1) / sizes.mcu_height;
      const int64_t mcu_column = clamp(column + dx, int64_t(0), sizes.width - 1) / sizes.mcu_width;
      depends = depends || nan[(image * sizes.mcu_rows + mcu_row) * sizes.mcu_columns + mcu_column];
    }
  }
  return depends;
}

// The type in which a plane stores decoded, clamped samples.
template <typename S>
struct PlaneOf {
  using type = S;
};
template <>
struct PlaneOf<int32_t> {
  using type = int8_t;
};
template <typename S>
using Plane = typename PlaneOf<S>::type;

// Bits of a pixel's mask, set where a clamp passes gradients: the clamps to [0, 1] of the input and the output (both
// shifted by the channel), and that of decoded luma. kMaskNan marks an output pixel that is NaN: its gradient becomes
// NaN, and clamps of NaN pass it on to everything the pixel depends on. Second line: bits of a chroma sample's mask,
// for the clamps of decoded chroma.
constexpr uint8_t kMaskInput = 1, kMaskOutput = 8, kMaskLuma = 64, kMaskNan = 128;
constexpr uint8_t kMaskCb = 1, kMaskCr = 2;

// Whether a clamp to [low, high] leaves the value unchanged, or it is NaN.
template <typename T>
FASTGAN_HOST_DEVICE bool passes(T value, T low, T high) {
  return !(value < low) & !(value > high);
}

// Whether a pixel's own MCU contains NaN.
FASTGAN_HOST_DEVICE bool lies_in_nan(
    const JpegSizes& sizes, const uint8_t* nan, int64_t image, int64_t mcu_row, int64_t mcu_column) {
  return nan[(image * sizes.mcu_rows + mcu_row) * sizes.mcu_columns + mcu_column];
}

}  // namespace fastgan
