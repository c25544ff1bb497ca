#include "pixel_loss_sweep.h"

#include <algorithm>

#include "clones.h"
#include "pixel_loss_rows.h"
#include "scratch.h"
#include "yuv_l2_sweep.h"

namespace fastgan {
namespace {

// A vector lane sums at most 256 terms, few enough for float32, and the rows of a chunk fit in the first-level cache.
constexpr int64_t kColumns = 1024;
// With neighbours a whole tile is kept, in the second-level cache, and its halo is computed twice: nearly square.
constexpr int64_t kStencilColumns = 512;
constexpr int64_t kTilePixels = 8192;
// Of Sobel's derivatives and their adjoints: a pixel's gradient depends on 5 x 5 pixels.
constexpr int64_t kHalo = 2;

FASTGAN_CLONES double penalize(PixelKind kind, const PenaltyRow<float>& row) { return penalize_any(kind, row); }
FASTGAN_CLONES double penalize(PixelKind kind, const PenaltyRow<double>& row) { return penalize_any(kind, row); }

FASTGAN_CLONES double sweep_pixels(PixelKind kind, PixelColour colour, const PixelRow<float>& row) {
  return sweep_any(kind, colour, row);
}
FASTGAN_CLONES double sweep_pixels(PixelKind kind, PixelColour colour, const PixelRow<double>& row) {
  return sweep_any(kind, colour, row);
}

int64_t quotient_up(int64_t count, int64_t size) { return (count + size - 1) / size; }

}  // namespace

// Some rows and columns of a plane. With neighbours all of it is kept, else a row at a time.
template <typename T>
class PixelTile {
 public:
  explicit PixelTile(const PixelLossSweep& sweep)
      : s_(sweep), o_(sweep.options_), lines_(sweep.rows_ + 2 * kHalo), stride_(sweep.columns_ + 2 * kHalo) {
    for (auto& buffer : buffers_) buffer = scratch<T>(stride_);
    if (!sweep.has_stencil_) {
      ones_ = scratch<T>(stride_);
      std::fill_n(ones_.get(), stride_, T(1));
      return;
    }
    values_ = scratch<T>(inputs() * lines_ * stride_);
    gradient_ = scratch<T>(sweep.outputs_ * lines_ * stride_);
    if (o_.has_tv) {
      differences_ = scratch<T>(inputs() * stride_);
      pair_slopes_ = scratch<T>(3 * sweep.outputs_ * stride_);
      image_rows_.resize(inputs() * lines_);
    }
    if (o_.has_sobel) slopes_ = scratch<T>(2 * lines_ * stride_);
  }

  FASTGAN_HOST_DEVICE void run(int64_t tile, double* sums) {
    sums_ = sums;
    const int64_t plane = tile / (s_.down_ * s_.across_), part = tile % (s_.down_ * s_.across_);
    const int64_t channels = o_.colour == PixelColour::kRgb ? s_.x_.sizes[1] : 1;
    image_ = plane / channels, channel_ = plane % channels;
    top_ = part / s_.across_ * s_.rows_, left_ = part % s_.across_ * s_.columns_;
    bottom_ = std::min(top_ + s_.rows_, s_.x_.sizes[2]), right_ = std::min(left_ + s_.columns_, s_.x_.sizes[3]);
    if (s_.has_stencil_) return run_with_neighbours();
    for (int64_t row = top_; row < bottom_; ++row) sweep_row_alone(row);
  }

 private:
  static constexpr int64_t kRight = -2;  // of pair_slopes

  void sweep_row_alone(int64_t row) {
    const ImageView& out = s_.direction_;
    PixelRow<T> pixels;
    pixels.count = right_ - left_;
    pixels.edge_gain = static_cast<T>(o_.edge_gain);
    pixels.row_ramp = has_gain() ? static_cast<T>(s_.row_ramp_[row]) : T(1);
    pixels.column_ramp = has_gain() ? column_ramp() + left_ : ones_.get();
    pixels.threshold = threshold(o_.kind);
    pixels.factor = static_cast<T>(o_.factors[0]);
    for (int64_t c = 0; c < 3; ++c) {
      const bool has_input = c < inputs();
      pixels.x[c] = has_input ? load_row(s_.x_, channel_ + c, row, left_, pixels.count, buffers_[c].get()) : nullptr;
      pixels.y[c] =
          has_input ? load_row(s_.y_, channel_ + c, row, left_, pixels.count, buffers_[3 + c].get()) : nullptr;
      pixels.weights[c] = s_.weight_.data && c < s_.outputs_
                              ? load_row(s_.weight_, channel_ + c, row, left_, pixels.count, buffers_[6 + c].get())
                              : ones_.get();
      pixels.gradient[c] = out.data && has_input ? target(channel_ + c, row, buffers_[9 + c].get()) : nullptr;
      pixels.scales[c] = static_cast<T>(scale(c));
    }
    sums_[0] += sweep_pixels(o_.kind, o_.colour, pixels);
    for (int64_t c = 0; out.data && c < inputs(); ++c)
      store(pixels.gradient[c], out.at(image_, channel_ + c, row, left_), out.dtype, out.strides[3], pixels.count);
  }

  FASTGAN_HOST_DEVICE void run_with_neighbours() {
    const int64_t last = s_.x_.sizes[2] - 1;
    if (s_.y_.data) {
      const int64_t halo = o_.has_sobel ? kHalo : 0;
      for (int64_t row = top_ - halo; row < bottom_ + halo; ++row)
        read_row(std::clamp<int64_t>(row, 0, last), row, true, halo);
      for (int64_t row = top_; row < bottom_; ++row) add_pixels(row);
      if (o_.has_sobel)
        for (int64_t k = 0; k < s_.outputs_; ++k) add_sobel(k);
    }
    for (int64_t row = top_; s_.direction_.data && row < bottom_; ++row) {
      if (s_.y_.data && has_gain()) gain_gradient(row);
      for (int64_t k = 0; !s_.y_.data && k < s_.outputs_; ++k) std::fill_n(gradient(k, row), right_ - left_, T(0));
    }
    if (o_.has_tv) {
      for (int64_t row = std::max<int64_t>(top_ - 1, 0); row < std::min(bottom_ + 1, last + 1); ++row)
        read_row(row, row, false, 1);
      add_variation();
    }
    for (int64_t row = top_; row < bottom_; ++row) write_gradient(row);
  }

  int64_t inputs() const { return o_.colour == PixelColour::kRgb ? 1 : 3; }
  bool has_gain() const { return o_.edge_gain != 0; }
  T threshold(PixelKind kind) const { return static_cast<T>(kind == PixelKind::kHuber ? o_.delta : o_.eps); }
  double scale(int64_t k) const { return o_.colour == PixelColour::kYuv ? o_.scales[k] : 1.0; }
  int64_t line(int64_t row) const { return row - top_ + kHalo; }

  // Both point at the tile's first column. The first may be read kHalo columns before and beyond the tile.
  T* values(int64_t k, int64_t row) { return &values_[(k * lines_ + line(row)) * stride_ + kHalo]; }
  T* slopes(int64_t derivative, int64_t row) { return &slopes_[(derivative * lines_ + line(row)) * stride_ + kHalo]; }

  // In RGB the output itself, where it needs no conversion.
  T* gradient(int64_t k, int64_t row) {
    T* buffer = &gradient_[(k * lines_ + line(row)) * stride_];
    return o_.colour == PixelColour::kRgb ? target(channel_, row, buffer) : buffer;
  }

  T* target(int64_t channel, int64_t row, T* buffer) {
    const ImageView& out = s_.direction_;
    return target_of(out.at(image_, channel, row, left_), out.dtype, out.strides[3], buffer);
  }

  const T* column_ramp() const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return s_.column_ramp_float_.data();
    } else {
      return s_.column_ramp_.data();
    }
  }

  // Red, green and blue become the channels that are compared.
  FASTGAN_HOST_DEVICE void convert(T* const (&rows)[3], int64_t count) {
    if (o_.colour == PixelColour::kLuma) to_colour<false>(rows[0], rows[1], rows[2], count);
    if (o_.colour == PixelColour::kYuv) to_colour<true>(rows[0], rows[1], rows[2], count);
  }

  // Reads a row of x as image_row(c, place); or of x - y, converted and with the gain, as values(k, place), repeating
  // the image's border in the halo.
  FASTGAN_HOST_DEVICE void read_row(int64_t row, int64_t place, bool is_difference, int64_t halo) {
    const int64_t begin = std::max<int64_t>(left_ - halo, 0), end = std::min(right_ + halo, s_.x_.sizes[3]);
    const int64_t count = end - begin;
    T* rows[3];
    for (int64_t c = 0; c < inputs(); ++c) {
      rows[c] = values(c, place) + (begin - left_);
      if (is_difference) {
        const T* x = load_row(s_.x_, channel_ + c, row, begin, count, buffers_[0].get());
        subtract(x, load_row(s_.y_, channel_ + c, row, begin, count, buffers_[1].get()), rows[c], count);
      } else {
        const T* x = load_row(s_.x_, channel_ + c, row, begin, count, rows[c]);
        image_rows_[c * lines_ + line(place)] = x - (begin - left_);
      }
    }
    if (!is_difference) return;
    convert(rows, count);
    for (int64_t k = 0; k < s_.outputs_; ++k) {
      if (has_gain()) apply_gain(row, begin, count, rows[k]);
      for (int64_t i = 1; i <= halo - (left_ - begin); ++i) rows[k][-i] = rows[k][0];
      for (int64_t i = 0; i < halo - (end - right_); ++i) rows[k][count + i] = rows[k][count - 1];
    }
  }

  FASTGAN_HOST_DEVICE const T* load_row(
      const ImageView& view, int64_t channel, int64_t row, int64_t column, int64_t count, T* buffer) {
    return load(view.at(image_, channel, row, column), view.dtype, view.strides[3], count, buffer);
  }

  FASTGAN_HOST_DEVICE void apply_gain(int64_t row, int64_t column, int64_t count, T* values) {
    const T* ramp = column_ramp() + column;
    const T row_ramp = static_cast<T>(s_.row_ramp_[row]), edge_gain = static_cast<T>(o_.edge_gain);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) values[i] *= 1 + edge_gain * (1 - row_ramp * ramp[i]);
  }

  FASTGAN_HOST_DEVICE void gain_gradient(int64_t row) {
    for (int64_t k = 0; k < s_.outputs_; ++k) apply_gain(row, left_, right_ - left_, gradient(k, row));
  }

  // The weighed penalties of values that belong to pixels of the image, and their slopes.
  double penalties(int term, int64_t k, int64_t row, int64_t column, int64_t count, const T* values, T* slopes) {
    const PixelKind kind = term < 2 ? o_.kind : o_.tv_kind;
    PenaltyRow<T> penalty;
    penalty.values = values;
    penalty.weights =
        s_.weight_.data
            ? load_row(s_.weight_, o_.colour == PixelColour::kRgb ? channel_ : k, row, column, count, buffers_[2].get())
            : nullptr;
    penalty.slopes = slopes;
    penalty.threshold = threshold(kind);
    penalty.factor = static_cast<T>(o_.factors[term] * scale(k));
    penalty.count = count;
    return scale(k) * penalize(kind, penalty);
  }

  FASTGAN_HOST_DEVICE void add_pixels(int64_t row) {
    for (int64_t k = 0; k < s_.outputs_; ++k) {
      T* out = s_.direction_.data ? gradient(k, row) : nullptr;
      sums_[0] += penalties(0, k, row, left_, right_ - left_, values(k, row), out);
    }
  }

  FASTGAN_HOST_DEVICE void add_sobel(int64_t k) {
    const bool has_direction = s_.direction_.data != nullptr;
    const int64_t halo = has_direction ? 1 : 0, height = s_.x_.sizes[2], width = s_.x_.sizes[3];
    const int64_t begin = std::max<int64_t>(left_ - halo, 0), end = std::min(right_ + halo, width);
    const int64_t first = std::max<int64_t>(top_ - halo, 0), last = std::min(bottom_ + halo, height) - 1;
    for (int64_t row = first; row <= last; ++row) {
      const int64_t offset = begin - left_;
      T *down = buffers_[3].get(), *right = buffers_[4].get();
      sobel(
          values(k, row - 1) + offset, values(k, row) + offset, values(k, row + 1) + offset, down, right, end - begin);
      // The tile's own pixels are summed; slopes are needed around it, too.
      const int64_t bounds[4] = {begin, left_, right_, end};
      for (int part = 0; part < 3; ++part) {
        const int64_t from = bounds[part], count = bounds[part + 1] - from;
        if (!count) continue;
        for (int derivative = 0; derivative < 2; ++derivative) {
          T* out = has_direction ? slopes(derivative, row) + (from - left_) : nullptr;
          const T* in = (derivative ? right : down) + (from - begin);
          const double sum = penalties(1, k, row, from, count, in, out);
          if (part == 1 && top_ <= row && row < bottom_) sums_[1] += sum;
        }
      }
    }
    if (!has_direction) return;
    // What a repeated border contributes to the border itself: the same again across, the opposite along a derivative.
    for (int64_t row = first; row <= last; ++row) {
      T *down = slopes(0, row), *right = slopes(1, row);
      const int64_t count = right_ - left_;
      if (left_ == 0) down[-1] = down[0], right[-1] = -right[0];
      if (right_ == width) down[count] = down[count - 1], right[count] = -right[count - 1];
    }
    if (top_ == 0) mirror_slopes(0, -1);
    if (bottom_ == height) mirror_slopes(height - 1, height);
    for (int64_t row = top_; row < bottom_; ++row) {
      add_sobel_adjoint(
          slopes(0, row - 1), slopes(0, row + 1), slopes(1, row - 1), slopes(1, row), slopes(1, row + 1),
          gradient(k, row), right_ - left_);
    }
  }

  FASTGAN_HOST_DEVICE void mirror_slopes(int64_t row, int64_t beyond) {
    for (int64_t i = -1; i <= right_ - left_; ++i) {
      slopes(0, beyond)[i] = -slopes(0, row)[i];
      slopes(1, beyond)[i] = slopes(1, row)[i];
    }
  }

  // Differences of neighbours are converted after they are taken, since those of nearly equal colours are exact before.
  FASTGAN_HOST_DEVICE void take_differences(
      int64_t row, int64_t next_row, int64_t shift, int64_t column, int64_t count, T* (&differences)[3]) {
    for (int64_t c = 0; c < inputs(); ++c) {
      differences[c] = &differences_[c * stride_];
      const int64_t offset = column - left_;
      subtract(image_row(c, next_row) + offset + shift, image_row(c, row) + offset, differences[c], count);
    }
    convert(differences, count);
  }

  FASTGAN_HOST_DEVICE void add_variation() {
    const bool has_direction = s_.direction_.data != nullptr;
    const int64_t count = right_ - left_, height = s_.x_.sizes[2], width = s_.x_.sizes[3];
    // Pairs across the upper and the left border belong to the tiles there, and have slopes here.
    const int64_t halo = has_direction ? 1 : 0, first = std::max<int64_t>(top_ - halo, 0);
    const int64_t begin = std::max<int64_t>(left_ - halo, 0), end = std::min(right_, width - 1), before = left_ - begin;
    T* differences[3];
    for (int64_t k = 0; k < s_.outputs_; ++k) {
      std::fill_n(pair_slopes(k, first - 1), count, T(0));
      std::fill_n(pair_slopes(k, kRight) - 1, count + 1, T(0));
    }
    for (int64_t row = first; row < bottom_; ++row) {
      const bool has_below = row + 1 < height;
      if (has_below) take_differences(row, row + 1, 0, left_, count, differences);
      for (int64_t k = 0; k < s_.outputs_; ++k) {
        T* slopes = pair_slopes(k, row);
        if (!has_below) {
          std::fill_n(slopes, count, T(0));
          continue;
        }
        const double sum = penalties(2, k, row, left_, count, differences[k], has_direction ? slopes : nullptr);
        if (row >= top_) sums_[2] += sum;
      }
      if (row < top_) continue;
      if (begin < end) take_differences(row, row, 1, begin, end - begin, differences);
      for (int64_t k = 0; k < s_.outputs_; ++k) {
        T* slopes = pair_slopes(k, kRight);
        if (before) (void)penalties(3, k, row, begin, before, differences[k], slopes - before);
        if (left_ < end) {
          const T* inside = differences[k] + before;
          sums_[3] += penalties(3, k, row, left_, end - left_, inside, has_direction ? slopes : nullptr);
        }
        if (has_direction)
          add_pairs(pair_slopes(k, row - 1), pair_slopes(k, row), slopes - 1, slopes, gradient(k, row), count);
      }
    }
  }

  // Of the pairs of this row and the next, or of those on the right of each pixel, of which one lies before the tile.
  T* pair_slopes(int64_t k, int64_t row) {
    const int64_t place = row == kRight ? 2 : row & 1;
    return &pair_slopes_[(3 * k + place) * stride_ + kHalo];
  }

  // As values, but where it needs no conversion that of the image itself.
  const T* image_row(int64_t c, int64_t row) const { return image_rows_[c * lines_ + line(row)]; }

  FASTGAN_HOST_DEVICE void write_gradient(int64_t row) {
    const ImageView& out = s_.direction_;
    if (!out.data) return;
    const int64_t count = right_ - left_;
    if (o_.colour == PixelColour::kRgb) {
      store(gradient(0, row), out.at(image_, channel_, row, left_), out.dtype, out.strides[3], count);
      return;
    }
    T* rgb[3];
    for (int64_t c = 0; c < 3; ++c) rgb[c] = target(c, row, buffers_[c].get());
    if (o_.colour == PixelColour::kYuv) {
      from_colour<true>(gradient(0, row), gradient(1, row), gradient(2, row), rgb[0], rgb[1], rgb[2], count);
    } else {
      from_colour<false, T>(gradient(0, row), nullptr, nullptr, rgb[0], rgb[1], rgb[2], count);
    }
    for (int64_t c = 0; c < 3; ++c) store(rgb[c], out.at(image_, c, row, left_), out.dtype, out.strides[3], count);
  }

  const PixelLossSweep& s_;
  const PixelLossOptions& o_;
  const int64_t lines_, stride_;
  Scratch<T> values_, gradient_, slopes_, differences_, pair_slopes_, buffers_[12], ones_;
  std::vector<const T*> image_rows_;
  int64_t image_ = 0, channel_ = 0, top_ = 0, bottom_ = 0, left_ = 0, right_ = 0;
  double* sums_ = nullptr;
};

namespace {

FASTGAN_CLONES void run_tile(PixelTile<float>& tile, int64_t index, double* sums) { tile.run(index, sums); }
FASTGAN_CLONES void run_tile(PixelTile<double>& tile, int64_t index, double* sums) { tile.run(index, sums); }

}  // namespace

PixelLossSweep::PixelLossSweep(
    ImageView x, ImageView y, ImageView weight, ImageView direction, PixelLossOptions options)
    : x_(x),
      y_(y),
      weight_(weight),
      direction_(direction),
      options_(options),
      has_stencil_(options.has_sobel || options.has_tv) {
  const int64_t height = x.sizes[2], width = x.sizes[3];
  const bool is_rgb = options.colour == PixelColour::kRgb;
  outputs_ = options.colour == PixelColour::kYuv ? 3 : 1;
  planes_ = x.sizes[0] * (is_rgb ? x.sizes[1] : 1);
  columns_ = std::clamp<int64_t>(width, 1, has_stencil_ ? kStencilColumns : kColumns);
  rows_ = std::clamp<int64_t>(height, 1, kTilePixels / columns_);
  down_ = quotient_up(height, rows_), across_ = quotient_up(width, columns_);
  tiles_per_block_ = std::max<int64_t>(1, kTilePixels / (rows_ * columns_));
  blocks_ = quotient_up(planes_ * down_ * across_, tiles_per_block_);
  if (options.edge_gain != 0) {  // else an image of one long row would need a longer table than itself
    row_ramp_ = border_ramps(height);
    column_ramp_ = border_ramps(width);
    column_ramp_float_.assign(column_ramp_.begin(), column_ramp_.end());
  }
  partial_sums_.assign(4 * blocks_, 0.0);
}

void PixelLossSweep::run(int64_t begin, int64_t end) {
  const bool is_double = x_.dtype == Dtype::kFloat64 || (y_.data && y_.dtype == Dtype::kFloat64);
  is_double ? run_typed<double>(begin, end) : run_typed<float>(begin, end);
}

template <typename T>
void PixelLossSweep::run_typed(int64_t begin, int64_t end) {
  PixelTile<T> tile(*this);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t last = std::min((block + 1) * tiles_per_block_, planes_ * down_ * across_);
    for (int64_t index = block * tiles_per_block_; index < last; ++index)
      run_tile(tile, index, &partial_sums_[4 * block]);
  }
}

void PixelLossSweep::sums(double (&sums)[4]) const {
  for (int term = 0; term < 4; ++term) {
    sums[term] = 0;
    for (int64_t block = 0; block < blocks_; ++block) sums[term] += partial_sums_[4 * block + term];
  }
}

}  // namespace fastgan
