#pragma once

#include "jpeg_tile.h"

//     encode  one tile: what jpeg_tile.h has, then the columns and the way into planes of decoded samples
//     merge   four pixels: chroma upsampling, colour
namespace fastgan {
namespace tile {

// --- encode ---------------------------------------------------------------------------------------------------------

// Each of the eight threads of a block runs one of its columns: DCT, quantization, inverse DCT.
template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void code_column(
    F form, const Job<S, In>& job, const Place& place, int thread, const Steps<S>& steps, Shared<S>& shared) {
  const int block = thread / 8, column = thread % 8;
  if (block >= blocks(form)) return;
  S* first = &shared.samples[block * kBlock + column];
  const int table = block >= luma_blocks(form) ? 64 : 0;
  if constexpr (kRounding == Rounding::kNone) {
    S nothing = 0;  // but a table with NaN makes all NaN
    for (int i = 0; i < 64; ++i) nothing += steps.steps[table + i];
    for (int k = 0; k < 8; ++k) first[k * kRow] += nothing;
  } else {
    S v[8];
    for (int k = 0; k < 8; ++k) v[k] = first[k * kRow];
    forward_dct<1>(v);
    for (int k = 0; k < 8; ++k) {
      const int coefficient = 8 * k + column;
      const S step = steps.steps[table + coefficient];
      if constexpr (kRounding == Rounding::kStraightThrough) {
        v[k] = quantize(v[k], step, steps.reciprocals[table + coefficient]) * step;
      } else {
        const S noise = noise_of<kRounding>(form, job, place, block, coefficient);
        v[k] = surrogate<kRounding>(v[k] * S(0.125) / step, noise) * step;
      }
    }
    inverse_dct<0>(v);
    for (int k = 0; k < 8; ++k) first[k * kRow] = v[k];
  }
}

// Samples, clamped, to their planes, four at a time; masks of what came in and of the decoded samples.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void store(
    F form, const Job<S, In>& job, const Place& place, int thread, const Shared<S>& shared, const uint8_t* input_bits) {
  const Extent& extent = job.extent;
  const uint8_t* nans = IsExact<S>::value && job.masks ? job.nan_row(place.image, place.mcu_row) : nullptr;
  for (unsigned index = thread; index < 8u * form.vertical() * (kWidth / 4); index += kThreads) {
    const int row = index / (kWidth / 4), column = 4 * (index % (kWidth / 4));
    const int y = 8 * form.vertical() * place.mcu_row + row, x = place.left + column;
    if (x >= extent.luma_stride) continue;
    Vector<Plane<S>, 4> samples;
    Vector<uint8_t, 4> bits;
    const bool is_masked = job.masks && y < extent.height && x < extent.width;
    const bool nan = nans && is_masked && nans[x / (8 * form.horizontal())];
    for (int i = 0; i < 4; ++i) {
      const S sample = shared.samples[luma_at(row, column + i)];
      samples.values[i] = static_cast<Plane<S>>(clamp(sample, S(-128), S(127)));
      const int luma = nan || passes(sample, S(-128), S(127)) ? kMaskLuma : 0;
      bits.values[i] = static_cast<uint8_t>(luma | input_bits[row * kWidth + column + i]);
    }
    Plane<S>* to = job.planes.y_row(extent, place.image, y) + x;
    *reinterpret_cast<Vector<Plane<S>, 4>*>(to) = samples;
    if (is_masked) put_bytes(job.mask_row(place.image, y), x, extent.width, bits);
  }
  const unsigned fours = kWidth / 4 / form.horizontal();
  for (unsigned index = thread; index < 8 * fours; index += kThreads) {
    const int row = index / fours, column = 4 * (index % fours);
    const int y = 8 * place.mcu_row + row, x = place.left / form.horizontal() + column;
    if (x >= extent.chroma_stride) continue;
    Vector<uint8_t, 4> bits = {};
    const bool is_masked = job.chroma_masks && y < extent.chroma_height && x < extent.chroma_width;
    const bool nan = nans && is_masked && nans[x / 8];
    for (int c = 1; c <= 2; ++c) {
      Vector<Plane<S>, 4> samples;
      for (int i = 0; i < 4; ++i) {
        const S sample = shared.samples[chroma_at(form, c, row, column + i)];
        samples.values[i] = static_cast<Plane<S>>(clamp(sample, S(-128), S(127)));
        if (nan || passes(sample, S(-128), S(127))) bits.values[i] |= c == 1 ? kMaskCb : kMaskCr;
      }
      *reinterpret_cast<Vector<Plane<S>, 4>*>(job.planes.c_row(extent, place.image, c, y) + x) = samples;
    }
    if (is_masked) put_bytes(job.chroma_mask_row(place.image, y), x, extent.chroma_width, bits);
  }
}

// --- merge ----------------------------------------------------------------------------------------------------------

// Which four pixels are a thread's, of those of all rows.
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
  if (form.horizontal() == 1) {
    const Vector<Plane<S>, 4> four = read<4>(near + at.first);
    for (int i = 0; i < 4; ++i) values[i] = four.values[i];
    return;
  }
  const int x = at.first / 2;
  if (!form.fancy()) {
    const Vector<Plane<S>, 2> two = read<2>(near + x);
    for (int i = 0; i < 4; ++i) values[i] = two.values[i / 2];
    return;
  }
  // The two samples of the pixels and those beside them, as far as the image has them.
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
  bool found = false;
  for (int dy = -down; dy <= down; ++dy) {
    for (int dx = -across; dx <= across; ++dx) {
      const int y = clamp(row + dy, 0, extent.height - 1), x = clamp(column + dx, 0, extent.width - 1);
      found = found || job.nan_row(image, y / (8 * form.vertical()))[x / (8 * form.horizontal())];
    }
  }
  return found;
}

// x / 255, correctly rounded, in three multiplications and no branch: the quotient by the rounded reciprocal, and what
// it leaves over.
FASTGAN_HOST_DEVICE float over_255(float x) {
  constexpr float kReciprocal = 1.0f / 255;
  const float quotient = x * kReciprocal;
  return fmaf(fmaf(-quotient, 255.0f, x), kReciprocal, quotient);
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
    const RGB<S> pixel = to_rgb(YCbCr<S>{luma.values[i], cb[i], cr[i]});
    const S values[3] = {pixel.red, pixel.green, pixel.blue};
    const bool nan = any_nan && touches_nan(form, job, at.image, at.row, at.first + i);
    int found = nan ? kMaskNan : 0;
    for (int c = 0; c < 3; ++c) {
      const S clamped = clamp(values[c], S(0), S(255));
      if (clamped == values[c]) found |= kMaskOutput << c;
      if (values[c] != values[c]) found |= kMaskNan;
      levels[c][i] = nan ? float_from_bits(0x7fc00000u) : over_255(static_cast<float>(clamped));
    }
    bits.values[i] = static_cast<uint8_t>(found);
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
