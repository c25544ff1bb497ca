#pragma once

#include "../math/half.h"
#include "../math/jpeg_layout.h"
#include "../math/philox.h"

// What each thread of the CUDA kernels does, without a word of CUDA: a kernel calls these functions one after the other
// with a barrier between them, and csrc/tests/test_jpeg.cpp calls them thread by thread on the CPU.
//
// Here is what they share: the arguments of a launch, and a tile of 64 pixels by one row of MCUs in shared memory.
// jpeg_tile_forward.h and jpeg_tile_backward.h have the kernels' own steps.
namespace fastgan {
namespace tile {

constexpr int kWidth = 64, kColumns = kWidth / 8;  // pixels and luma blocks across
constexpr int kThreads = 192;                      // eight for each of up to 24 blocks
constexpr int kRow = 9, kBlock = 8 * kRow;         // a row of a block in shared memory: no two of a warp in one bank

FASTGAN_HOST_DEVICE float to_float(float value) { return value; }
FASTGAN_HOST_DEVICE void from_float(float value, float& target) { target = value; }
FASTGAN_HOST_DEVICE void from_float(float value, BFloat16& target) { target = to_bfloat16(value); }
FASTGAN_HOST_DEVICE void from_float(float value, Float16& target) { target = to_float16(value); }

// A strided N 3 H W image; strides in elements.
template <typename In>
struct Pixels {
  In* data;
  int64_t strides[4];

  FASTGAN_HOST_DEVICE In& at(int64_t image, int channel, int64_t row, int64_t column) const {
    return data[image * strides[0] + channel * strides[1] + row * strides[2] + column * strides[3]];
  }
  FASTGAN_HOST_DEVICE float get(int64_t image, int channel, int64_t row, int64_t column) const {
    using fastgan::to_float;
    using tile::to_float;
    return to_float(at(image, channel, row, column));
  }
};

// Planes of samples, one value each: luma (N, H, W) and chroma (N, 2, ...), up to whole MCUs.
template <typename P>
struct Planes {
  P *luma, *chroma;

  FASTGAN_HOST_DEVICE P& y(const JpegSizes& sizes, int64_t image, int64_t row, int64_t column) const {
    return luma[(image * sizes.mcu_rows * sizes.mcu_height + row) * sizes.luma_stride + column];
  }
  FASTGAN_HOST_DEVICE P& c(const JpegSizes& sizes, int64_t image, int component, int64_t row, int64_t column) const {
    return chroma[((2 * image + component - 1) * sizes.mcu_rows * 8 + row) * sizes.chroma_stride + column];
  }
};

template <typename S, typename In>
struct Job {
  JpegSizes sizes;
  Pixels<In> image;
  const float* tables;      // (N or 1, 2, 8, 8)
  int64_t table_stride;     // 128 or 0
  const int64_t* seed;      // of the noise, or null
  bool truncate;            // whole grey levels are rounded down
  Planes<Plane<S>> planes;  // decoded samples
  Pixels<In> decoded;
  uint8_t *masks, *chroma_masks;  // or null
  uint8_t* nan;                   // (N, mcu_rows, mcu_columns), for integers: which MCUs hold NaN

  Pixels<In> grad, grad_image;
  Planes<float> grad_planes;  // luma only where its slope varies
  float* grad_tables;         // (tiles, 2, 8, 8), or null

  FASTGAN_HOST_DEVICE uint8_t& mask(int64_t n, int64_t row, int64_t column) const {
    return masks[(n * sizes.height + row) * sizes.width + column];
  }
  FASTGAN_HOST_DEVICE uint8_t& chroma_mask(int64_t n, int64_t row, int64_t column) const {
    return chroma_masks[(n * sizes.chroma_height + row) * sizes.chroma_width + column];
  }
  FASTGAN_HOST_DEVICE uint8_t& nan_flag(int64_t n, int64_t mcu_row, int64_t mcu_column) const {
    return nan[(n * sizes.mcu_rows + mcu_row) * sizes.mcu_columns + mcu_column];
  }
};

// Where a tile lies.
struct Place {
  int64_t image, mcu_row, left;  // left: the first pixel

  FASTGAN_HOST_DEVICE Place(const JpegSizes& sizes, int64_t index) {
    const int64_t across = (sizes.luma_stride + kWidth - 1) / kWidth;
    left = index % across * kWidth;
    mcu_row = index / across % sizes.mcu_rows;
    image = index / across / sizes.mcu_rows;
  }
  static int64_t count(const JpegSizes& sizes) {
    return sizes.images * sizes.mcu_rows * ((sizes.luma_stride + kWidth - 1) / kWidth);
  }
};

template <typename S>
struct Shared {
  S samples[24 * kBlock];
};

FASTGAN_HOST_DEVICE int luma_blocks(const JpegSizes& sizes) { return kColumns * sizes.vertical; }
FASTGAN_HOST_DEVICE int blocks(const JpegSizes& sizes) { return luma_blocks(sizes) + 2 * kColumns / sizes.horizontal; }

// Where a sample of the tile lies in shared memory.
FASTGAN_HOST_DEVICE int luma_at(int row, int column) {
  return (row / 8 * kColumns + column / 8) * kBlock + row % 8 * kRow + column % 8;
}
FASTGAN_HOST_DEVICE int chroma_at(const JpegSizes& sizes, int component, int row, int column) {
  const int block = luma_blocks(sizes) + (component - 1) * (kColumns / sizes.horizontal) + column / 8;
  return block * kBlock + row * kRow + column % 8;
}

template <typename S, typename In>
FASTGAN_HOST_DEVICE YCbCr<S> sample_of(const Job<S, In>& job, int64_t n, int64_t row, int64_t column, bool& nan) {
  const float red = job.image.get(n, 0, row, column), green = job.image.get(n, 1, row, column),
              blue = job.image.get(n, 2, row, column);
  nan = nan || red != red || green != green || blue != blue;
  if (IsExact<S>::value && job.truncate) {
    return to_ycbcr(grey_level<S, true>(red), grey_level<S, true>(green), grey_level<S, true>(blue));
  }
  return to_ycbcr(grey_level<S, false>(red), grey_level<S, false>(green), grey_level<S, false>(blue));
}

// Pixels to samples, padded as libjpeg does.
template <typename S, typename In>
FASTGAN_HOST_DEVICE void load(const Job<S, In>& job, const Place& place, int thread, Shared<S>& shared) {
  const JpegSizes& sizes = job.sizes;
  const int across = kWidth / sizes.horizontal;
  for (int index = thread; index < 8 * across; index += kThreads) {
    const int row = index / across, column = index % across;
    const int64_t chroma_row = 8 * place.mcu_row + row, chroma_column = place.left / sizes.horizontal + column;
    const int64_t repeated = chroma_row < sizes.chroma_height ? chroma_row : sizes.chroma_height - 1;
    S cb = 0, cr = 0;
    bool nan = false;
    for (int dy = 0; dy < sizes.vertical; ++dy) {
      for (int dx = 0; dx < sizes.horizontal; ++dx) {
        const int64_t x = clamp(chroma_column * sizes.horizontal + dx, int64_t(0), sizes.width - 1);
        const int64_t y = clamp(chroma_row * sizes.vertical + dy, int64_t(0), sizes.height - 1);
        const YCbCr<S> sample = sample_of(job, place.image, y, x, nan);
        shared.samples[luma_at(row * sizes.vertical + dy, column * sizes.horizontal + dx)] = sample.y;
        YCbCr<S> of_chroma = sample;
        if (repeated != chroma_row) {
          const int64_t last = clamp(repeated * sizes.vertical + dy, int64_t(0), sizes.height - 1);
          of_chroma = sample_of(job, place.image, last, x, nan);
        }
        cb += of_chroma.cb;
        cr += of_chroma.cr;
      }
    }
    const int pixels = sizes.horizontal * sizes.vertical;
    if (pixels == 4) {
      cb = mean_of_four(cb, chroma_column);
      cr = mean_of_four(cr, chroma_column);
    } else if (pixels == 2) {
      cb = mean_of_two(cb, chroma_column);
      cr = mean_of_two(cr, chroma_column);
    }
    shared.samples[chroma_at(sizes, 1, row, column)] = cb;
    shared.samples[chroma_at(sizes, 2, row, column)] = cr;
    if (IsExact<S>::value && nan && job.nan) {
      const int64_t mcu_column = clamp(chroma_column / 8, int64_t(0), sizes.mcu_columns - 1);
      job.nan_flag(place.image, place.mcu_row, mcu_column) = 1;
    }
  }
}

// Each of the eight threads of a block transforms one of its rows.
template <typename S, typename Transform>
FASTGAN_HOST_DEVICE void transform_row(const JpegSizes& sizes, int thread, Shared<S>& shared, Transform transform) {
  if (thread / 8 >= blocks(sizes)) return;
  S* row = &shared.samples[thread / 8 * kBlock + thread % 8 * kRow];
  S v[8];
  for (int k = 0; k < 8; ++k) v[k] = row[k];
  transform(v);
  for (int k = 0; k < 8; ++k) row[k] = v[k];
}

// Where nothing is rounded, transform and inverse cancel: neither is made.
template <Rounding kRounding, typename S>
FASTGAN_HOST_DEVICE void forward_row(const JpegSizes& sizes, int thread, Shared<S>& shared) {
  if constexpr (kRounding == Rounding::kNone) return;
  transform_row(sizes, thread, shared, [](S(&v)[8]) { forward_dct<0>(v); });
}

template <Rounding kRounding, typename S>
FASTGAN_HOST_DEVICE void inverse_row(const JpegSizes& sizes, int thread, Shared<S>& shared) {
  if constexpr (kRounding == Rounding::kNone) return;
  transform_row(sizes, thread, shared, [](S(&v)[8]) { inverse_dct<1>(v); });
}

// The noise of one coefficient, where the rounding has it.
template <Rounding kRounding, typename S, typename In>
FASTGAN_HOST_DEVICE S noise_of(const Job<S, In>& job, const Place& place, int block, int coefficient) {
  if constexpr (kRounding != Rounding::kNoise) {
    return 0;
  } else {
    const JpegSizes& sizes = job.sizes;
    const int of_chroma = block - luma_blocks(sizes), chroma_columns = kColumns / sizes.horizontal;
    int component = 0;
    int64_t row = place.mcu_row * sizes.vertical + block / kColumns, column = place.left / 8 + block % kColumns;
    if (of_chroma >= 0) {
      component = 1 + of_chroma / chroma_columns;
      row = place.mcu_row;
      column = place.left / sizes.mcu_width + of_chroma % chroma_columns;
    }
    const uint64_t number = sizes.block_number(place.image, component, row, column);
    const uint64_t seed = static_cast<uint64_t>(*job.seed);
    return uniform(philox(seed, 64 * number + coefficient).words[0]) - 0.5f;
  }
}

// The step of a coefficient; integers take whole steps of one byte.
template <typename S, typename In>
FASTGAN_HOST_DEVICE S step_of(const Job<S, In>& job, const Place& place, int block, int coefficient, bool& valid) {
  const int chroma = block >= luma_blocks(job.sizes);
  const float step = job.tables[place.image * job.table_stride + 64 * chroma + coefficient];
  if constexpr (IsExact<S>::value) return whole_step(step, valid);
  valid = true;
  return step;
}

}  // namespace tile
}  // namespace fastgan
