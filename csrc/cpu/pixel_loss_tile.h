#pragma once

#include <algorithm>
#include <cstdint>

#include "pixel_loss_rows.h"
#include "pixel_loss_sweep.h"
#include "scratch.h"

namespace fastgan {

// Some rows and columns of a plane, of which each pixel counts alone.
template <typename T>
class PixelTile {
 public:
  explicit PixelTile(const PixelLossSweep& sweep) : s_(sweep), o_(sweep.options_), stride_(sweep.columns_ + 2 * kHalo) {
    for (auto& buffer : buffers_) buffer = scratch<T>(stride_);
    ones_ = scratch<T>(stride_);
    std::fill_n(ones_.get(), stride_, T(1));
  }

  void run(int64_t tile, double* sums) {
    begin(tile, sums);
    for (int64_t row = top_; row < bottom_; ++row) {
      sweep_row(row);
      write(row);
    }
  }

 protected:
  // Of Sobel's derivatives and their adjoints: a pixel's gradient depends on 5 x 5 pixels.
  static constexpr int64_t kHalo = 2;

  void begin(int64_t tile, double* sums) {
    sums_ = sums;
    const int64_t plane = tile / (s_.down_ * s_.across_), part = tile % (s_.down_ * s_.across_);
    const int64_t channels = is_rgb() ? s_.x_.sizes[1] : 1;
    image_ = plane / channels, channel_ = plane % channels;
    top_ = part / s_.across_ * s_.rows_, left_ = part % s_.across_ * s_.columns_;
    bottom_ = std::min(top_ + s_.rows_, s_.x_.sizes[2]), right_ = std::min(left_ + s_.columns_, s_.x_.sizes[3]);
  }

  // The penalties of x - y, and their slopes in the rows of `target`.
  void sweep_row(int64_t row) {
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
      pixels.gradient[c] = has_direction() && has_input ? target(c, row) : nullptr;
      pixels.scales[c] = static_cast<T>(scale(c));
    }
    sums_[0] += sweep_pixels(o_.kind, o_.colour, pixels);
  }

  // Where the gradient of an input's row is gathered: the output itself, where it needs no conversion.
  T* target(int64_t c, int64_t row) {
    const ImageView& out = s_.direction_;
    return target_of(out.at(image_, channel_ + c, row, left_), out.dtype, out.strides[3], buffers_[9 + c].get());
  }

  void write(int64_t row) {
    const ImageView& out = s_.direction_;
    for (int64_t c = 0; has_direction() && c < inputs(); ++c)
      store(target(c, row), out.at(image_, channel_ + c, row, left_), out.dtype, out.strides[3], right_ - left_);
  }

  const T* load_row(const ImageView& view, int64_t channel, int64_t row, int64_t column, int64_t count, T* buffer) {
    return load(view.at(image_, channel, row, column), view.dtype, view.strides[3], count, buffer);
  }

  bool is_rgb() const { return o_.colour == PixelColour::kRgb; }
  int64_t inputs() const { return is_rgb() ? 1 : 3; }
  bool has_gain() const { return o_.edge_gain != 0; }
  bool has_direction() const { return s_.direction_.data != nullptr; }
  T threshold(PixelKind kind) const { return static_cast<T>(kind == PixelKind::kHuber ? o_.delta : o_.eps); }
  double scale(int64_t k) const { return o_.colour == PixelColour::kYuv ? o_.scales[k] : 1.0; }

  const T* column_ramp() const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return s_.column_ramp_float_.data();
    } else {
      return s_.column_ramp_.data();
    }
  }

  const PixelLossSweep& s_;
  const PixelLossOptions& o_;
  const int64_t stride_;  // of buffers for a row
  Scratch<T> buffers_[12], ones_;
  int64_t image_ = 0, channel_ = 0, top_ = 0, bottom_ = 0, left_ = 0, right_ = 0;
  double* sums_ = nullptr;
};

}  // namespace fastgan
