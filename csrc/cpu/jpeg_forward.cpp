#include "jpeg_strips.h"

namespace fastgan {

JpegForward::JpegForward(
    ImageView image, JpegTables tables, JpegOptions options, uint64_t seed, ImageView decoded, JpegMasks masks)
    : image_(image),
      tables_(std::move(tables)),
      options_(options),
      seed_(seed),
      decoded_(decoded),
      masks_(masks),
      sizes_(image.sizes[0], image.sizes[2], image.sizes[3], options),
      blocks_(sizes_) {
  const bool exact = options.rounding == Rounding::kStraightThrough;
  const int64_t sample = exact ? 1 : image.dtype == Dtype::kFloat64 ? sizeof(double) : sizeof(float);
  const int64_t rows = sizes_.images * sizes_.mcu_rows;
  luma_ = scratch<char>(rows * sizes_.mcu_height * sizes_.luma_stride * sample);
  chroma_ = scratch<char>(rows * 2 * 8 * sizes_.chroma_stride * sample);
  if (exact) nan_.assign(rows * sizes_.mcu_columns, 0);
  for (int64_t n = 0; exact && n < sizes_.images; ++n) {
    if (tables_.are_whole(n)) continue;
    // A table with values that integers cannot represent makes its image NaN.
    const int64_t mcus = sizes_.mcu_rows * sizes_.mcu_columns;
    std::fill_n(nan_.begin() + n * mcus, mcus, uint8_t(1));
    any_nan_ = true;
  }
}

void JpegForward::encode(int64_t block) {
  with_arithmetic(options_, image_.dtype, [&](auto s, auto in) { encode_typed<decltype(s), decltype(in)>(block); });
}

void JpegForward::merge(int64_t block) {
  with_arithmetic(options_, image_.dtype, [&](auto s, auto in) { merge_typed<decltype(s), decltype(in)>(block); });
}

// One row of decoded luma (component 0), Cb (1) or Cr (2).
template <typename P>
P* JpegForward::plane_row(int64_t image, int component, int64_t row) {
  if (component == 0) {
    const int64_t line = image * sizes_.mcu_rows * sizes_.mcu_height + row;
    return reinterpret_cast<P*>(luma_.get()) + line * sizes_.luma_stride;
  }
  const int64_t line = (2 * image + component - 1) * sizes_.mcu_rows * 8 + row;
  return reinterpret_cast<P*>(chroma_.get()) + line * sizes_.chroma_stride;
}

template <typename S, typename In>
void JpegForward::encode_typed(int64_t block) {
  const Work work(sizes_, blocks_, block);
  Strips<S> strips(sizes_, work.rows);
  const int64_t top = work.first * sizes_.mcu_height, width = sizes_.width;
  read_samples<S, In>(image_, sizes_, options_, work, strips, [&](int64_t row, const In* const* rgb, bool nan) {
    if (masks_.pixels) mask_input_row(rgb, width, masks_.pixels + (work.image * sizes_.height + top + row) * width);
    if (!IsExact<S>::value || !nan) return;
    any_nan_ = true;
    const int64_t mcu_row = work.image * sizes_.mcu_rows + (top + row) / sizes_.mcu_height;
    uint8_t* flags = &nan_[mcu_row * sizes_.mcu_columns];
    for (int64_t i = 0; i < width; ++i) {
      if (std::isnan(rgb[0][i]) || std::isnan(rgb[1][i]) || std::isnan(rgb[2][i])) flags[i / sizes_.mcu_width] = 1;
    }
  });

  with_rounding<S>(options_.rounding, [&](auto rounding) {
    const auto code = [](int, int64_t group, Strip<S>& strip, const BlockTable<S>& table, const S(*noise)[kLanes]) {
      code_blocks<decltype(rounding)::value>(strip.at(group * kLanes), strip.stride(), table, noise);
    };
    for_all_blocks(strips, sizes_, options_, tables_, seed_, work, code);
  });

  for (int64_t row = 0; row < work.rows * sizes_.mcu_height; ++row) {
    const int64_t y = top + row;
    if (y < sizes_.height) fetch_row(image_, work.image, y, work.rows * sizes_.mcu_height);
    uint8_t* mask =
        masks_.pixels && y < sizes_.height ? masks_.pixels + (work.image * sizes_.height + y) * width : nullptr;
    store_samples(
        strips.luma_row(row), sizes_.luma_stride, plane_row<Plane<S>>(work.image, 0, y), width, mask, kMaskLuma);
    if (IsExact<S>::value && mask && any_nan_)
      pass_nan(work.image, row / sizes_.mcu_height + work.first, sizes_.mcu_width, width, mask, kMaskLuma);
  }
  for (int64_t row = 0; row < work.rows * 8; ++row) {
    const int64_t y = 8 * work.first + row, count = sizes_.chroma_width;
    uint8_t* mask = nullptr;
    if (masks_.chroma && y < sizes_.chroma_height) {
      mask = masks_.chroma + (work.image * sizes_.chroma_height + y) * count;
      std::fill_n(mask, count, uint8_t(0));
    }
    for (int c = 1; c <= 2; ++c) {
      store_samples(
          strips.chroma_row(c, row), sizes_.chroma_stride, plane_row<Plane<S>>(work.image, c, y), count, mask,
          c == 1 ? kMaskCb : kMaskCr);
    }
    if (IsExact<S>::value && mask && any_nan_)
      pass_nan(work.image, row / 8 + work.first, 8, count, mask, kMaskCb | kMaskCr);
  }
}

// Upsamples one row of chroma to its rows of pixels: Cb for each of them, then Cr.
template <typename S>
void JpegForward::upsample(int64_t image, int64_t row, S* sums, S* upsampled) {
  const int64_t count = sizes_.chroma_width, pitch = sizes_.chroma_stride + 2, rows = options_.vertical;
  const bool smooth = sizes_.fancy && options_.horizontal == 2;
  for (int c = 0; c < 2; ++c) {
    const Plane<S>* samples = plane_row<Plane<S>>(image, 1 + c, row);
    S *padded = sums + c * rows * pitch + 1, *target = upsampled + c * rows * sizes_.luma_stride;
    if (!smooth) {
      for (int64_t i = 0; i < rows; ++i) {
        replicate_row(samples, count, options_.horizontal, target + i * sizes_.luma_stride);
      }
    } else if (rows == 1) {
      pad_samples(samples, count, padded);
    } else {
      // At the image's edge the outermost row of samples is repeated.
      const Plane<S>* above = plane_row<Plane<S>>(image, 1 + c, std::max<int64_t>(row - 1, 0));
      const Plane<S>* below = plane_row<Plane<S>>(image, 1 + c, std::min(row + 1, sizes_.chroma_height - 1));
      triangle_columns(above, samples, below, count, padded, padded + pitch);
    }
  }
  // A second loop: reads at an offset of one stall on sums that are still in the store buffer.
  for (int64_t i = 0; smooth && i < 2 * rows; ++i) {
    const S* padded = sums + i * pitch + 1;
    S* target = upsampled + i * sizes_.luma_stride;
    rows == 1 ? triangle_row<1>(padded, count, target) : triangle_row<2>(padded, count, target);
  }
}

template <typename S, typename In>
void JpegForward::merge_typed(int64_t block) {
  const Work work(sizes_, blocks_, block);
  const int64_t width = sizes_.width, top = work.first * sizes_.mcu_height, vertical = options_.vertical;
  const int64_t bottom = std::min(top + work.rows * sizes_.mcu_height, sizes_.height);
  const Scratch<S> upsampled = scratch<S>(2 * vertical * sizes_.luma_stride),
                   sums = scratch<S>(2 * vertical * (sizes_.chroma_stride + 2));
  const Scratch<In> buffer = scratch<In>(3 * width);
  for (int64_t row = top; row < bottom; ++row) {
    if (row % vertical == 0) upsample(work.image, row / vertical, &sums[0], &upsampled[0]);
    const S* cb = &upsampled[row % vertical * sizes_.luma_stride];
    const S* cr = cb + vertical * sizes_.luma_stride;
    In* rgb[3];
    for (int c = 0; c < 3; ++c) {
      rgb[c] = target_of(decoded_.at(work.image, c, row, 0), decoded_.dtype, decoded_.strides[3], &buffer[c * width]);
    }
    uint8_t* mask = masks_.pixels ? masks_.pixels + (work.image * sizes_.height + row) * width : nullptr;
    merge_row(plane_row<Plane<S>>(work.image, 0, row), cb, cr, width, rgb, mask);
    for (int c = 0; c < 3; ++c) {
      store(rgb[c], decoded_.at(work.image, c, row, 0), decoded_.dtype, decoded_.strides[3], width);
    }
    if (IsExact<S>::value && any_nan_) spread_nan<In>(work.image, row);
  }
}

// Sets the mask bits of samples that would be NaN in floating point: gradients pass their clamps.
void JpegForward::pass_nan(
    int64_t image, int64_t mcu_row, int64_t per_mcu, int64_t count, uint8_t* mask, uint8_t bits) const {
  for (int64_t i = 0; i < count; ++i) {
    if (lies_in_nan(sizes_, nan_.data(), image, mcu_row, i / per_mcu)) mask[i] = static_cast<uint8_t>(mask[i] | bits);
  }
}

template <typename In>
void JpegForward::spread_nan(int64_t image, int64_t row) {
  const In nan = std::numeric_limits<In>::quiet_NaN();
  for (int64_t column = 0; column < sizes_.width; ++column) {
    if (!touches_nan(sizes_, nan_.data(), image, row, column)) continue;
    for (int c = 0; c < 3; ++c) store(&nan, decoded_.at(image, c, row, column), decoded_.dtype, 1, 1);
    if (masks_.pixels) masks_.pixels[(image * sizes_.height + row) * sizes_.width + column] |= kMaskNan;
  }
}

}  // namespace fastgan
