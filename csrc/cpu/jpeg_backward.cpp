#include "jpeg_strips.h"

namespace fastgan {
namespace {

// The gradient of one row of RGB in grey levels, where the clamps pass it, back to that of luma and upsampled chroma.
template <typename In>
FASTGAN_CLONES void unmerge_row(const In* const* grad, const uint8_t* mask, int64_t count, In* y, In* cb, In* cr) {
  const In *red = grad[0], *green = grad[1], *blue = grad[2];
  for (int64_t first = 0; first < count; first += kSpan) {
    const int64_t end = std::min(first + kSpan, count);
    int32_t passed[kSpan];
    std::copy(mask + first, mask + end, passed);
#pragma omp simd
    for (int64_t i = first; i < end; ++i) {
      const int32_t bits = passed[i - first];
      // Selecting directly into the struct's fields would not vectorize.
      const In r = bits & 8 ? red[i] : In(0), g = bits & 16 ? green[i] : In(0), b = bits & 32 ? blue[i] : In(0);
      const YCbCr<In> sample = to_rgb_transposed(RGB<In>{r, g, b});
      const In nan = bits & kMaskNan ? In(NAN) : In(0);
      y[i] = bits & kMaskLuma ? sample.y + nan : In(0);
      cb[i] = sample.cb + nan;
      cr[i] = sample.cr + nan;
    }
  }
}

// `row` is padded by one value on either side that repeats the edge, whose sample therefore counts twice.
template <typename In>
FASTGAN_CLONES void downsample_triangle(const In* row, int64_t count, In* chroma) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    chroma[i] = In(0.75) * (row[2 * i] + row[2 * i + 1]) + In(0.25) * (row[2 * i - 1] + row[2 * i + 2]);
  }
}

template <typename In>
FASTGAN_CLONES void add_pairs(const In* row, int64_t count, In* chroma) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) chroma[i] = row[2 * i] + row[2 * i + 1];
}

// chroma = the sum of weight_r row_r where `bit` is set in the mask, else 0.
template <int kRows, typename In>
FASTGAN_CLONES void combine_rows(
    const In* const* rows, const In* weights, int64_t count, const uint8_t* mask, uint8_t bit, In* chroma) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    In sum = 0;
    for (int r = 0; r < kRows; ++r) sum += weights[r] * rows[r][i];
    chroma[i] = mask[i] & bit ? sum : In(0);
  }
}

// wide[x] = weight chroma[x / horizontal]
template <typename In>
FASTGAN_CLONES void spread_row(const In* chroma, In weight, int horizontal, int64_t count, In* wide) {
  if (horizontal == 1) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) wide[i] = weight * chroma[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < count / 2; ++i) wide[2 * i] = wide[2 * i + 1] = weight * chroma[i];
  }
}

template <typename In>
FASTGAN_CLONES void add_row(const In* row, int64_t count, In* sum) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) sum[i] += row[i];
}

// Padding repeats the last column: adds the gradients of the padded columns to it.
template <typename In>
void fold_columns(In* row, int64_t count, int64_t padded) {
  for (int64_t x = count; x < padded; ++x) row[count - 1] += row[x];
}

template <typename In>
FASTGAN_CLONES void unconvert_row(
    const In* y, const In* cb, const In* cr, const uint8_t* mask, int64_t count, In* const* grad) {
  In *red = grad[0], *green = grad[1], *blue = grad[2];
  for (int64_t first = 0; first < count; first += kSpan) {
    const int64_t end = std::min(first + kSpan, count);
    int32_t passed[kSpan];
    std::copy(mask + first, mask + end, passed);
#pragma omp simd
    for (int64_t i = first; i < end; ++i) {
      const int32_t bits = passed[i - first];
      const RGB<In> pixel = to_ycbcr_transposed(YCbCr<In>{y[i], cb[i], cr[i]});
      red[i] = bits & 1 ? pixel.red : In(0);
      green[i] = bits & 2 ? pixel.green : In(0);
      blue[i] = bits & 4 ? pixel.blue : In(0);
    }
  }
}

// Takes the gradient of 16 blocks back through quantization, in place, and adds that of the table to `grad_table` (64
// sums, or null).
template <Rounding kRounding, typename S, typename In>
FASTGAN_CLONES void backward_blocks(
    const S* samples, In* grads, int64_t stride, const BlockTable<S>& table, const S (*noise)[kLanes],
    double* grad_table) {
  alignas(64) S lanes[64][kLanes];
  alignas(64) In grad_lanes[64][kLanes];
  forward_rows(samples, stride, lanes);
  forward_rows(grads, stride, grad_lanes);
  for (int64_t column = 0; column < 8; ++column) {
    alignas(64) In step_grads[8][kLanes];
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) {
      S v[8];
      In g[8];
      for (int k = 0; k < 8; ++k) v[k] = lanes[8 * k + column][i];
      for (int k = 0; k < 8; ++k) g[k] = grad_lanes[8 * k + column][i];
      forward_dct<1>(v);
      forward_dct<1>(g);
      for (int k = 0; k < 8; ++k) {
        const int64_t at = 8 * k + column;
        const In quotient = static_cast<In>(v[k]) * In(0.125) / static_cast<In>(table.steps[at]);
        In level, slope = 1;
        if constexpr (IsExact<S>::value) {
          level = static_cast<In>(quantize(v[k], table.reciprocals[at]));
        } else {
          level = surrogate<kRounding>(quotient, noise ? noise[at][i] : S(0));
          slope = surrogate_slope<kRounding>(quotient);
        }
        const In grad = g[k] * In(0.125);
        // Images are in [0, 1], steps in grey levels.
        step_grads[k][i] = grad * (level - slope * quotient) * In(1.0 / 255);
        g[k] = grad * slope;
      }
      inverse_dct<0>(g);
      for (int k = 0; k < 8; ++k) grad_lanes[8 * k + column][i] = g[k];
    }
    for (int k = 0; grad_table && k < 8; ++k) {
      double sum = 0;
      for (int64_t i = 0; i < kLanes; ++i) sum += step_grads[k][i];
      grad_table[8 * k + column] += sum;
    }
  }
  if (slope_varies(kRounding)) inverse_rows(grad_lanes, grads, stride);
}

}  // namespace

bool JpegBackward::needs_image(const JpegOptions& options, bool grad_tables) {
  if (options.rounding == Rounding::kNone) return false;  // the tables have no influence, and so no gradient
  return grad_tables || slope_varies(options.rounding);
}

JpegBackward::JpegBackward(
    ImageView grad, ImageView image, JpegTables tables, JpegOptions options, uint64_t seed, ImageView grad_image,
    bool grad_tables, JpegMasks masks)
    : grad_(grad),
      image_(image),
      tables_(std::move(tables)),
      options_(options),
      seed_(seed),
      grad_image_(grad_image),
      masks_(masks),
      sizes_(grad.sizes[0], grad.sizes[2], grad.sizes[3], options),
      blocks_(sizes_) {
  if (grad_tables) partial_.assign(blocks_.count * 128, 0.0);
}

void JpegBackward::run(int64_t block) {
  with_arithmetic(options_, grad_image_.dtype, [&](auto s, auto in) { run_typed<decltype(s), decltype(in)>(block); });
}

template <typename S, typename In>
void JpegBackward::run_typed(int64_t block) {
  const Work work(sizes_, blocks_, block);
  const int64_t width = sizes_.width, height = sizes_.height, n = work.image;
  const int64_t top = work.first * sizes_.mcu_height, rows = work.rows * sizes_.mcu_height;
  const bool smooth_rows = sizes_.fancy && options_.horizontal == 2;
  const bool smooth_columns = sizes_.fancy && options_.vertical == 2;
  Strips<In> strips(sizes_, work.rows);

  // 1. Back through the colour matrix and the horizontal upsampling of chroma. Where upsampling smooths vertically as
  // well, one more row on either side is needed.
  const int64_t halo = smooth_columns ? 1 : 0, stride = sizes_.chroma_stride, padded = sizes_.luma_stride;
  const Scratch<In> narrow = scratch<In>((rows + 2 * halo) * 2 * stride);
  const auto narrow_row = [&](int64_t y, int c) { return &narrow[((y - top + halo) * 2 + c - 1) * stride]; };
  const int64_t first = std::max<int64_t>(top - halo, 0), end = std::min(top + rows + halo, height);
  {
    // A few rows at a time: reads at an offset of one stall on values that are still in the store buffer.
    constexpr int64_t kRowsAtOnce = 4;
    const int64_t pitch = padded + 2;
    const Scratch<In> buffer = scratch<In>(3 * width), wide = scratch<In>(2 * kRowsAtOnce * pitch),
                      outside = scratch<In>(width);
    for (int64_t begin = first; begin < end; begin += kRowsAtOnce) {
      const int64_t stop = std::min(begin + kRowsAtOnce, end);
      In* wide_row = &wide[1];
      for (int64_t y = begin; y < stop; ++y, wide_row += 2 * pitch) {
        const In* grad[3];
        for (int c = 0; c < 3; ++c) {
          grad[c] = load(grad_.at(n, c, y, 0), grad_.dtype, grad_.strides[3], width, &buffer[c * width]);
        }
        In *cb = wide_row, *cr = cb + pitch;
        const bool inside = y >= top && y < top + rows;
        In* luma = inside ? strips.luma_row(y - top) : &outside[0];
        unmerge_row(grad, masks_.pixels + (n * height + y) * width, width, luma, cb, cr);
        if (inside) std::fill(luma + width, luma + padded, In(0));
        if (width < 2 * sizes_.chroma_width) cb[width] = cr[width] = 0;
        if (!smooth_rows) continue;
        for (In* row : {cb, cr}) {
          row[-1] = row[0];
          row[2 * sizes_.chroma_width] = row[2 * sizes_.chroma_width - 1];
        }
      }
      wide_row = &wide[1];
      for (int64_t y = begin; y < stop; ++y, wide_row += 2 * pitch) {
        for (int c = 1; c <= 2; ++c) {
          const In* row = wide_row + (c - 1) * pitch;
          if (options_.horizontal == 1) {
            std::copy_n(row, width, narrow_row(y, c));
          } else if (smooth_rows) {
            downsample_triangle(row, sizes_.chroma_width, narrow_row(y, c));
          } else {
            add_pairs(row, sizes_.chroma_width, narrow_row(y, c));
          }
        }
      }
    }
  }
  // Padding rows below the image have no pixels, and so no gradient.
  for (int64_t y = end; y < top + rows; ++y) {
    std::fill_n(strips.luma_row(y - top), padded, In(0));
    for (int c = 1; c <= 2; ++c) std::fill_n(narrow_row(y, c), stride, In(0));
  }

  // 2. Back through the vertical upsampling of chroma.
  for (int64_t row = 0; row < 8 * work.rows; ++row) {
    const int64_t y = 8 * work.first + row, count = sizes_.chroma_width;
    const uint8_t* mask = masks_.chroma + (n * sizes_.chroma_height + y) * count;
    for (int c = 1; c <= 2; ++c) {
      In* chroma = strips.chroma_row(c, row);
      const uint8_t bit = c == 1 ? kMaskCb : kMaskCr;
      if (y >= sizes_.chroma_height) {
        std::fill_n(chroma, stride, In(0));
        continue;
      }
      std::fill(chroma + count, chroma + stride, In(0));
      const In* parts[4] = {narrow_row(options_.vertical * y, c)};
      In weights[4] = {1, 1, In(0.25), In(0.25)};
      if (options_.vertical == 1) {
        combine_rows<1>(parts, weights, count, mask, bit, chroma);
        continue;
      }
      parts[1] = narrow_row(2 * y + 1, c);
      if (!smooth_columns) {
        combine_rows<2>(parts, weights, count, mask, bit, chroma);
        continue;
      }
      parts[2] = y == 0 ? parts[0] : narrow_row(2 * y - 1, c);
      parts[3] = y == sizes_.chroma_height - 1 ? parts[1] : narrow_row(2 * y + 2, c);
      weights[0] = weights[1] = In(0.75);
      combine_rows<4>(parts, weights, count, mask, bit, chroma);
    }
  }

  // 3. Back through quantization.
  if (needs_image(options_, !partial_.empty())) {
    Strips<S> samples(sizes_, work.rows);
    read_samples<S, In>(image_, sizes_, options_, work, samples, [](int64_t, const In* const*, bool) {});
    with_rounding<S>(options_.rounding, [&](auto rounding) {
      const auto visit = [&](int chroma, int64_t group, Strip<S>& strip, const BlockTable<S>& table,
                             const S(*noise)[kLanes]) {
        In* grads = (chroma ? strips.chroma : strips.luma).at(group * kLanes);
        double* grad_table = partial_.empty() ? nullptr : &partial_[(2 * block + chroma) * 64];
        backward_blocks<decltype(rounding)::value>(
            strip.at(group * kLanes), grads, strip.stride(), table, noise, grad_table);
      };
      for_all_blocks(samples, sizes_, options_, tables_, seed_, work, visit);
    });
  }
  if (!grad_image_.data) return;

  // 4. Back through chroma subsampling and the colour matrix. Padding repeats the last row and column: gradients of the
  // padding are added to these.
  const int64_t bottom = std::min(top + rows, height), last_chroma = sizes_.chroma_height - 1 - 8 * work.first;
  for (int64_t y = bottom; y < top + rows; ++y) {
    add_row(strips.luma_row(y - top), padded, strips.luma_row(bottom - 1 - top));
  }
  for (int64_t row = last_chroma + 1; row < 8 * work.rows; ++row) {
    for (int c = 1; c <= 2; ++c) add_row(strips.chroma_row(c, row), stride, strips.chroma_row(c, last_chroma));
  }
  const Scratch<In> wide = scratch<In>(2 * padded), buffer = scratch<In>(3 * width);
  In *cb = &wide[0], *cr = cb + padded;
  for (int64_t y = top; y < bottom; ++y) {
    In* luma = strips.luma_row(y - top);
    fold_columns(luma, width, padded);
    // With an odd height, the last row is repeated to fill its row of chroma, and counts twice.
    const bool alone = options_.vertical == 2 && y == height - 1 && y % 2 == 0;
    if ((y - top) % options_.vertical == 0) {
      const In weight = In(alone ? 2 : 1) / In(options_.horizontal * options_.vertical);
      for (int c = 1; c <= 2; ++c) {
        In* spread = c == 1 ? cb : cr;
        spread_row(strips.chroma_row(c, (y - top) / options_.vertical), weight, options_.horizontal, padded, spread);
        fold_columns(spread, width, padded);
      }
    }
    In* grad[3];
    for (int c = 0; c < 3; ++c) {
      grad[c] = target_of(grad_image_.at(n, c, y, 0), grad_image_.dtype, grad_image_.strides[3], &buffer[c * width]);
    }
    fetch_row(grad_, n, y, bottom - top + halo);
    unconvert_row(luma, cb, cr, masks_.pixels + (n * height + y) * width, width, grad);
    for (int c = 0; c < 3; ++c) {
      store(grad[c], grad_image_.at(n, c, y, 0), grad_image_.dtype, grad_image_.strides[3], width);
    }
  }
}

void JpegBackward::table_gradient(int64_t image, double* grad) const {
  std::fill_n(grad, 128, 0.0);
  for (int64_t block = image * blocks_.per_image; block < (image + 1) * blocks_.per_image; ++block) {
    for (int i = 0; i < 128; ++i) grad[i] += partial_[block * 128 + i];
  }
}

}  // namespace fastgan
