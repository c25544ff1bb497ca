#pragma once

#include "jpeg_tile.h"

//     chroma_gradient  one chroma sample: back through colour and upsampling
//     code_gradient    one tile: back through the quantization, where its slope varies and for the tables' gradient
//     image_gradient   one pixel: back through subsampling and colour
namespace fastgan {
namespace tile {

// The gradient at a pixel of the output, as that of luma and upsampled chroma; zero beyond the image.
template <typename S, typename In>
FASTGAN_HOST_DEVICE YCbCr<float> unmerged(const Job<S, In>& job, int64_t n, int64_t row, int64_t column) {
  if (row < 0 || column < 0 || row >= job.sizes.height || column >= job.sizes.width) return {0, 0, 0};
  const int bits = job.mask(n, row, column);
  float grad[3];
  for (int c = 0; c < 3; ++c) grad[c] = bits & (kMaskOutput << c) ? job.grad.get(n, c, row, column) : 0.0f;
  YCbCr<float> sample = to_rgb_transposed(RGB<float>{grad[0], grad[1], grad[2]});
  const float nan = bits & kMaskNan ? float_from_bits(0x7fc00000u) : 0.0f;
  sample = {sample.y + nan, sample.cb + nan, sample.cr + nan};
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

// Columns of samples and of their gradient, both already through the DCT of their rows. Where the samples were, what
// each coefficient adds to the gradient of its step is left behind.
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
    const float quotient = static_cast<float>(v[k]) * 0.125f / static_cast<float>(step);
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
