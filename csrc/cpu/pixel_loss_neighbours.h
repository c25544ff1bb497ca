#pragma once

#include "pixel_loss_tile.h"

namespace fastgan {

// Some rows and columns of a plane whose pixels also count with their neighbours. Rows are computed one after another,
// and of each kind only those that the next one needs are kept, so that all stay in the first-level cache.
template <typename T>
class NeighbourTile : PixelTile<T> {
  using Base = PixelTile<T>;
  using Base::bottom_, Base::buffers_, Base::channel_, Base::image_, Base::kHalo, Base::left_, Base::o_, Base::right_;
  using Base::column_ramp, Base::has_direction, Base::has_gain, Base::inputs, Base::is_rgb, Base::load_row, Base::scale;
  using Base::s_, Base::stride_, Base::sums_, Base::target, Base::threshold, Base::top_;

 public:
  explicit NeighbourTile(const PixelLossSweep& sweep) : Base(sweep) {
    if (!is_rgb()) gradient_ = scratch<T>(sweep.outputs_ * stride_);
    if (has_values()) values_ = scratch<T>(kKept * inputs() * stride_);
    if (o_.has_sobel) slopes_ = scratch<T>(2 * kKept * sweep.outputs_ * stride_);
    if (!o_.has_tv) return;
    pixels_ = scratch<T>(kKept * inputs() * stride_);
    left_counts_ = scratch<T>(stride_), right_counts_ = scratch<T>(stride_);
    if (is_rgb()) return;
    differences_ = scratch<T>(inputs() * stride_);
    pair_slopes_ = scratch<T>(3 * sweep.outputs_ * stride_);
  }

  void run(int64_t tile, double* sums) {
    this->begin(tile, sums);
    const int64_t height = s_.x_.sizes[2], halo = o_.has_sobel ? kHalo : 0;
    if (o_.has_tv) {
      count_neighbours();
      for (int64_t row = std::max<int64_t>(top_ - 1, 0); row <= top_; ++row) read_pixels(row);
    }
    for (int64_t row = top_ - halo; row < bottom_ + halo; ++row) {
      if (has_values()) read_difference(std::clamp<int64_t>(row, 0, height - 1), row);
      if (o_.has_sobel) add_derivatives(row - 1);
      if (row - halo >= top_) finish_row(row - halo);
    }
  }

 private:
  static constexpr int64_t kKept = 3;
  static constexpr int64_t kRight = -2;  // of pair_slopes

  // Without derivatives, RGB's differences need not be kept.
  bool has_values() const { return s_.y_.data && (o_.has_sobel || !is_rgb()); }

  static int64_t place(int64_t row) { return (row + kKept) % kKept; }

  // These point at the tile's first column. The first two may be read kHalo columns before and beyond the tile.
  T* values(int64_t k, int64_t row) { return &values_[(k * kKept + place(row)) * stride_ + kHalo]; }
  T* slopes(int64_t k, int64_t derivative, int64_t row) {
    return &slopes_[((2 * k + derivative) * kKept + place(row)) * stride_ + kHalo];
  }
  // Of the channels that are compared; in RGB this is the gradient's target.
  T* gradient(int64_t k, int64_t row) { return is_rgb() ? target(0, row) : &gradient_[k * stride_]; }
  // Of x. One column before and beyond the tile may be read.
  T* pixel_row(int64_t c, int64_t row) { return &pixels_[(c * kKept + place(row)) * stride_ + kHalo]; }
  // Of the pairs of this row and the next, or of those on the right of each pixel, of which one lies before the tile.
  T* pair_slopes(int64_t k, int64_t row) {
    return &pair_slopes_[(3 * k + (row == kRight ? 2 : row & 1)) * stride_ + kHalo];
  }

  void read_pixels(int64_t row) {
    for (int64_t c = 0; c < inputs(); ++c) read_padded(s_.x_, c, row, pixel_row(c, row));
  }

  // Copies a row with one column before and beyond the tile; where the image has none, with any value.
  const T* read_padded(const ImageView& view, int64_t c, int64_t row, T* target) {
    const int64_t begin = std::max<int64_t>(left_ - 1, 0), end = std::min(right_ + 1, view.sizes[3]);
    T* first = target + (begin - left_);
    const T* source = load_row(view, channel_ + c, row, begin, end - begin, first);
    if (source != first) std::copy_n(source, end - begin, first);
    if (left_ == 0) target[-1] = T(0);
    if (right_ == view.sizes[3]) target[right_ - left_] = T(0);
    return target;
  }

  // Of the neighbours on the left and on the right of each pixel.
  void count_neighbours() {
    const int64_t count = right_ - left_;
    std::fill_n(left_counts_.get(), count, T(1));
    std::fill_n(right_counts_.get(), count, T(1));
    if (left_ == 0) left_counts_[0] = T(0);
    if (right_ == s_.x_.sizes[3]) right_counts_[count - 1] = T(0);
  }

  // X - y, converted and with the gain; the halo repeats the image's border.
  void read_difference(int64_t row, int64_t slot) {
    const int64_t halo = o_.has_sobel ? kHalo : 0;
    const int64_t begin = std::max<int64_t>(left_ - halo, 0), end = std::min(right_ + halo, s_.x_.sizes[3]);
    const int64_t count = end - begin;
    T* rows[3] = {};
    for (int64_t c = 0; c < inputs(); ++c) {
      rows[c] = values(c, slot) + (begin - left_);
      const T* x = load_row(s_.x_, channel_ + c, row, begin, count, buffers_[0].get());
      subtract(x, load_row(s_.y_, channel_ + c, row, begin, count, buffers_[1].get()), count, rows[c]);
    }
    to_colour(o_.colour, rows, count);
    for (int64_t k = 0; k < s_.outputs_; ++k) {
      if (has_gain()) add_gain(row, begin, count, rows[k]);
      for (int64_t i = 1; i <= halo - (left_ - begin); ++i) rows[k][-i] = rows[k][0];
      for (int64_t i = 0; i < halo - (end - right_); ++i) rows[k][count + i] = rows[k][count - 1];
    }
  }

  void add_gain(int64_t row, int64_t column, int64_t count, T* values) {
    apply_gain(static_cast<T>(o_.edge_gain), static_cast<T>(s_.row_ramp_[row]), column_ramp() + column, count, values);
  }

  const T* weights(int64_t k, int64_t row, int64_t column, int64_t count, T* buffer) {
    return s_.weight_.data ? load_row(s_.weight_, is_rgb() ? channel_ : k, row, column, count, buffer) : nullptr;
  }

  T factor(int term, int64_t k) const { return static_cast<T>(o_.factors[term] * scale(k)); }

  // The weighed penalties of values that belong to pixels of the image, and their slopes.
  double penalties(int term, int64_t k, int64_t row, int64_t column, int64_t count, const T* values, T* slopes) {
    const PixelKind kind = term == 0 ? o_.kind : o_.tv_kind;
    PenaltyRow<T> penalty;
    penalty.values = values;
    penalty.weights = weights(k, row, column, count, buffers_[2].get());
    penalty.slopes = slopes;
    penalty.threshold = threshold(kind);
    penalty.factor = factor(term, k);
    penalty.count = count;
    return scale(k) * penalize(kind, penalty);
  }

  // Sobel's derivatives of a row, if its pixels have slopes that the tile's gradient needs.
  void add_derivatives(int64_t row) {
    const int64_t height = s_.x_.sizes[2], width = s_.x_.sizes[3], halo = has_direction() ? 1 : 0;
    if (row < top_ - halo || row >= bottom_ + halo || row < 0) return;
    for (int64_t k = 0; k < s_.outputs_; ++k) {
      if (row == height) {
        mirror_slopes(k, height - 1, height);
        continue;
      }
      // The tile's own pixels are summed; slopes are needed around it, too.
      const bool is_inside = top_ <= row && row < bottom_;
      const double own = derivatives(k, row, left_, right_);
      if (is_inside) sums_[1] += own;
      if (!has_direction()) continue;
      if (left_ > 0) derivatives(k, row, left_ - 1, left_);
      if (right_ < width) derivatives(k, row, right_, right_ + 1);
      // Pixels beyond the image repeat the border's, so the border pixel also gets the gradient of its copies. With
      // slopes mirrored about the border the adjoint adds just that: of equal sign where a derivative smooths across
      // the border, of opposite sign where it takes the difference.
      T *down = slopes(k, 0, row), *right = slopes(k, 1, row);
      const int64_t count = right_ - left_;
      if (left_ == 0) down[-1] = down[0], right[-1] = -right[0];
      if (right_ == width) down[count] = down[count - 1], right[count] = -right[count - 1];
      if (row == 0) mirror_slopes(k, 0, -1);
    }
  }

  double derivatives(int64_t k, int64_t row, int64_t begin, int64_t end) {
    const int64_t offset = begin - left_;
    SobelRow<T> sobel;
    sobel.above = values(k, row - 1) + offset;
    sobel.at = values(k, row) + offset;
    sobel.below = values(k, row + 1) + offset;
    sobel.weights = weights(k, row, begin, end - begin, buffers_[2].get());
    sobel.down = has_direction() ? slopes(k, 0, row) + offset : nullptr;
    sobel.right = has_direction() ? slopes(k, 1, row) + offset : nullptr;
    sobel.threshold = threshold(o_.kind);
    sobel.factor = factor(1, k);
    sobel.count = end - begin;
    return scale(k) * sweep_sobel(o_.kind, sobel);
  }

  void mirror_slopes(int64_t k, int64_t row, int64_t beyond) {
    for (int64_t i = -1; i <= right_ - left_; ++i) {
      slopes(k, 0, beyond)[i] = -slopes(k, 0, row)[i];
      slopes(k, 1, beyond)[i] = slopes(k, 1, row)[i];
    }
  }

  void finish_row(int64_t row) {
    const int64_t count = right_ - left_;
    for (int64_t k = 0; has_values() && k < s_.outputs_; ++k)
      sums_[0] += penalties(0, k, row, left_, count, values(k, row), has_direction() ? gradient(k, row) : nullptr);
    if (s_.y_.data && !has_values()) this->sweep_row(row);
    for (int64_t k = 0; has_direction() && k < s_.outputs_; ++k) {
      if (!s_.y_.data) std::fill_n(gradient(k, row), count, T(0));
      if (o_.has_sobel) {
        add_sobel_adjoint(
            {slopes(k, 0, row - 1), slopes(k, 0, row + 1), slopes(k, 1, row - 1), slopes(k, 1, row),
             slopes(k, 1, row + 1)},
            count, gradient(k, row));
      }
      if (has_values() && has_gain()) add_gain(row, left_, count, gradient(k, row));
    }
    if (o_.has_tv) {
      if (row + 1 < s_.x_.sizes[2]) read_pixels(row + 1);
      if (is_rgb()) {
        add_pairs_of_pixels(row);
      } else {
        add_pairs_of_colours(row);
      }
    }
    if (!has_direction()) return;
    if (!is_rgb()) {
      const T* rows[3] = {
          gradient(0, row), s_.outputs_ == 3 ? gradient(1, row) : nullptr,
          s_.outputs_ == 3 ? gradient(2, row) : nullptr};
      T* const rgb[3] = {target(0, row), target(1, row), target(2, row)};
      from_colour(o_.colour, rows, count, rgb);
    }
    this->write(row);
  }

  void add_pairs_of_pixels(int64_t row) {
    const int64_t count = right_ - left_;
    PairRow<T> pairs;
    pairs.above_count = row > 0, pairs.below_count = row + 1 < s_.x_.sizes[2];
    pairs.at = pixel_row(0, row);
    pairs.above = row > 0 ? pixel_row(0, row - 1) : pairs.at;
    pairs.below = row + 1 < s_.x_.sizes[2] ? pixel_row(0, row + 1) : pairs.at;
    pairs.left_counts = left_counts_.get(), pairs.right_counts = right_counts_.get();
    pairs.weights = pairs.weights_above = nullptr;
    if (s_.weight_.data) {
      pairs.weights = read_padded(s_.weight_, 0, row, &buffers_[2][kHalo]);
      pairs.weights_above = row > 0 ? weights(0, row - 1, left_, count, buffers_[3].get()) : pairs.weights;
    }
    pairs.gradient = has_direction() ? gradient(0, row) : nullptr;
    pairs.threshold = threshold(o_.tv_kind);
    pairs.down_factor = factor(2, 0), pairs.right_factor = factor(3, 0);
    pairs.count = count;
    const PairSums<T> sums = sweep_pairs(o_.tv_kind, pairs);
    sums_[2] += sums.down;
    sums_[3] += sums.right;
  }

  // Differences of neighbours are converted after they are taken, since those of nearly equal colours are exact before.
  void take_differences(
      int64_t row, int64_t next_row, int64_t shift, int64_t column, int64_t count, T* (&differences)[3]) {
    const int64_t offset = column - left_;
    for (int64_t c = 0; c < inputs(); ++c) {
      differences[c] = &differences_[c * stride_];
      subtract(pixel_row(c, next_row) + offset + shift, pixel_row(c, row) + offset, count, differences[c]);
    }
    to_colour(o_.colour, differences, count);
  }

  // Pairs with the row below. Those across the tile's upper border are summed there, and have slopes here.
  void pair_with_below(int64_t row) {
    const int64_t count = right_ - left_;
    const bool has_pairs = row >= 0 && row + 1 < s_.x_.sizes[2];
    T* differences[3];
    if (has_pairs) take_differences(row, row + 1, 0, left_, count, differences);
    for (int64_t k = 0; k < s_.outputs_; ++k) {
      T* slopes = pair_slopes(k, row);
      if (!has_pairs) {
        std::fill_n(slopes, count, T(0));
        continue;
      }
      const double sum = penalties(2, k, row, left_, count, differences[k], has_direction() ? slopes : nullptr);
      if (row >= top_) sums_[2] += sum;
    }
  }

  void add_pairs_of_colours(int64_t row) {
    const int64_t count = right_ - left_, width = s_.x_.sizes[3];
    if (row == top_ && has_direction()) pair_with_below(row - 1);
    pair_with_below(row);
    // As above, for the left border.
    const int64_t begin = std::max<int64_t>(left_ - (has_direction() ? 1 : 0), 0), before = left_ - begin;
    const int64_t end = std::min(right_, width - 1);
    T* differences[3];
    if (begin < end) take_differences(row, row, 1, begin, end - begin, differences);
    for (int64_t k = 0; k < s_.outputs_; ++k) {
      T* slopes = pair_slopes(k, kRight);
      slopes[-1] = 0, slopes[count - 1] = 0;
      if (before) (void)penalties(3, k, row, begin, before, differences[k], slopes - before);
      if (left_ < end) {
        const T* inside = differences[k] + before;
        sums_[3] += penalties(3, k, row, left_, end - left_, inside, has_direction() ? slopes : nullptr);
      }
      if (has_direction())
        add_pairs(pair_slopes(k, row - 1), pair_slopes(k, row), slopes - 1, slopes, count, gradient(k, row));
    }
  }

  Scratch<T> values_, slopes_, gradient_, pixels_, left_counts_, right_counts_, differences_, pair_slopes_;
};

}  // namespace fastgan
