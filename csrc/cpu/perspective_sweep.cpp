#include "perspective_sweep.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "../math/half.h"
#include "clones.h"

namespace fastgan {
namespace {

constexpr int64_t kChunk = 256;
// Output rows per forward block.
constexpr int64_t kRows = 16;
// Elements of a backward block's band: its two buffers of sums fit in the second-level cache.
constexpr int64_t kBandElements = 1 << 15;

// The four source pixels of each output pixel in a chunk of one row: offsets from a plane's first element, and weights.
template <typename T>
struct Taps {
  alignas(64) int32_t offsets[4][kChunk];
  alignas(64) T weights[4][kChunk];
};

// The part of a plane that is sampled, and its strides in elements. Taps outside of it have weight zero.
struct Window {
  int32_t width, row_begin, row_end;
  int32_t row_stride, column_stride;
};

// The taps of a matrix that contains NaN: where its pixels sample is undefined, so that each reads, and scatters, NaN
// at its own position.
template <typename T>
void nan_taps(int64_t x_begin, int64_t y, int64_t count, const Window& window, Taps<T>& taps) {
  const bool inside = y >= window.row_begin && y < window.row_end;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = inside ? y - window.row_begin : 0;
    const int64_t offset = row * window.row_stride + (x_begin + i) * window.column_stride;
    for (int tap = 0; tap < 4; ++tap) {
      taps.offsets[tap][i] = static_cast<int32_t>(offset);
      taps.weights[tap][i] = inside && tap == 0 ? T(NAN) : T(0);
    }
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void find_taps(
    const Homography& homography, int64_t x_begin, int64_t y, int64_t count, const Window& window, Taps<T>& taps) {
  const Homography h = homography;
  const Window w = window;
  const double y_double = static_cast<double>(y);
  const int32_t first = static_cast<int32_t>(x_begin);
  int32_t *offset0 = taps.offsets[0], *offset1 = taps.offsets[1], *offset2 = taps.offsets[2],
          *offset3 = taps.offsets[3];
  T *weight0 = taps.weights[0], *weight1 = taps.weights[1], *weight2 = taps.weights[2], *weight3 = taps.weights[3];
#pragma omp simd
  for (int32_t i = 0; i < static_cast<int32_t>(count); ++i) {
    const double x = static_cast<double>(first + i);
    const auto column = axis_taps<T, int32_t>(h.column(x, y_double), 0, w.width);
    const auto row = axis_taps<T, int32_t>(h.row(x, y_double), w.row_begin, w.row_end);
    const int32_t left = column.first * w.column_stride, right = column.second * w.column_stride;
    const int32_t above = (row.first - w.row_begin) * w.row_stride, below = (row.second - w.row_begin) * w.row_stride;
    offset0[i] = above + left;
    offset1[i] = above + right;
    offset2[i] = below + left;
    offset3[i] = below + right;
    weight0[i] = row.first_weight * column.first_weight;
    weight1[i] = row.first_weight * column.second_weight;
    weight2[i] = row.second_weight * column.first_weight;
    weight3[i] = row.second_weight * column.second_weight;
  }
}

FASTGAN_CLONES void bilinear_taps(
    const Homography& h, int64_t x_begin, int64_t y, int64_t count, const Window& window, Taps<float>& taps) {
  find_taps(h, x_begin, y, count, window, taps);
}
FASTGAN_CLONES void bilinear_taps(
    const Homography& h, int64_t x_begin, int64_t y, int64_t count, const Window& window, Taps<double>& taps) {
  find_taps(h, x_begin, y, count, window, taps);
}

template <typename T>
void taps_of(const Homography& h, int64_t x_begin, int64_t y, int64_t count, const Window& window, Taps<T>& taps) {
  h.is_nan() ? nan_taps(x_begin, y, count, window, taps) : bilinear_taps(h, x_begin, y, count, window, taps);
}

FASTGAN_HOST_DEVICE float to_number(float value) { return value; }
FASTGAN_HOST_DEVICE double to_number(double value) { return value; }
FASTGAN_HOST_DEVICE float to_number(Float16 value) { return to_float(value); }
FASTGAN_HOST_DEVICE float to_number(BFloat16 value) { return to_float(value); }

// Without the test, a pixel of weight zero that is NaN would make the sum NaN.
template <typename T>
FASTGAN_HOST_DEVICE T weighted(T weight, T value) {
  return weight != 0 ? weight * value : T(0);
}

template <typename T, typename S>
FASTGAN_HOST_DEVICE void gather_row(const S* source, const Taps<T>& taps, int64_t count, T* result) {
  const int32_t *offset0 = taps.offsets[0], *offset1 = taps.offsets[1], *offset2 = taps.offsets[2];
  const int32_t* offset3 = taps.offsets[3];
  const T *weight0 = taps.weights[0], *weight1 = taps.weights[1], *weight2 = taps.weights[2];
  const T* weight3 = taps.weights[3];
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T value0 = to_number(source[offset0[i]]), value1 = to_number(source[offset1[i]]);
    const T value2 = to_number(source[offset2[i]]), value3 = to_number(source[offset3[i]]);
    const T above = weighted(weight0[i], value0) + weighted(weight1[i], value1);
    result[i] = above + (weighted(weight2[i], value2) + weighted(weight3[i], value3));
  }
}

FASTGAN_CLONES void gather(const float* source, const Taps<float>& taps, int64_t count, float* result) {
  gather_row(source, taps, count, result);
}
FASTGAN_CLONES void gather(const double* source, const Taps<double>& taps, int64_t count, double* result) {
  gather_row(source, taps, count, result);
}
void gather(const Float16* source, const Taps<float>& taps, int64_t count, float* result) {
  gather_row(source, taps, count, result);
}
void gather(const BFloat16* source, const Taps<float>& taps, int64_t count, float* result) {
  gather_row(source, taps, count, result);
}

// result += (1 - the sum of weights) fill. Well inside the image the sum differs from 1 by rounding alone.
template <typename T>
void add_fill(const Taps<T>& taps, const T* fill, int64_t count, T* result) {
  for (int64_t i = 0; i < count; ++i) {
    const T outside = 1 - ((taps.weights[0][i] + taps.weights[1][i]) + (taps.weights[2][i] + taps.weights[3][i]));
    if (outside > 8 * std::numeric_limits<T>::epsilon()) result[i] += outside * fill[i];
  }
}

// Left and right taps have separate sums: one pixel's right tap is mostly the next one's left tap, and adding to an
// element that has just been written would stall.
template <typename T>
void scatter_row(const Taps<T>& taps, const T* grad, int64_t count, T* left, T* right) {
  for (int64_t i = 0; i < count; ++i) {
    left[taps.offsets[0][i]] += weighted(taps.weights[0][i], grad[i]);
    right[taps.offsets[1][i]] += weighted(taps.weights[1][i], grad[i]);
    left[taps.offsets[2][i]] += weighted(taps.weights[2][i], grad[i]);
    right[taps.offsets[3][i]] += weighted(taps.weights[3][i], grad[i]);
  }
}

struct ColumnRange {
  int64_t begin, end;
};

// The columns of output row y that may sample the input rows [row_begin, row_end). Where the scale does not change its
// sign, the input row is monotonic along the output row, so that two binary searches find them.
ColumnRange columns_that_touch(const Homography& h, int64_t y, int64_t width, int64_t row_begin, int64_t row_end) {
  if (h.is_nan()) return {0, width};
  const double left = h.scale(0, double(y)), right = h.scale(double(width - 1), double(y));
  if (!(left * right > 0)) return {0, width};
  const double low = double(row_begin) - 1, high = double(row_end);
  const double from = h.row(0, double(y)), to = h.row(double(width - 1), double(y));
  if (std::max(from, to) < low - 1 || std::min(from, to) > high + 1) return {0, 0};
  const bool rising = from <= to;
  const auto first_column = [&](auto&& passed) {
    int64_t begin = 0, end = width;
    while (begin < end) {
      const int64_t middle = (begin + end) / 2;
      passed(h.row(double(middle), double(y))) ? end = middle : begin = middle + 1;
    }
    return begin;
  };
  ColumnRange range;
  if (rising) {
    range = {
        first_column([&](double row) { return row >= low; }), first_column([&](double row) { return row > high; })};
  } else {
    range = {
        first_column([&](double row) { return row <= high; }), first_column([&](double row) { return row < low; })};
  }
  // One more on either side, because of rounding.
  return {std::max<int64_t>(range.begin - 1, 0), std::min(range.end + 1, width)};
}

}  // namespace

WarpForward::WarpForward(ImageView source, ImageView target, ImageView fill, std::vector<Homography> homographies)
    : source_(source), target_(target), fill_(fill), homographies_(std::move(homographies)) {
  blocks_per_image_ = (source.sizes[2] + kRows - 1) / kRows;
  blocks_ = source.sizes[0] * blocks_per_image_;
}

void WarpForward::run(int64_t block) const {
  switch (source_.dtype) {
    case Dtype::kFloat16: return run_typed<float, Float16>(block);
    case Dtype::kBFloat16: return run_typed<float, BFloat16>(block);
    case Dtype::kFloat32: return run_typed<float, float>(block);
    case Dtype::kFloat64: return run_typed<double, double>(block);
  }
}

template <typename T, typename S>
void WarpForward::run_typed(int64_t block) const {
  const int64_t channels = source_.sizes[1], height = source_.sizes[2], width = source_.sizes[3];
  const int64_t image = block / blocks_per_image_, begin = block % blocks_per_image_ * kRows;
  const Window window = {int32_t(width), 0, int32_t(height), int32_t(source_.strides[2]), int32_t(source_.strides[3])};
  Taps<T> taps;
  alignas(64) T result[kChunk], fill_buffer[kChunk];
  for (int64_t row = begin; row < std::min(begin + kRows, height); ++row) {
    for (int64_t column = 0; column < width; column += kChunk) {
      const int64_t count = std::min(kChunk, width - column);
      taps_of(homographies_[image], column, row, count, window, taps);
      for (int64_t c = 0; c < channels; ++c) {
        const S* plane = static_cast<const S*>(source_.at(image, c, 0, 0));
        void* target = target_.at(image, c, row, column);
        T* place = target_of(target, target_.dtype, target_.strides[3], result);
        gather(plane, taps, count, place);
        if (fill_.data) {
          const T* fill = load(fill_.at(image, c, row, column), fill_.dtype, fill_.strides[3], count, fill_buffer);
          add_fill(taps, fill, count, place);
        }
        store(place, target, target_.dtype, target_.strides[3], count);
      }
    }
  }
}

WarpBackward::WarpBackward(ImageView grad, ImageView target, std::vector<Homography> homographies)
    : grad_(grad), target_(target), homographies_(std::move(homographies)) {
  const int64_t row_elements = std::max<int64_t>(1, grad.sizes[1] * grad.sizes[3]);
  rows_ = std::max<int64_t>(1, std::min(grad.sizes[2], kBandElements / row_elements));
  bands_ = (grad.sizes[2] + rows_ - 1) / rows_;
  blocks_ = grad.sizes[0] * bands_;
}

void WarpBackward::run(int64_t block) const {
  grad_.dtype == Dtype::kFloat64 ? run_typed<double>(block) : run_typed<float>(block);
}

template <typename T>
void WarpBackward::run_typed(int64_t block) const {
  const int64_t channels = grad_.sizes[1], height = grad_.sizes[2], width = grad_.sizes[3];
  const int64_t image = block / bands_, row_begin = block % bands_ * rows_;
  const int64_t row_end = std::min(row_begin + rows_, height), plane = (row_end - row_begin) * width;
  const Window window = {int32_t(width), int32_t(row_begin), int32_t(row_end), int32_t(width), 1};
  std::vector<T> left(channels * plane, T(0)), right(channels * plane, T(0));
  Taps<T> taps;
  alignas(64) T buffer[kChunk];
  for (int64_t row = 0; row < height; ++row) {
    const ColumnRange columns = columns_that_touch(homographies_[image], row, width, row_begin, row_end);
    for (int64_t column = columns.begin; column < columns.end; column += kChunk) {
      const int64_t count = std::min(kChunk, columns.end - column);
      taps_of(homographies_[image], column, row, count, window, taps);
      for (int64_t c = 0; c < channels; ++c) {
        const T* grad = load(grad_.at(image, c, row, column), grad_.dtype, grad_.strides[3], count, buffer);
        scatter_row(taps, grad, count, &left[c * plane], &right[c * plane]);
      }
    }
  }
  std::vector<T> sum(width);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t row = row_begin; row < row_end; ++row) {
      const T *values = &left[c * plane + (row - row_begin) * width], *right_values = &right[values - left.data()];
      void* target = target_.at(image, c, row, 0);
      T* place = target_of(target, target_.dtype, target_.strides[3], sum.data());
      for (int64_t i = 0; i < width; ++i) place[i] = values[i] + right_values[i];
      store(place, target, target_.dtype, target_.strides[3], width);
    }
  }
}

}  // namespace fastgan
