#include "jpeg_strips.h"

namespace fastgan {
namespace {

// The gradient of one row of RGB in grey levels, where the clamps let it pass, as that of luma and upsampled chroma.
template <typename In>
FASTGAN_CLONES void unmerge_row(const In* const* grad, const uint8_t* mask, int64_t count, In* y, In* cb, In* cr) {
  const In *red = grad[0], *green = grad[1], *blue = grad[2];
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = mask[i];
    const RGB<In> passed = {bits & 8 ? red[i] : In(0), bits & 16 ? green[i] : In(0), bits & 32 ? blue[i] : In(0)};
    const YCbCr<In> sample = to_rgb_transposed(passed);
    y[i] = bits & kMaskLuma ? sample.y : In(0);
    cb[i] = sample.cb;
    cr[i] = sample.cr;
  }
}

// `row` has room for one value on either side, which are set: the edges' samples count twice.
template <typename In>
FASTGAN_CLONES void downsample_triangle(In* row, int64_t count, In* chroma) {
  row[-1] = row[0];
  row[2 * count] = row[2 * count - 1];
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

// chroma = (sum of weight_r row_r) where the mask has the bit, else 0.
template <typename In>
FASTGAN_CLONES void combine_rows(
    const In* const* rows, const In* weights, int64_t rows_count, int64_t count, const uint8_t* mask, uint8_t bit,
    In* chroma) {
  std::fill_n(chroma, count, In(0));
  for (int64_t r = 0; r < rows_count; ++r) {
    const In* row = rows[r];
    const In weight = weights[r];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) chroma[i] += weight * row[i];
  }
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) chroma[i] = mask[i] & bit ? chroma[i] : In(0);
}

// wide[x] += weight chroma[x / horizontal]
template <typename In>
FASTGAN_CLONES void spread_row(const In* chroma, In weight, int horizontal, int64_t count, In* wide) {
  if (horizontal == 1) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) wide[i] += weight * chroma[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < count / 2; ++i) {
      wide[2 * i] += weight * chroma[i];
      wide[2 * i + 1] += weight * chroma[i];
    }
  }
}

template <typename In>
FASTGAN_CLONES void add_row(const In* row, int64_t count, In* sum) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) sum[i] += row[i];
}

template <typename In>
FASTGAN_CLONES void unconvert_row(
    const In* y, const In* cb, const In* cr, const uint8_t* mask, int64_t count, In* const* grad) {
  In *red = grad[0], *green = grad[1], *blue = grad[2];
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = mask[i];
    const RGB<In> pixel = to_ycbcr_transposed(YCbCr<In>{y[i], cb[i], cr[i]});
    red[i] = bits & 1 ? pixel.red : In(0);
    green[i] = bits & 2 ? pixel.green : In(0);
    blue[i] = bits & 4 ? pixel.blue : In(0);
  }
}

// The gradient of 16 blocks through quantization, in place, and of the table (64 sums, or null).
template <Rounding kRounding, typename S, typename In>
FASTGAN_CLONES void backward_blocks(
    const S* samples, In* grads, int64_t stride, const BlockTable<S>& table, const S (*noise)[kLanes],
    double* grad_table) {
  alignas(64) S lanes[64][kLanes];
  alignas(64) In grad_lanes[64][kLanes];
  forward_rows(samples, stride, lanes);
  forward_rows(grads, stride, grad_lanes);
  for (int64_t column = 0; column < 8; ++column) {
    alignas(64) In of_steps[8][kLanes];
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
        const In quotient = static_cast<In>(v[k]) / static_cast<In>(8 * table.steps[at]);
        In level, slope = 1;
        if constexpr (IsExact<S>::value) {
          level = static_cast<In>(quantize(v[k], table.steps[at], table.reciprocals[at]));
        } else {
          level = surrogate<kRounding>(quotient, noise ? noise[at][i] : S(0));
          slope = surrogate_slope<kRounding>(quotient);
        }
        const In grad = g[k] * In(0.125);
        // Images are in [0, 1], steps in grey levels.
        of_steps[k][i] = grad * (level - slope * quotient) * In(1.0 / 255);
        g[k] = grad * slope;
      }
      inverse_dct<0>(g);
      for (int k = 0; k < 8; ++k) grad_lanes[8 * k + column][i] = g[k];
    }
    for (int k = 0; grad_table && k < 8; ++k) {
      double sum = 0;
      for (int64_t i = 0; i < kLanes; ++i) sum += of_steps[k][i];
      grad_table[8 * k + column] += sum;
    }
  }
  // Straight through, the transform and its inverse cancel: the gradient is left as it is.
  if (!IsExact<S>::value) inverse_rows(grad_lanes, grads, stride);
}

}  // namespace

bool JpegBackward::needs_image(const JpegOptions& options, bool grad_tables) {
  return grad_tables || (options.rounding != Rounding::kStraightThrough && options.rounding != Rounding::kNone &&
                         options.rounding != Rounding::kNoise);
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
  const bool smooth_columns = sizes_.fancy && options_.vertical == 2;
  Strips<In> strips(sizes_, work.rows);

  // 1. Back through the colour matrix and along the rows of upsampled chroma; where chroma is smoothed down the
  // columns, one row more on either side.
  const int64_t halo = smooth_columns ? 1 : 0, stride = sizes_.chroma_stride;
  std::vector<In> narrow((rows + 2 * halo) * 2 * stride, In(0));
  const auto narrow_row = [&](int64_t y, int c) { return &narrow[((y - top + halo) * 2 + c - 1) * stride]; };
  {
    std::vector<In> buffer(3 * width), wide(2 * (sizes_.luma_stride + 2), In(0)), outside(width);
    for (int64_t y = std::max<int64_t>(top - halo, 0); y < std::min(top + rows + halo, height); ++y) {
      const In* grad[3];
      for (int c = 0; c < 3; ++c) {
        grad[c] = load(grad_.at(n, c, y, 0), grad_.dtype, grad_.strides[3], width, &buffer[c * width]);
      }
      In *cb = &wide[1], *cr = cb + sizes_.luma_stride + 2;
      In* luma = y >= top && y < top + rows ? strips.luma_row(y - top) : outside.data();
      unmerge_row(grad, masks_.pixels + (n * height + y) * width, width, luma, cb, cr);
      if (width < 2 * sizes_.chroma_width) cb[width] = cr[width] = 0;
      for (int c = 1; c <= 2; ++c) {
        In* row = c == 1 ? cb : cr;
        if (options_.horizontal == 1) {
          std::copy_n(row, width, narrow_row(y, c));
        } else if (sizes_.fancy) {
          downsample_triangle(row, sizes_.chroma_width, narrow_row(y, c));
        } else {
          add_pairs(row, sizes_.chroma_width, narrow_row(y, c));
        }
      }
    }
  }

  // 2. Down the columns of upsampled chroma.
  for (int64_t row = 0; row < 8 * work.rows; ++row) {
    const int64_t y = 8 * work.first + row;
    if (y >= sizes_.chroma_height) break;
    const uint8_t* mask = masks_.chroma + (n * sizes_.chroma_height + y) * sizes_.chroma_width;
    for (int c = 1; c <= 2; ++c) {
      const In* parts[4] = {narrow_row(options_.vertical * y, c)};
      In weights[4] = {1, 1, 0, 0};
      int64_t count = options_.vertical;
      if (options_.vertical == 2) parts[1] = narrow_row(2 * y + 1, c);
      if (smooth_columns) {
        parts[2] = y == 0 ? parts[0] : narrow_row(2 * y - 1, c);
        parts[3] = y == sizes_.chroma_height - 1 ? parts[1] : narrow_row(2 * y + 2, c);
        weights[0] = weights[1] = In(0.75);
        weights[2] = weights[3] = In(0.25);
        count = 4;
      }
      combine_rows(
          parts, weights, count, sizes_.chroma_width, mask, c == 1 ? kMaskCb : kMaskCr, strips.chroma_row(c, row));
    }
  }

  // 3. Through the quantization.
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

  // 4. Chroma subsampling and the colour matrix. What fell on repeated rows and columns belongs to the last real one.
  const int64_t last_chroma = sizes_.chroma_height - 1 - 8 * work.first;
  for (int64_t row = last_chroma + 1; row < 8 * work.rows; ++row) {
    for (int c = 1; c <= 2; ++c) add_row(strips.chroma_row(c, row), stride, strips.chroma_row(c, last_chroma));
  }
  const In weight = In(1) / In(options_.horizontal * options_.vertical);
  std::vector<In> sums(3 * sizes_.luma_stride), buffer(3 * width);
  const int64_t bottom = std::min(top + rows, height);
  for (int64_t y = top; y < bottom; ++y) {
    std::fill(sums.begin(), sums.end(), In(0));
    for (int64_t part = y; part < (y == height - 1 ? top + rows : y + 1); ++part) {
      add_row(strips.luma_row(part - top), sizes_.luma_stride, sums.data());
      for (int c = 1; c <= 2 && part / options_.vertical < sizes_.chroma_height; ++c) {
        const In* chroma = strips.chroma_row(c, (part - top) / options_.vertical);
        spread_row(chroma, weight, options_.horizontal, sizes_.luma_stride, &sums[c * sizes_.luma_stride]);
      }
    }
    In* grad[3];
    for (int c = 0; c < 3; ++c) {
      In* row = &sums[c * sizes_.luma_stride];
      for (int64_t x = width; x < sizes_.luma_stride; ++x) row[width - 1] += row[x];
      grad[c] = target_of(grad_image_.at(n, c, y, 0), grad_image_.dtype, grad_image_.strides[3], &buffer[c * width]);
    }
    const In *luma = sums.data(), *cb = luma + sizes_.luma_stride, *cr = cb + sizes_.luma_stride;
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
