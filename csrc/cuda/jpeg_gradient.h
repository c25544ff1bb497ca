#pragma once

#include "jpeg_pixels.h"

// Back through colour and upsampling and, if quantization passes gradients unchanged, on to the image. A block of
// threads processes a tile of 64 by 32 pixels, with a border, in shared memory; each pixel's gradient is read once.
//
//     spread      each pixel: back through colour
//     gather      each chroma sample: back through upsampling
//     to_image    each pixel: back through subsampling and colour
namespace fastgan {
namespace tile {

constexpr int kGradientWidth = 64, kGradientHeight = 32, kGradientThreads = 256;

struct GradientPlace {
  int image, top, left;

  FASTGAN_HOST_DEVICE GradientPlace(const Divisor& across, const Divisor& down, uint32_t index) {
    uint32_t line = across.divide(index);
    left = static_cast<int>(index) * kGradientWidth;
    image = static_cast<int>(down.divide(line));
    top = static_cast<int>(line) * kGradientHeight;
  }
  // Tiles cover whole MCUs, since the planes of gradients do.
  static int64_t across(const JpegSizes& sizes) { return (sizes.luma_stride + kGradientWidth - 1) / kGradientWidth; }
  static int64_t down(const JpegSizes& sizes) {
    return (sizes.mcu_rows * sizes.mcu_height + kGradientHeight - 1) / kGradientHeight;
  }
  static int64_t count(const JpegSizes& sizes) { return sizes.images * down(sizes) * across(sizes); }
};

// How many pixels beyond the tile its chroma samples contribute to.
template <typename F>
FASTGAN_HOST_DEVICE constexpr int reach_across(F form) {
  return form.fancy() && form.horizontal() == 2 ? 1 : 0;
}
template <typename F>
FASTGAN_HOST_DEVICE constexpr int reach_down(F form) {
  return form.fancy() && form.vertical() == 2 ? 1 : 0;
}

struct GradientShared {
  static constexpr int kPitch = kGradientWidth + 2;
  float cb[(kGradientHeight + 2) * kPitch], cr[(kGradientHeight + 2) * kPitch];  // with a border of one pixel
  float luma[kGradientHeight * kGradientWidth];
  float chroma[2][kGradientHeight * kGradientWidth];

  FASTGAN_HOST_DEVICE static int at(int row, int column) { return (row + 1) * kPitch + column + 1; }
};

// Takes the gradient of an output pixel back to that of luma and upsampled chroma.
FASTGAN_HOST_DEVICE YCbCr<float> unmerged(float red, float green, float blue, int bits) {
  YCbCr<float> sample = to_rgb_transposed(
      RGB<float>{
          bits & kMaskOutput ? red : 0.0f, bits & (kMaskOutput << 1) ? green : 0.0f,
          bits & (kMaskOutput << 2) ? blue : 0.0f});
  const float nan = bits & kMaskNan ? float_from_bits(0x7fc00000u) : 0.0f;
  sample = {sample.y + nan, sample.cb + nan, sample.cr + nan};
  if (!(bits & kMaskLuma)) sample.y = 0;
  return sample;
}

template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void spread(
    F form, const Job<S, In>& job, const GradientPlace& place, int thread, GradientShared& shared) {
  const Extent& extent = job.extent;
  const int across = reach_across(form), down = reach_down(form);
  constexpr unsigned kFours = kGradientWidth / 4;
  for (unsigned index = thread; index < (kGradientHeight + 2 * down) * kFours; index += kGradientThreads) {
    const int row = static_cast<int>(index / kFours) - down, column = 4 * (index % kFours);
    const int y = place.top + row, x = place.left + column;
    float values[3][4];
    const bool exists = y >= 0 && y < extent.height && x < extent.width;
    Vector<uint8_t, 4> bits = {};
    if (exists) {
      job.grad.get_four(place.image, y, x, extent.width, values);
      bits = get_bytes(job.mask_row(place.image, y), x, extent.width);
    }
    for (int i = 0; i < 4; ++i) {
      YCbCr<float> sample = {0, 0, 0};
      if (exists && x + i < extent.width) sample = unmerged(values[0][i], values[1][i], values[2][i], bits.values[i]);
      const int at = GradientShared::at(row, column + i);
      shared.cb[at] = sample.cb;
      shared.cr[at] = sample.cr;
      if (row >= 0 && row < kGradientHeight) shared.luma[row * kGradientWidth + column + i] = sample.y;
    }
  }
  // The border columns beside the tile.
  for (int index = thread; index < (kGradientHeight + 2 * down) * 2 * across; index += kGradientThreads) {
    const int row = index / 2 - down, column = index % 2 ? kGradientWidth : -1;
    const int y = place.top + row, x = place.left + column;
    YCbCr<float> sample = {0, 0, 0};
    if (y >= 0 && y < extent.height && x >= 0 && x < extent.width) {
      sample = unmerged(
          job.grad.get(place.image, 0, y, x), job.grad.get(place.image, 1, y, x), job.grad.get(place.image, 2, y, x),
          job.mask_row(place.image, y)[x]);
    }
    const int at = GradientShared::at(row, column);
    shared.cb[at] = sample.cb;
    shared.cr[at] = sample.cr;
  }
}

// The weight of chroma sample `sample` (0 .. last) in the pixel that is `offset` from the sample's first pixel. Pixels
// at the image's edge have no farther sample, and take its weight from the edge sample too.
FASTGAN_HOST_DEVICE float share_of(int reach, int offset, int size, int sample, int last) {
  if (reach == 0) return 1;
  if (offset < 0 || offset >= size) return 0.25f;
  return (offset == 0 ? sample == 0 : sample == last) ? 1.0f : 0.75f;
}

template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void gather(
    F form, const Job<S, In>& job, const GradientPlace& place, int thread, GradientShared& shared) {
  const Extent& extent = job.extent;
  const unsigned width = kGradientWidth / form.horizontal(), height = kGradientHeight / form.vertical();
  const int across = reach_across(form), down = reach_down(form);
  for (unsigned index = thread; index < height * width; index += kGradientThreads) {
    const int row = index / width, column = index % width;
    const int y = place.top / form.vertical() + row, x = place.left / form.horizontal() + column;
    float cb = 0, cr = 0;
    if (y < extent.chroma_height && x < extent.chroma_width) {
      for (int dy = -down; dy < form.vertical() + down; ++dy) {
        const float share_y = share_of(down, dy, form.vertical(), y, extent.chroma_height - 1);
        for (int dx = -across; dx < form.horizontal() + across; ++dx) {
          const float share = share_y * share_of(across, dx, form.horizontal(), x, extent.chroma_width - 1);
          const int at = GradientShared::at(row * form.vertical() + dy, column * form.horizontal() + dx);
          cb += share * shared.cb[at];
          cr += share * shared.cr[at];
        }
      }
      const int bits = job.chroma_mask_row(place.image, y)[x];
      if (!(bits & kMaskCb)) cb = 0;
      if (!(bits & kMaskCr)) cr = 0;
    }
    shared.chroma[0][index] = cb;
    shared.chroma[1][index] = cr;
    if (job.grad_planes.chroma && y < 8 * extent.mcu_rows && x < extent.chroma_stride) {
      job.grad_planes.c_row(extent, place.image, 1, y)[x] = cb;
      job.grad_planes.c_row(extent, place.image, 2, y)[x] = cr;
    }
  }
}

// Samples of the padding, which repeat the last column and row, have no gradient here, since no pixel depends on them.
// But with an odd width or height, the last chroma sample is the mean of one column or row counted twice.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void to_image(
    F form, const Job<S, In>& job, const GradientPlace& place, int thread, const GradientShared& shared) {
  const Extent& extent = job.extent;
  constexpr unsigned kFours = kGradientWidth / 4;
  const unsigned width = kGradientWidth / form.horizontal();
  for (unsigned index = thread; index < kGradientHeight * kFours; index += kGradientThreads) {
    const int row = index / kFours, column = 4 * (index % kFours);
    const int y = place.top + row, x = place.left + column;
    if (y >= extent.height || x >= extent.width) continue;
    const Vector<uint8_t, 4> bits = get_bytes(job.mask_row(place.image, y), x, extent.width);
    const bool last_row = form.vertical() == 2 && y == extent.height - 1 && y % 2 == 0;
    const float share = (last_row ? 2.0f : 1.0f) / static_cast<float>(form.horizontal() * form.vertical());
    float values[3][4];
    for (int i = 0; i < 4; ++i) {
      const bool last_column = form.horizontal() == 2 && x + i == extent.width - 1 && (x + i) % 2 == 0;
      const float chroma_share = last_column ? 2 * share : share;
      const int at = row / form.vertical() * width + (column + i) / form.horizontal();
      const RGB<float> pixel = to_ycbcr_transposed(
          YCbCr<float>{
              shared.luma[row * kGradientWidth + column + i], chroma_share * shared.chroma[0][at],
              chroma_share * shared.chroma[1][at]});
      values[0][i] = bits.values[i] & kMaskInput ? pixel.red : 0.0f;
      values[1][i] = bits.values[i] & (kMaskInput << 1) ? pixel.green : 0.0f;
      values[2][i] = bits.values[i] & (kMaskInput << 2) ? pixel.blue : 0.0f;
    }
    job.grad_image.put_four(place.image, y, x, extent.width, values);
  }
}

}  // namespace tile
}  // namespace fastgan
