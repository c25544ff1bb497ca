#pragma once

#include "jpeg_tile.h"

//     encode  one tile: the steps of jpeg_tile.h, columns, and output to planes of decoded samples or, without
//             subsampling, to the image
//     merge   four pixels, with subsampling: chroma upsampling, colour
namespace fastgan {
namespace tile {

// --- encode ---------------------------------------------------------------------------------------------------------

// Columns of blocks: DCT, quantization, inverse DCT.
template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void code_columns(
    F form, const Job<S, In>& job, const Place& place, int thread, const Steps<S>& steps, Shared<S>& shared) {
  const int column = thread % 8;
  for (int part = 0; part < blocks(form) / 8; ++part) {
    const int block = 8 * part + thread / 8;
    S* first = &shared.samples[block * kBlock + column];
    const Step<S>* table = &steps.steps[block >= luma_blocks(form) ? 64 : 0];
    if constexpr (kRounding == Rounding::kNone) {
      S nothing = 0;  // NaN if the table contains NaN, which makes all samples NaN
      for (int i = 0; i < 64; ++i) nothing += table[i].step;
      for (int k = 0; k < 8; ++k) first[k * kRow] += nothing;
    } else {
      S v[8];
      for (int k = 0; k < 8; ++k) v[k] = first[k * kRow];
      forward_dct<1>(v);
      for (int k = 0; k < 8; ++k) {
        const int coefficient = 8 * k + column;
        const Step<S> step = table[coefficient];
        if constexpr (kRounding == Rounding::kStraightThrough) {
          v[k] = quantize(v[k], step.reciprocal) * step.step;
        } else {
          const S noise = noise_of<kRounding>(form, job, place, block, coefficient);
          v[k] = surrogate<kRounding>(v[k] * S(0.125) / step.step, noise) * step.step;
        }
      }
      inverse_dct<0>(v);
      for (int k = 0; k < 8; ++k) first[k * kRow] = v[k];
    }
  }
}

// One byte for each of four decoded samples: 1 where the clamp to [-128, 127] leaves it unchanged.
FASTGAN_HOST_DEVICE uint32_t pass_bits(const int32_t* v) {
  // After adding 128, the second byte is zero exactly for samples in range, since decoded samples have less than 16
  // bits.
  const uint32_t seconds = gather_bytes<1>(v[0] + 128, v[1] + 128, v[2] + 128, v[3] + 128);
  return ~((((seconds & 0x7f7f7f7fu) + 0x7f7f7f7fu) | seconds) >> 7) & 0x01010101u;
}
FASTGAN_HOST_DEVICE uint32_t pass_bits(const float* v) {
  uint32_t passed = 0;
  for (int i = 0; i < 4; ++i) passed |= (passes(v[i], -128.0f, 127.0f) ? 1u : 0u) << 8 * i;
  return passed;
}

FASTGAN_HOST_DEVICE Vector<int8_t, 4> clamped_four(const int32_t* v) {
  Vector<int8_t, 4> samples;
#ifdef __CUDA_ARCH__
  uint32_t word;
  asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, 0;" : "=r"(word) : "r"(v[3]), "r"(v[2]));
  asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, %0;" : "+r"(word) : "r"(v[1]), "r"(v[0]));
  std::memcpy(&samples, &word, sizeof word);
#else
  for (int i = 0; i < 4; ++i) samples.values[i] = static_cast<int8_t>(clamp(v[i], -128, 127));
#endif
  return samples;
}
FASTGAN_HOST_DEVICE Vector<float, 4> clamped_four(const float* v) {
  Vector<float, 4> samples;
  for (int i = 0; i < 4; ++i) samples.values[i] = clamp(v[i], -128.0f, 127.0f);
  return samples;
}

// Reads a row of a block and applies the inverse DCT of rows.
template <Rounding kRounding, typename S>
FASTGAN_HOST_DEVICE void decoded_row(const S* row, S (&v)[8]) {
  get_row(row, v);
  if (kRounding != Rounding::kNone) inverse_dct<1>(v);
}

// The same, clamped and stored in its plane; `passed` receives one byte per sample that the clamp left unchanged.
template <Rounding kRounding, typename S>
FASTGAN_HOST_DEVICE void store_row(const S* row, Plane<S>* to, uint32_t (&passed)[2]) {
  S v[8];
  decoded_row<kRounding>(row, v);
  for (int half = 0; half < 2; ++half) {
    *reinterpret_cast<Vector<Plane<S>, 4>*>(to + 4 * half) = clamped_four(&v[4 * half]);
    passed[half] = pass_bits(&v[4 * half]);
  }
}

// Whether the MCU of a column of luma blocks contains NaN that integer samples do not show.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE bool has_hidden_nan(F form, const Job<S, In>& job, const Place& place, int column) {
  if (!IsExact<S>::value) return false;
  return job.nan_row(place.image, place.mcu_row)[(place.left / 8 + column) / form.horizontal()];
}

// x / 255, correctly rounded, in three multiplications without a branch: the product with the rounded reciprocal,
// corrected by its remainder.
FASTGAN_HOST_DEVICE float over_255(float x) {
  constexpr float kReciprocal = 1.0f / 255;
  const float quotient = x * kReciprocal;
  return fmaf(fmaf(-quotient, 255.0f, x), kReciprocal, quotient);
}

// Computes an output pixel; returns its mask bits for the clamp to [0, 1] and for NaN.
template <typename S>
FASTGAN_HOST_DEVICE uint32_t merge_pixel(YCbCr<S> sample, bool nan, float& red, float& green, float& blue) {
  const RGB<S> pixel = to_rgb(sample);
  const S values[3] = {pixel.red, pixel.green, pixel.blue};
  float* levels[3] = {&red, &green, &blue};
  uint32_t mask = nan ? kMaskNan : 0;
  for (int c = 0; c < 3; ++c) {
    const S clamped = clamp(values[c], S(0), S(255));
    if (clamped == values[c]) mask |= kMaskOutput << c;
    if (values[c] != values[c]) mask |= kMaskNan;
    *levels[c] = nan ? float_from_bits(0x7fc00000u) : over_255(static_cast<float>(clamped));
  }
  return mask;
}

// Without subsampling: writes a thread's pixels to the image, and all masks.
template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void store_pixels(
    F form, const Job<S, In>& job, const Place& place, int thread, const Shared<S>& shared, const InputBits& bits) {
  const Extent& extent = job.extent;
  const int row = thread % 8, column = thread / 8 * 8, y = 8 * place.mcu_row + row;
  S luma[8], cb[8], cr[8];
  decoded_row<kRounding>(&shared.samples[luma_at(row, column)], luma);
  decoded_row<kRounding>(&shared.samples[chroma_at(form, 1, row, column)], cb);
  decoded_row<kRounding>(&shared.samples[chroma_at(form, 2, row, column)], cr);
  if (y >= extent.height || place.left + column >= extent.width) return;
  const bool nan = has_hidden_nan(form, job, place, thread / 8);
  const uint32_t nan_bits = nan ? 0x01010101u : 0;
  FASTGAN_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int x = place.left + column + 4 * half, k = 4 * half;
    if (x >= extent.width) continue;
    float levels[3][4];
    uint32_t word = (pass_bits(&luma[k]) | nan_bits) * kMaskLuma + bits.words[0][half];
    for (int i = 0; i < 4; ++i) {
      const YCbCr<S> sample = {
          clamp(luma[k + i], S(-128), S(127)), clamp(cb[k + i], S(-128), S(127)), clamp(cr[k + i], S(-128), S(127))};
      word |= merge_pixel(sample, nan, levels[0][i], levels[1][i], levels[2][i]) << 8 * i;
    }
    job.decoded.put_four(place.image, y, x, extent.width, levels);
    if (!job.masks) continue;
    put_bytes(job.mask_row(place.image, y), x, extent.width, bytes_of(word));
    const uint32_t chroma_word = (pass_bits(&cb[k]) | nan_bits) * kMaskCb + (pass_bits(&cr[k]) | nan_bits) * kMaskCr;
    put_bytes(job.chroma_mask_row(place.image, y), x, extent.width, bytes_of(chroma_word));
  }
}

// With subsampling: writes a thread's samples to their planes, and the masks of its pixels.
template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void store_samples(
    F form, const Job<S, In>& job, const Place& place, int thread, Shared<S>& shared, const InputBits& bits) {
  const Extent& extent = job.extent;
  const int row = thread % 8, column = thread / 8 * 8, x = place.left + column;
  if (x < extent.luma_stride) {
    const uint32_t nan = job.masks && has_hidden_nan(form, job, place, thread / 8) ? 0x01010101u : 0;
    FASTGAN_UNROLL
    for (int dy = 0; dy < 2; ++dy) {
      if (dy >= form.vertical()) continue;
      const int tile_row = form.vertical() * row + dy, y = 8 * form.vertical() * place.mcu_row + tile_row;
      uint32_t passed[2];
      store_row<kRounding>(
          &shared.samples[luma_at(tile_row, column)], job.planes.y_row(extent, place.image, y) + x, passed);
      if (!job.masks || y >= extent.height) continue;
      uint8_t* masks = job.mask_row(place.image, y);
      for (int half = 0; half < 2; ++half) {
        if (x + 4 * half >= extent.width) continue;
        const uint32_t word = (passed[half] | nan) * kMaskLuma + bits.words[dy][half];
        put_bytes(masks, x + 4 * half, extent.width, bytes_of(word));
      }
    }
  }
  // A row of either Cb or Cr.
  const int component = 1 + thread / 32, chroma_column = thread / 8 % 4 * 8, chroma_x = place.left / 2 + chroma_column;
  if (chroma_x >= extent.chroma_stride) return;
  S* samples = &shared.samples[chroma_at(form, component, row, chroma_column)];
  uint32_t passed[2];
  store_row<kRounding>(
      samples, job.planes.c_row(extent, place.image, component, 8 * place.mcu_row + row) + chroma_x, passed);
  std::memcpy(samples, passed, sizeof passed);  // `store_chroma_masks` reads it in place of the row
}

// Writes the masks of four chroma samples, after `store_samples`.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void store_chroma_masks(
    F form, const Job<S, In>& job, const Place& place, int thread, const Shared<S>& shared) {
  const Extent& extent = job.extent;
  const int row = thread % 8, column = thread / 8 * 4, block = column / 8 * 8;
  const int y = 8 * place.mcu_row + row, x = place.left / 2 + column;
  if (!job.masks || y >= extent.chroma_height || x >= extent.chroma_width) return;
  const uint32_t nan = has_hidden_nan(form, job, place, thread / 8) ? 0x01010101u : 0;
  uint32_t cb, cr;
  std::memcpy(&cb, &shared.samples[chroma_at(form, 1, row, block) + column / 4 % 2], sizeof cb);
  std::memcpy(&cr, &shared.samples[chroma_at(form, 2, row, block) + column / 4 % 2], sizeof cr);
  const uint32_t word = (cb | nan) * kMaskCb + (cr | nan) * kMaskCr;
  put_bytes(job.chroma_mask_row(place.image, y), x, extent.chroma_width, bytes_of(word));
}

// --- merge ----------------------------------------------------------------------------------------------------------

// The position of a thread's four pixels.
struct FourPixels {
  int image, row, first;
  bool exist;

  FASTGAN_HOST_DEVICE FourPixels(const Divisor& across, const Divisor& height, int images, uint32_t index) {
    uint32_t line = across.divide(index);
    first = 4 * static_cast<int>(index);
    image = static_cast<int>(height.divide(line));
    row = static_cast<int>(line);
    exist = image < images;
  }
  static int64_t across(const JpegSizes& sizes) { return (sizes.width + 3) / 4; }
  static int64_t count(const JpegSizes& sizes) { return sizes.images * sizes.height * across(sizes); }
};

// Cb or Cr at four pixels.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void upsample(F form, const Job<S, In>& job, const FourPixels& at, int component, S (&values)[4]) {
  const Extent& extent = job.extent;
  const int y = at.row / form.vertical();
  const Plane<S>* near = job.planes.c_row(extent, at.image, component, y);
  const int x = at.first / 2;
  if (!form.fancy()) {
    const Vector<Plane<S>, 2> two = read<2>(near + x);
    for (int i = 0; i < 4; ++i) values[i] = two.values[i / 2];
    return;
  }
  // The two samples that belong to the pixels, and their neighbours, clamped to the image.
  const int last = extent.chroma_width - 1;
  const int places[4] = {x > 0 ? x - 1 : 0, x, x + 1 < last ? x + 1 : last, x + 2 < last ? x + 2 : last};
  S samples[4];
  for (int i = 0; i < 4; ++i) samples[i] = near[places[i]];
  if (form.vertical() == 1) {
    for (int i = 0; i < 2; ++i) {
      values[2 * i] = triangle_left<1>(samples[i + 1], samples[i]);
      values[2 * i + 1] = triangle_right<1>(samples[i + 1], samples[i + 2]);
    }
    return;
  }
  const int beside = clamp(at.row % 2 ? y + 1 : y - 1, 0, extent.chroma_height - 1);
  const Plane<S>* far = job.planes.c_row(extent, at.image, component, beside);
  for (int i = 0; i < 4; ++i) samples[i] = triangle_column<S>(samples[i], far[places[i]]);
  for (int i = 0; i < 2; ++i) {
    values[2 * i] = triangle_left<2>(samples[i + 1], samples[i]);
    values[2 * i + 1] = triangle_right<2>(samples[i + 1], samples[i + 2]);
  }
}

// As `fastgan::touches_nan`.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE bool touches_nan(F form, const Job<S, In>& job, int image, int row, int column) {
  const Extent& extent = job.extent;
  const int across = form.fancy() && form.horizontal() == 2, down = form.fancy() && form.vertical() == 2;
  bool depends = false;
  for (int dy = -down; dy <= down; ++dy) {
    for (int dx = -across; dx <= across; ++dx) {
      const int y = clamp(row + dy, 0, extent.height - 1), x = clamp(column + dx, 0, extent.width - 1);
      depends = depends || job.nan_row(image, y / (8 * form.vertical()))[x / (8 * form.horizontal())];
    }
  }
  return depends;
}

template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void merge(F form, const Job<S, In>& job, const FourPixels& at) {
  const Extent& extent = job.extent;
  const Vector<Plane<S>, 4> luma = read<4>(job.planes.y_row(extent, at.image, at.row) + at.first);
  S cb[4], cr[4];
  upsample(form, job, at, 1, cb);
  upsample(form, job, at, 2, cr);
  const bool any_nan = IsExact<S>::value && job.any_nan();
  float levels[3][4];
  Vector<uint8_t, 4> bits;
  for (int i = 0; i < 4; ++i) {
    const bool nan = any_nan && touches_nan(form, job, at.image, at.row, at.first + i);
    const YCbCr<S> sample = {luma.values[i], cb[i], cr[i]};
    bits.values[i] = static_cast<uint8_t>(merge_pixel(sample, nan, levels[0][i], levels[1][i], levels[2][i]));
  }
  job.decoded.put_four(at.image, at.row, at.first, extent.width, levels);
  if (!job.masks) return;
  uint8_t* masks = job.mask_row(at.image, at.row);
  const Vector<uint8_t, 4> before = get_bytes(masks, at.first, extent.width);
  for (int i = 0; i < 4; ++i) bits.values[i] |= before.values[i];
  put_bytes(masks, at.first, extent.width, bits);
}

}  // namespace tile
}  // namespace fastgan
