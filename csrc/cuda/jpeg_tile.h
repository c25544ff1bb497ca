#pragma once

#include "../math/half.h"
#include "../math/jpeg_layout.h"
#include "../math/philox.h"

// What each thread of the CUDA kernels does, without a word of CUDA: a kernel calls these functions one after the other
// with a barrier between them, and csrc/tests/test_jpeg.cpp calls them thread by thread on the CPU.
//
//     encode           one tile of 64 pixels by one row of MCUs: colour, subsampling, DCT, quantization and back, into
//                      planes of decoded samples
//     merge            one pair of pixels: chroma upsampling, colour
//     chroma_gradient  one chroma sample: back through colour and upsampling
//     code_gradient    one tile: back through the quantization, for surrogates and for the tables' gradient
//     image_gradient   one pixel: back through subsampling and colour
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
  Planes<Plane<S>> planes;  // decoded samples
  Pixels<In> decoded;
  uint8_t *masks, *chroma_masks;  // or null
  uint8_t* nan;                   // (N, mcu_rows, mcu_columns), for integers: which MCUs hold NaN

  Pixels<In> grad, grad_image;
  Planes<float> grad_planes;  // luma only where the quantization is gone through
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

template <typename S>
FASTGAN_HOST_DEVICE S grey_level(float value) {
  const float level = clamp(value * 255, 0.0f, 255.0f);
  if constexpr (IsExact<S>::value) return static_cast<S>(level == level ? round_to_even(level) : 0.0f);
  return level;
}

template <typename S, typename In>
FASTGAN_HOST_DEVICE YCbCr<S> sample_of(const Job<S, In>& job, int64_t n, int64_t row, int64_t column, bool& nan) {
  const float red = job.image.get(n, 0, row, column), green = job.image.get(n, 1, row, column),
              blue = job.image.get(n, 2, row, column);
  nan = nan || red != red || green != green || blue != blue;
  return to_ycbcr(grey_level<S>(red), grey_level<S>(green), grey_level<S>(blue));
}

// --- encode ---------------------------------------------------------------------------------------------------------

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

// The eight threads of a block run its rows.
template <typename S>
FASTGAN_HOST_DEVICE void forward_row(const JpegSizes& sizes, int thread, Shared<S>& shared) {
  if (thread / 8 >= blocks(sizes)) return;
  S* row = &shared.samples[thread / 8 * kBlock + thread % 8 * kRow];
  S v[8];
  for (int k = 0; k < 8; ++k) v[k] = row[k];
  forward_dct<0>(v);
  for (int k = 0; k < 8; ++k) row[k] = v[k];
}

template <typename S>
FASTGAN_HOST_DEVICE void inverse_row(const JpegSizes& sizes, int thread, Shared<S>& shared) {
  if (thread / 8 >= blocks(sizes)) return;
  S* row = &shared.samples[thread / 8 * kBlock + thread % 8 * kRow];
  S v[8];
  for (int k = 0; k < 8; ++k) v[k] = row[k];
  inverse_dct<1>(v);
  for (int k = 0; k < 8; ++k) row[k] = v[k];
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
  if constexpr (IsExact<S>::value) {
    valid = step >= 0.5f && step < 255.5f;
    return valid ? static_cast<int32_t>(round_to_even(step)) : 1;
  } else {
    valid = true;
    return step;
  }
}

// ... and its columns: DCT, quantization, inverse DCT.
template <Rounding kRounding, typename S, typename In>
FASTGAN_HOST_DEVICE void code_column(const Job<S, In>& job, const Place& place, int thread, Shared<S>& shared) {
  const int block = thread / 8, column = thread % 8;
  if (block >= blocks(job.sizes)) return;
  S* first = &shared.samples[block * kBlock + column];
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
      v[k] = surrogate<kRounding>(v[k] / (8 * step), noise_of<kRounding>(job, place, block, 8 * k + column)) * step;
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
    int bits = sample >= -128 && sample <= 127 ? kMaskLuma : 0;
    for (int c = 0; c < 3; ++c) {
      const float value = job.image.get(place.image, c, y, x);
      if (value >= 0 && value <= 1) bits |= kMaskInput << c;
    }
    job.mask(place.image, y, x) = static_cast<uint8_t>(bits);
  }
  const int across = kWidth / sizes.horizontal;
  for (int index = thread; index < 8 * across; index += kThreads) {
    const int row = index / across, column = index % across;
    const int64_t y = 8 * place.mcu_row + row, x = place.left / sizes.horizontal + column;
    if (x >= sizes.chroma_stride) continue;
    int bits = 0;
    for (int c = 1; c <= 2; ++c) {
      const S sample = shared.samples[chroma_at(sizes, c, row, column)];
      job.planes.c(sizes, place.image, c, y, x) = static_cast<Plane<S>>(clamp(sample, S(-128), S(127)));
      if (sample >= -128 && sample <= 127) bits |= c == 1 ? kMaskCb : kMaskCr;
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
  if (sizes.vertical == 1) return right ? triangle_right(here, there) : triangle_left(here, there);
  const int64_t farther = clamp(y + (row % 2 ? 1 : -1), int64_t(0), sizes.chroma_height - 1);
  const S nearer_sum = triangle_column<S>(here, job.planes.c(sizes, n, component, farther, x));
  const S farther_sum = triangle_column<S>(there, job.planes.c(sizes, n, component, farther, beside));
  return right ? triangle_right_of_sums(nearer_sum, farther_sum) : triangle_left_of_sums(nearer_sum, farther_sum);
}

// A pixel is NaN where a sample that it is made of was: its own MCU's and, where chroma is smoothed, the next one's.
template <typename S, typename In>
FASTGAN_HOST_DEVICE bool touches_nan(const Job<S, In>& job, int64_t n, int64_t row, int64_t column) {
  const JpegSizes& sizes = job.sizes;
  const int64_t across = sizes.fancy && sizes.horizontal == 2, down = sizes.fancy && sizes.vertical == 2;
  bool found = false;
  for (int64_t dy = -down; dy <= down; ++dy) {
    for (int64_t dx = -across; dx <= across; ++dx) {
      const int64_t y = clamp(row + dy, int64_t(0), sizes.height - 1) / sizes.mcu_height;
      const int64_t x = clamp(column + dx, int64_t(0), sizes.width - 1) / sizes.mcu_width;
      found = found || job.nan_flag(n, y, x);
    }
  }
  return found;
}

template <typename S, typename In>
FASTGAN_HOST_DEVICE void merge(const Job<S, In>& job, int64_t n, int64_t row, int64_t column) {
  const JpegSizes& sizes = job.sizes;
  const YCbCr<S> sample = {
      job.planes.y(sizes, n, row, column), upsampled(job, n, 1, row, column), upsampled(job, n, 2, row, column)};
  const RGB<S> pixel = to_rgb(sample);
  const S values[3] = {pixel.red, pixel.green, pixel.blue};
  const bool nan = IsExact<S>::value && touches_nan(job, n, row, column);
  int bits = 0;
  for (int c = 0; c < 3; ++c) {
    const S clamped = clamp(values[c], S(0), S(255));
    if (clamped == values[c]) bits |= kMaskOutput << c;
    const float level = nan ? float_from_bits(0x7fc00000u) : static_cast<float>(clamped) / 255;
    from_float(level, job.decoded.at(n, c, row, column));
  }
  if (job.masks) {
    uint8_t& mask = job.mask(n, row, column);
    mask = nan ? uint8_t(0) : static_cast<uint8_t>(mask | bits);
  }
}

// --- gradients ------------------------------------------------------------------------------------------------------

// The gradient at a pixel of the output, as that of luma and upsampled chroma; zero beyond the image.
template <typename S, typename In>
FASTGAN_HOST_DEVICE YCbCr<float> unmerged(const Job<S, In>& job, int64_t n, int64_t row, int64_t column) {
  if (row < 0 || column < 0 || row >= job.sizes.height || column >= job.sizes.width) return {0, 0, 0};
  const int bits = job.mask(n, row, column);
  float grad[3];
  for (int c = 0; c < 3; ++c) grad[c] = bits & (kMaskOutput << c) ? job.grad.get(n, c, row, column) : 0.0f;
  YCbCr<float> sample = to_rgb_transposed(RGB<float>{grad[0], grad[1], grad[2]});
  if (!(bits & kMaskLuma)) sample.y = 0;
  return sample;
}

// One chroma sample's gradient, from the pixels that it colours.
template <typename S, typename In>
FASTGAN_HOST_DEVICE void chroma_gradient(const Job<S, In>& job, int64_t n, int64_t y, int64_t x) {
  const JpegSizes& sizes = job.sizes;
  float cb = 0, cr = 0;
  if (y < sizes.chroma_height && x < sizes.chroma_width) {
    const int reach_y = sizes.fancy && sizes.vertical == 2, reach_x = sizes.fancy && sizes.horizontal == 2;
    for (int dy = -reach_y; dy < sizes.vertical + reach_y; ++dy) {
      const int64_t row = y * sizes.vertical + dy;
      // The rows next to an edge take their farther sample from the edge itself.
      const bool own_row = dy >= 0 && dy < sizes.vertical;
      const bool edge_row = reach_y && own_row && (dy == 0 ? y == 0 : y == sizes.chroma_height - 1);
      const float weight_y = !reach_y ? 1.0f : edge_row ? 1.0f : own_row ? 0.75f : 0.25f;
      for (int dx = -reach_x; dx < sizes.horizontal + reach_x; ++dx) {
        const int64_t column = x * sizes.horizontal + dx;
        const bool own_column = dx >= 0 && dx < sizes.horizontal;
        const bool edge_column = reach_x && own_column && (dx == 0 ? x == 0 : x == sizes.chroma_width - 1);
        const float weight_x = !reach_x ? 1.0f : edge_column ? 1.0f : own_column ? 0.75f : 0.25f;
        const YCbCr<float> sample = unmerged(job, n, row, column);
        cb += weight_y * weight_x * sample.cb;
        cr += weight_y * weight_x * sample.cr;
      }
    }
    const int bits = job.chroma_mask(n, y, x);
    if (!(bits & kMaskCb)) cb = 0;
    if (!(bits & kMaskCr)) cr = 0;
  }
  job.grad_planes.c(sizes, n, 1, y, x) = cb;
  job.grad_planes.c(sizes, n, 2, y, x) = cr;
}

// The tile's gradients of decoded samples, for `code_gradient`.
template <typename S, typename In>
FASTGAN_HOST_DEVICE void load_gradient(const Job<S, In>& job, const Place& place, int thread, Shared<float>& grads) {
  const JpegSizes& sizes = job.sizes;
  for (int index = thread; index < 8 * sizes.vertical * kWidth; index += kThreads) {
    const int row = index / kWidth, column = index % kWidth;
    const int64_t y = place.mcu_row * sizes.mcu_height + row;
    grads.samples[luma_at(row, column)] = unmerged(job, place.image, y, place.left + column).y;
  }
  const int across = kWidth / sizes.horizontal;
  for (int index = thread; index < 8 * across; index += kThreads) {
    const int row = index / across, column = index % across;
    const int64_t y = 8 * place.mcu_row + row, x = place.left / sizes.horizontal + column;
    for (int c = 1; c <= 2; ++c) {
      grads.samples[chroma_at(sizes, c, row, column)] =
          x < sizes.chroma_stride ? job.grad_planes.c(sizes, place.image, c, y, x) : 0.0f;
    }
  }
}

// Columns of samples and of their gradient, both already through the DCT of their rows. `of_steps` gets what each
// coefficient adds to the gradient of its step.
template <Rounding kRounding, typename S, typename In>
FASTGAN_HOST_DEVICE void code_gradient_column(
    const Job<S, In>& job, const Place& place, int thread, Shared<S>& shared, Shared<float>& grads) {
  const int block = thread / 8, column = thread % 8;
  if (block >= blocks(job.sizes)) return;
  S* samples = &shared.samples[block * kBlock + column];
  float* grad = &grads.samples[block * kBlock + column];
  S v[8];
  float g[8];
  for (int k = 0; k < 8; ++k) v[k] = samples[k * kRow];
  for (int k = 0; k < 8; ++k) g[k] = grad[k * kRow];
  forward_dct<1>(v);
  forward_dct<1>(g);
  float of_steps[8];
  for (int k = 0; k < 8; ++k) {
    bool valid;
    const S step = step_of(job, place, block, 8 * k + column, valid);
    const float quotient = static_cast<float>(v[k]) / static_cast<float>(8 * step);
    float level, slope = 1;
    if constexpr (kRounding == Rounding::kStraightThrough) {
      level = static_cast<float>(quantize(v[k], step, 1.0f / static_cast<float>(8 * step)));
    } else {
      level = surrogate<kRounding>(quotient, noise_of<kRounding>(job, place, block, 8 * k + column));
      slope = surrogate_slope<kRounding>(quotient);
    }
    const float coefficient = g[k] * 0.125f;
    of_steps[k] = coefficient * (level - slope * quotient) * (1.0f / 255);
    g[k] = coefficient * slope;
  }
  inverse_dct<0>(g);
  for (int k = 0; k < 8; ++k) grad[k * kRow] = g[k];
  // The samples are done with: their place takes what each coefficient adds to the gradient of its step.
  for (int k = 0; k < 8; ++k) {
    if constexpr (IsExact<S>::value) {
      samples[k * kRow] = static_cast<S>(bits_of_float(of_steps[k]));
    } else {
      samples[k * kRow] = of_steps[k];
    }
  }
}

template <typename S, typename In>
FASTGAN_HOST_DEVICE void sum_steps(const Job<S, In>& job, int64_t tile, int thread, const Shared<S>& shared) {
  if (!job.grad_tables || thread >= 128) return;
  const int chroma = thread / 64, coefficient = thread % 64;
  const int begin = chroma ? luma_blocks(job.sizes) : 0, end = chroma ? blocks(job.sizes) : luma_blocks(job.sizes);
  float sum = 0;
  for (int block = begin; block < end; ++block) {
    const S value = shared.samples[block * kBlock + coefficient / 8 * kRow + coefficient % 8];
    if constexpr (IsExact<S>::value) {
      sum += float_from_bits(static_cast<uint32_t>(value));
    } else {
      sum += value;
    }
  }
  job.grad_tables[128 * tile + thread] = sum;
}

template <typename S, typename In>
FASTGAN_HOST_DEVICE void store_gradient(
    const Job<S, In>& job, const Place& place, int thread, const Shared<float>& grads) {
  const JpegSizes& sizes = job.sizes;
  for (int index = thread; index < 8 * sizes.vertical * kWidth; index += kThreads) {
    const int row = index / kWidth, column = index % kWidth;
    const int64_t y = place.mcu_row * sizes.mcu_height + row, x = place.left + column;
    if (x < sizes.luma_stride) job.grad_planes.y(sizes, place.image, y, x) = grads.samples[luma_at(row, column)];
  }
  const int across = kWidth / sizes.horizontal;
  for (int index = thread; index < 8 * across; index += kThreads) {
    const int row = index / across, column = index % across;
    const int64_t y = 8 * place.mcu_row + row, x = place.left / sizes.horizontal + column;
    if (x >= sizes.chroma_stride) continue;
    for (int c = 1; c <= 2; ++c) {
      job.grad_planes.c(sizes, place.image, c, y, x) = grads.samples[chroma_at(sizes, c, row, column)];
    }
  }
}

// One pixel's gradient. What fell on repeated columns and rows belongs to the last real one: luma's rows are repeated
// in pixels, chroma's in samples.
template <typename S, typename In>
FASTGAN_HOST_DEVICE void image_gradient(const Job<S, In>& job, int64_t n, int64_t row, int64_t column) {
  const JpegSizes& sizes = job.sizes;
  const int64_t rows = sizes.mcu_rows * sizes.mcu_height;
  const int64_t right = column == sizes.width - 1 ? sizes.luma_stride : column + 1;
  const int64_t bottom = row == sizes.height - 1 ? rows : row + 1;
  YCbCr<float> sample = {0, 0, 0};
  for (int64_t y = row; y < bottom; ++y) {
    for (int64_t x = column; x < right; ++x) {
      sample.y += job.grad_planes.luma ? job.grad_planes.y(sizes, n, y, x) : unmerged(job, n, y, x).y;
    }
  }
  const int64_t first = row / sizes.vertical;
  const int64_t last = first == sizes.chroma_height - 1 ? 8 * sizes.mcu_rows : first + 1;
  // An odd image's last row stands in for both rows of its samples.
  const bool twice = sizes.vertical == 2 && row == sizes.height - 1 && row % 2 == 0;
  const float share = (twice ? 2.0f : 1.0f) / static_cast<float>(sizes.horizontal * sizes.vertical);
  for (int64_t y = first; y < last; ++y) {
    for (int64_t x = column; x < right; ++x) {
      sample.cb += share * job.grad_planes.c(sizes, n, 1, y, x / sizes.horizontal);
      sample.cr += share * job.grad_planes.c(sizes, n, 2, y, x / sizes.horizontal);
    }
  }
  const RGB<float> pixel = to_ycbcr_transposed(sample);
  const float values[3] = {pixel.red, pixel.green, pixel.blue};
  const int bits = job.mask(n, row, column);
  for (int c = 0; c < 3; ++c) {
    from_float(bits & (kMaskInput << c) ? values[c] : 0.0f, job.grad_image.at(n, c, row, column));
  }
}

}  // namespace tile
}  // namespace fastgan
