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
    const double* table = tables_.of(n, 0);
    // A table that integers cannot take makes its image NaN.
    const auto whole = [](double step) {
      bool valid;
      whole_step(step, valid);
      return valid;
    };
    if (std::all_of(table, table + 128, whole)) continue;
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
  }
}

// Cb or Cr for one row of pixels; `sums` and `buffer` have room for a padded row and a sample on either side.
template <typename S>
const S* JpegForward::upsampled_row(int64_t image, int component, int64_t row, S* sums, S* buffer) {
  const int64_t nearer = row / options_.vertical, count = sizes_.chroma_width;
  const Plane<S>* samples = plane_row<Plane<S>>(image, component, nearer);
  if (!sizes_.fancy || options_.horizontal == 1) {
    replicate_row(samples, count, options_.horizontal, buffer);
  } else if (options_.vertical == 1) {
    upsample_row_422(samples, count, sums + 1, buffer);
  } else {
    // Beyond the image's edge its last row of samples is repeated.
    const int64_t farther = clamp(nearer + (row % 2 ? 1 : -1), int64_t(0), sizes_.chroma_height - 1);
    upsample_row_420(samples, plane_row<Plane<S>>(image, component, farther), count, sums + 1, buffer);
  }
  return buffer;
}

template <typename S, typename In>
void JpegForward::merge_typed(int64_t block) {
  const Work work(sizes_, blocks_, block);
  const int64_t width = sizes_.width, top = work.first * sizes_.mcu_height;
  const int64_t bottom = std::min(top + work.rows * sizes_.mcu_height, sizes_.height);
  const Scratch<S> upsampled = scratch<S>(2 * sizes_.luma_stride), sums = scratch<S>(sizes_.luma_stride + 2);
  const Scratch<In> buffer = scratch<In>(3 * width);
  for (int64_t row = top; row < bottom; ++row) {
    const S* cb = upsampled_row<S>(work.image, 1, row, &sums[0], &upsampled[0]);
    const S* cr = upsampled_row<S>(work.image, 2, row, &sums[0], &upsampled[sizes_.luma_stride]);
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

template <typename In>
void JpegForward::spread_nan(int64_t image, int64_t row) {
  const In nan = std::numeric_limits<In>::quiet_NaN();
  for (int64_t column = 0; column < sizes_.width; ++column) {
    if (!touches_nan(sizes_, nan_.data(), image, row, column)) continue;
    for (int c = 0; c < 3; ++c) store(&nan, decoded_.at(image, c, row, column), decoded_.dtype, 1, 1);
    if (masks_.pixels) masks_.pixels[(image * sizes_.height + row) * sizes_.width + column] = 0;
  }
}

}  // namespace fastgan
