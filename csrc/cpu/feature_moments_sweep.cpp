#include "feature_moments_sweep.h"

#include <algorithm>
#include <cmath>

#include "../math/host_device.h"
#include "clones.h"
#include "scratch.h"

namespace fastgan {
namespace {

// Few enough terms to sum in float32 without losing precision; both maps' chunks stay in the first-level cache.
constexpr int64_t kChunk = 1024;
// Elements of each map per block: some microseconds of work.
constexpr int64_t kBlock = 16384;
// Below this number of channels, a loop over the channels of a pixel would leave vectors empty: each channel is then
// gathered from its pixels.
constexpr int64_t kFewChannels = 16;
// By pixels: elements of each map in a tile, which stays in the second-level cache; the most pixels of one, so that
// sums in float32 have few terms; tiles per block.
constexpr int64_t kTile = 32768, kLeastPixels = 16, kMostPixels = 128, kTilesPerBlock = 4;
// Channels whose sums stay in registers.
constexpr int64_t kLanes = 32;

// Sums of the deviations from `shift`, and of their products.
template <typename T>
struct ShiftedSums {
  T shift_x, shift_y, x, y, xx, yy, xy;
};

// What two counts have in common for all channels.
struct Ratios {
  double inverse, inverse_other, weight;

  Ratios(double count, double other)
      : inverse(1 / count), inverse_other(1 / other), weight(count * other / (count + other)) {}
};

void combine(PairMoments& sum, const PairMoments& other, const Ratios& ratios) {
  const double x = other.x * ratios.inverse_other - sum.x * ratios.inverse;
  const double y = other.y * ratios.inverse_other - sum.y * ratios.inverse;
  sum.count += other.count;
  sum.x += other.x;
  sum.y += other.y;
  sum.xx += other.xx + x * x * ratios.weight;
  sum.yy += other.yy + y * y * ratios.weight;
  sum.xy += other.xy + x * y * ratios.weight;
}

// The deviations from infinity are NaN, but the mean is infinite.
double total(double shift, double deviations) { return std::isinf(shift) ? shift : shift + deviations; }

template <typename T>
PairMoments moments_of(const ShiftedSums<T>& sums, double count, double inverse) {
  const double x = sums.x, y = sums.y;
  PairMoments moments;
  moments.count = count;
  moments.x = total(count * double(sums.shift_x), x);
  moments.y = total(count * double(sums.shift_y), y);
  moments.xx = sums.xx - x * x * inverse;
  moments.yy = sums.yy - y * y * inverse;
  moments.xy = sums.xy - x * y * inverse;
  return moments;
}

template <typename T>
FASTGAN_CLONES void sum_chunk(const T* x, const T* y, int64_t count, ShiftedSums<T>& sums) {
  T sum_x = 0, sum_y = 0;
#pragma omp simd reduction(+ : sum_x, sum_y)
  for (int64_t i = 0; i < count; ++i) {
    sum_x += x[i];
    sum_y += y[i];
  }
  const T inverse = T(1) / T(count), shift_x = sum_x * inverse, shift_y = sum_y * inverse;
  sum_x = sum_y = 0;
  T xx = 0, yy = 0, xy = 0;
#pragma omp simd reduction(+ : sum_x, sum_y, xx, yy, xy)
  for (int64_t i = 0; i < count; ++i) {
    const T a = x[i] - shift_x, b = y[i] - shift_y;
    sum_x += a;
    sum_y += b;
    xx += a * a;
    yy += b * b;
    xy += a * b;
  }
  sums = {shift_x, shift_y, sum_x, sum_y, xx, yy, xy};
}

// The same of up to kLanes channels of `count` pixels, which are `stride` apart; `lanes` is constant if kWhole.
template <bool kWhole, typename T>
FASTGAN_CLONES void sum_lanes(
    const T* x, const T* y, int64_t count, int64_t stride, int64_t some_lanes, ShiftedSums<T>* sums) {
  const int64_t lanes = kWhole ? kLanes : some_lanes;
  T sum_x[kLanes] = {}, sum_y[kLanes] = {}, shift_x[kLanes], shift_y[kLanes];
  for (int64_t p = 0; p < count; ++p) {
    const T *a = x + p * stride, *b = y + p * stride;
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
      sum_x[i] += a[i];
      sum_y[i] += b[i];
    }
  }
  const T inverse = T(1) / T(count);
  for (int64_t i = 0; i < lanes; ++i) {
    shift_x[i] = sum_x[i] * inverse;
    shift_y[i] = sum_y[i] * inverse;
    sum_x[i] = sum_y[i] = 0;
  }
  T xx[kLanes] = {}, yy[kLanes] = {}, xy[kLanes] = {};
  for (int64_t p = 0; p < count; ++p) {
    const T *row_x = x + p * stride, *row_y = y + p * stride;
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
      const T a = row_x[i] - shift_x[i], b = row_y[i] - shift_y[i];
      sum_x[i] += a;
      sum_y[i] += b;
      xx[i] += a * a;
      yy[i] += b * b;
      xy[i] += a * b;
    }
  }
  for (int64_t i = 0; i < lanes; ++i) sums[i] = {shift_x[i], shift_y[i], sum_x[i], sum_y[i], xx[i], yy[i], xy[i]};
}

// A plane's or, as arrays, several channels' slopes in the kernel's arithmetic.
template <typename T>
struct Slopes {
  T mean_x, mean_y, rest_x, rest_y, a_x, a_y, b_x, b_y, c;

  explicit Slopes(const PlaneSlopes& of)
      : mean_x(T(of.mean_x)),
        mean_y(T(of.mean_y)),
        rest_x(T(of.rest_x)),
        rest_y(T(of.rest_y)),
        a_x(T(of.a_x)),
        a_y(T(of.a_y)),
        b_x(T(of.b_x)),
        b_y(T(of.b_y)),
        c(T(of.c)) {}
};

template <bool kWithX, bool kWithY, typename T>
FASTGAN_CLONES void differentiate_chunk(const T* x, const T* y, int64_t count, Slopes<T> slopes, T* grad_x, T* grad_y) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T a = (x[i] - slopes.mean_x) - slopes.rest_x, b = (y[i] - slopes.mean_y) - slopes.rest_y;
    if (kWithX) grad_x[i] = slopes.a_x + slopes.b_x * a + slopes.c * b;
    if (kWithY) grad_y[i] = slopes.a_y + slopes.b_y * b + slopes.c * a;
  }
}

// Of pixels with all channels, each of whose slopes has a row of `channels` values: mean, rest, a, b of the map, then
// mean and rest of the other, and c.
enum Row { kMean, kRest, kA, kB, kOtherMean, kOtherRest, kC, kRows };

template <typename T>
FASTGAN_CLONES void differentiate_pixels(
    const T* map, const T* other, int64_t count, int64_t channels, const T* rows, T* grad) {
  const T *mean = rows + kMean * channels, *rest = rows + kRest * channels, *a = rows + kA * channels,
          *b = rows + kB * channels, *other_mean = rows + kOtherMean * channels,
          *other_rest = rows + kOtherRest * channels, *c = rows + kC * channels;
  for (int64_t p = 0; p < count; ++p) {
    const T *values = map + p * channels, *others = other + p * channels;
    T* const target = grad + p * channels;
#pragma omp simd
    for (int64_t i = 0; i < channels; ++i) {
      const T deviation = (values[i] - mean[i]) - rest[i],
              other_deviation = (others[i] - other_mean[i]) - other_rest[i];
      target[i] = a[i] + b[i] * deviation + c[i] * other_deviation;
    }
  }
}

template <typename T>
std::vector<T> rows_of(const PlaneSlopes* slopes, int64_t channels, bool of_x) {
  std::vector<T> rows(kRows * channels);
  for (int64_t i = 0; i < channels; ++i) {
    const PlaneSlopes& s = slopes[i];
    const double values[kRows] = {
        of_x ? s.mean_x : s.mean_y,
        of_x ? s.rest_x : s.rest_y,
        of_x ? s.a_x : s.a_y,
        of_x ? s.b_x : s.b_y,
        of_x ? s.mean_y : s.mean_x,
        of_x ? s.rest_y : s.rest_x,
        s.c};
    for (int64_t row = 0; row < kRows; ++row) rows[row * channels + i] = static_cast<T>(values[row]);
  }
  return rows;
}

int64_t divided(int64_t count, int64_t size) { return (count + size - 1) / size; }

int64_t tile_of(int64_t channels) {
  return std::clamp(kTile / channels / kLeastPixels * kLeastPixels, kLeastPixels, kMostPixels);
}

}  // namespace

void PairMoments::add(const PairMoments& other) {
  if (other.count == 0) return;
  if (count == 0) {
    *this = other;
  } else {
    combine(*this, other, Ratios(count, other.count));
  }
}

FeatureMomentsSweep::FeatureMomentsSweep(
    FeatureLayout layout, const void* x, Dtype x_dtype, const void* y, Dtype y_dtype)
    : layout_(layout),
      x_(static_cast<const char*>(x)),
      y_(static_cast<const char*>(y)),
      x_dtype_(x_dtype),
      y_dtype_(y_dtype),
      by_pixels_(layout.channels_last && layout.channels >= kFewChannels),
      length_(kBlock),
      planes_at_once_(1),
      parts_(0),
      blocks_(0) {
  const int64_t planes = layout.samples * layout.channels;
  if (planes * layout.pixels == 0) return;
  if (by_pixels_) {
    length_ = kTilesPerBlock * tile_of(layout.channels);
    parts_ = divided(layout.pixels, length_);
    blocks_ = layout.samples * parts_;
  } else {
    planes_at_once_ = std::max<int64_t>(1, kBlock / layout.pixels);
    parts_ = divided(layout.pixels, length_);
    blocks_ = parts_ * divided(planes, planes_at_once_);
  }
  partial_.resize(planes * parts_);
}

bool FeatureMomentsSweep::is_double() const { return x_dtype_ == Dtype::kFloat64 || y_dtype_ == Dtype::kFloat64; }

FeatureMomentsSweep::Part FeatureMomentsSweep::part(int64_t block) const {
  const int64_t plane = block / parts_ * planes_at_once_, begin = block % parts_ * length_;
  const int64_t planes = std::min(planes_at_once_, layout_.samples * layout_.channels - plane);
  return {plane, planes, begin, std::min(length_, layout_.pixels - begin)};
}

FeatureMomentsSweep::Pixels FeatureMomentsSweep::pixels(int64_t block) const {
  const int64_t begin = block % parts_ * length_;
  return {block / parts_, begin, std::min(length_, layout_.pixels - begin)};
}

int64_t FeatureMomentsSweep::first_element(int64_t plane) const {
  const int64_t sample = plane / layout_.channels, channel = plane % layout_.channels;
  return sample * layout_.channels * layout_.pixels + channel * (layout_.channels_last ? 1 : layout_.pixels);
}

void FeatureMomentsSweep::run(int64_t block) {
  if (by_pixels_) {
    is_double() ? run_pixels<double>(block) : run_pixels<float>(block);
  } else {
    is_double() ? run_planes<double>(block) : run_planes<float>(block);
  }
}

template <typename T>
void FeatureMomentsSweep::run_planes(int64_t block) {
  alignas(64) T buffer_x[kChunk], buffer_y[kChunk];
  const Part range = part(block);
  const int64_t stride = layout_.channels_last ? layout_.channels : 1;
  for (int64_t plane = range.plane; plane < range.plane + range.planes; ++plane) {
    PairMoments& sum = partial_[plane * parts_ + block % parts_];
    for (int64_t begin = range.begin; begin < range.begin + range.count; begin += kChunk) {
      const int64_t count = std::min(kChunk, range.begin + range.count - begin);
      const int64_t element = first_element(plane) + begin * stride;
      ShiftedSums<T> sums;
      sum_chunk(
          load(x_ + element * size_of(x_dtype_), x_dtype_, stride, count, buffer_x),
          load(y_ + element * size_of(y_dtype_), y_dtype_, stride, count, buffer_y), count, sums);
      sum.add(moments_of(sums, double(count), 1 / double(count)));
    }
  }
}

template <typename T>
void FeatureMomentsSweep::run_pixels(int64_t block) {
  const int64_t channels = layout_.channels, tile = tile_of(channels);
  const Pixels range = pixels(block);
  const Scratch<T> buffer = scratch<T>(2 * tile * channels);
  PairMoments* const partial = partial_.data() + block * channels;
  for (int64_t begin = range.begin; begin < range.begin + range.count; begin += tile) {
    const int64_t count = std::min(tile, range.begin + range.count - begin);
    const int64_t element = (range.sample * layout_.pixels + begin) * channels;
    const T* x = load(x_ + element * size_of(x_dtype_), x_dtype_, 1, count * channels, buffer.get());
    const T* y = load(y_ + element * size_of(y_dtype_), y_dtype_, 1, count * channels, buffer.get() + tile * channels);
    const double number = double(count), inverse = 1 / number;
    const Ratios ratios(std::max<double>(1, double(begin - range.begin)), number);
    for (int64_t c = 0; c < channels; c += kLanes) {
      const int64_t lanes = std::min(kLanes, channels - c);
      ShiftedSums<T> sums[kLanes];
      if (lanes == kLanes) {
        sum_lanes<true>(x + c, y + c, count, channels, lanes, sums);
      } else {
        sum_lanes<false>(x + c, y + c, count, channels, lanes, sums);
      }
      for (int64_t i = 0; i < lanes; ++i) {
        const PairMoments moments = moments_of(sums[i], number, inverse);
        if (begin == range.begin) {
          partial[c + i] = moments;
        } else {
          combine(partial[c + i], moments, ratios);
        }
      }
    }
  }
}

PairMoments FeatureMomentsSweep::moments(int64_t plane) const {
  PairMoments sum;
  const int64_t channels = layout_.channels, sample = plane / channels, channel = plane % channels;
  for (int64_t i = 0; i < parts_; ++i) {
    sum.add(partial_[by_pixels_ ? (sample * parts_ + i) * channels + channel : plane * parts_ + i]);
  }
  return sum;
}

void FeatureMomentsSweep::write_gradients(
    int64_t block, const std::vector<PlaneSlopes>& slopes, void* grad_x, void* grad_y) const {
  char *const to_x = static_cast<char*>(grad_x), *const to_y = static_cast<char*>(grad_y);
  if (by_pixels_) {
    const PlaneSlopes* const of_sample = slopes.data() + pixels(block).sample * layout_.channels;
    is_double() ? write_pixels<double>(block, of_sample, to_x, to_y)
                : write_pixels<float>(block, of_sample, to_x, to_y);
  } else {
    is_double() ? write_planes<double>(block, slopes.data(), to_x, to_y)
                : write_planes<float>(block, slopes.data(), to_x, to_y);
  }
}

template <typename T>
void FeatureMomentsSweep::write_planes(int64_t block, const PlaneSlopes* slopes, char* grad_x, char* grad_y) const {
  alignas(64) T buffer_x[kChunk], buffer_y[kChunk], output_x[kChunk], output_y[kChunk];
  const Part range = part(block);
  const int64_t stride = layout_.channels_last ? layout_.channels : 1;
  for (int64_t plane = range.plane; plane < range.plane + range.planes; ++plane) {
    const Slopes<T> of_plane(slopes[plane]);
    for (int64_t begin = range.begin; begin < range.begin + range.count; begin += kChunk) {
      const int64_t count = std::min(kChunk, range.begin + range.count - begin);
      const int64_t element = first_element(plane) + begin * stride;
      const int64_t at_x = element * size_of(x_dtype_), at_y = element * size_of(y_dtype_);
      const T* x = load(x_ + at_x, x_dtype_, stride, count, buffer_x);
      const T* y = load(y_ + at_y, y_dtype_, stride, count, buffer_y);
      T* const to_x = grad_x ? target_of(grad_x + at_x, x_dtype_, stride, output_x) : nullptr;
      T* const to_y = grad_y ? target_of(grad_y + at_y, y_dtype_, stride, output_y) : nullptr;
      if (grad_x && grad_y) {
        differentiate_chunk<true, true>(x, y, count, of_plane, to_x, to_y);
      } else if (grad_x) {
        differentiate_chunk<true, false>(x, y, count, of_plane, to_x, to_y);
      } else if (grad_y) {
        differentiate_chunk<false, true>(x, y, count, of_plane, to_x, to_y);
      }
      if (grad_x) store(to_x, grad_x + at_x, x_dtype_, stride, count);
      if (grad_y) store(to_y, grad_y + at_y, y_dtype_, stride, count);
    }
  }
}

template <typename T>
void FeatureMomentsSweep::write_pixels(int64_t block, const PlaneSlopes* slopes, char* grad_x, char* grad_y) const {
  const int64_t channels = layout_.channels, tile = tile_of(channels);
  const Pixels range = pixels(block);
  const Scratch<T> buffer = scratch<T>(3 * tile * channels);
  T *const buffer_y = buffer.get() + tile * channels, *const output = buffer_y + tile * channels;
  const std::vector<T> rows_x = rows_of<T>(slopes, channels, true), rows_y = rows_of<T>(slopes, channels, false);
  for (int64_t begin = range.begin; begin < range.begin + range.count; begin += tile) {
    const int64_t count = std::min(tile, range.begin + range.count - begin), size = count * channels;
    const int64_t element = (range.sample * layout_.pixels + begin) * channels;
    const int64_t at_x = element * size_of(x_dtype_), at_y = element * size_of(y_dtype_);
    const T* x = load(x_ + at_x, x_dtype_, 1, size, buffer.get());
    const T* y = load(y_ + at_y, y_dtype_, 1, size, buffer_y);
    if (grad_x) {
      T* const to_x = target_of(grad_x + at_x, x_dtype_, 1, output);
      differentiate_pixels(x, y, count, channels, rows_x.data(), to_x);
      store(to_x, grad_x + at_x, x_dtype_, 1, size);
    }
    if (grad_y) {
      T* const to_y = target_of(grad_y + at_y, y_dtype_, 1, output);
      differentiate_pixels(y, x, count, channels, rows_y.data(), to_y);
      store(to_y, grad_y + at_y, y_dtype_, 1, size);
    }
  }
}

}  // namespace fastgan
