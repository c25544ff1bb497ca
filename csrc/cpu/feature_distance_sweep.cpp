#include "feature_distance_sweep.h"

#include <algorithm>
#include <type_traits>

#include "../math/feature_distance.h"
#include "clones.h"
#include "scratch.h"

namespace fastgan {
namespace {

// Elements of a tile of one map: both maps stay in the second-level cache between the passes.
constexpr int64_t kTile = 32768;
constexpr int64_t kLeastPixels = 16, kMostPixels = 1024;

// A tile of both maps and where its directions go, null where they are not wanted; all as numbers of the kernel's
// arithmetic, row after row.
template <typename T>
struct Tile {
  const T *x, *y;
  T *direction_x, *direction_y;
  const T* weights;
  T eps, factor;
  int64_t channels, count;
};

// --- rows are channels, of `count` pixels each --------------------------------------------------------------------

// Rows of a channel lie as far apart as an image is large, often a power of two: left there, they would push each other
// out of the cache.
template <bool kRelu, typename T>
FASTGAN_CLONES void pack_row(const T* source, int64_t count, T* packed, T* squares) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T value = kRelu ? rectified(source[i]) : source[i];
    packed[i] = value;
    squares[i] += value * value;
  }
}

FASTGAN_HOST_DEVICE void prefetch_row(const char* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) FASTGAN_PREFETCH(row + i);
}

template <typename T>
FASTGAN_CLONES void to_unit_scales(T* squares, T* rates, T eps, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const UnitScale<T> scale(squares[i], eps);
    squares[i] = scale.inverse;
    rates[i] = scale.along;
  }
}

// Numbers of each pixel.
template <typename T>
struct PixelNumbers {
  T *inverse_x, *inverse_y, *rate_x, *rate_y, *distance, *along_x, *along_y;
  static constexpr int kRows = 7;

  PixelNumbers(T* memory, int64_t count)
      : inverse_x(memory),
        inverse_y(memory + count),
        rate_x(memory + 2 * count),
        rate_y(memory + 3 * count),
        distance(memory + 4 * count),
        along_x(memory + 5 * count),
        along_y(memory + 6 * count) {
    std::fill(memory, memory + kRows * count, T(0));
  }
};

// The next tile's rows, which the processor fetches while it works on this one's.
struct NextTile {
  const char *x, *y;
  int64_t x_stride, y_stride, x_bytes, y_bytes;  // bytes from row to row, and of a row; 0: there is none

  void fetch(int64_t row) const {
    prefetch_row(x + row * x_stride, x_bytes);
    prefetch_row(y + row * y_stride, y_bytes);
  }
};

template <int kPower, bool kNormalize, typename T>
FASTGAN_CLONES void add_distances(Tile<T> t, PixelNumbers<T> n, NextTile next) {
  const int64_t count = t.count;
  const T *inverse_x = n.inverse_x, *inverse_y = n.inverse_y;
  T *distance = n.distance, *along_x = n.along_x, *along_y = n.along_y;
  for (int64_t c = 0; c < t.channels; ++c) {
    next.fetch(c);
    const T *x = t.x + c * count, *y = t.y + c * count;
    const T weight = t.weights[c];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const T difference = kNormalize ? x[i] * inverse_x[i] - y[i] * inverse_y[i] : x[i] - y[i];
      distance[i] += weight * power<kPower>(difference);
      if (kNormalize) {
        const T slope = weight * power_slope<kPower>(difference);
        along_x[i] += slope * x[i];
        along_y[i] += slope * y[i];
      }
    }
  }
}

// One channel's row of the direction of x (kOfX) or y.
template <int kPower, bool kNormalize, bool kRelu, bool kOfX, typename T>
FASTGAN_CLONES void write_row(Tile<T> t, PixelNumbers<T> n, int64_t channel, T* direction) {
  const T *x = t.x + channel * t.count, *y = t.y + channel * t.count;
  const T weight = t.weights[channel], factor = t.factor;
  const T *inverse_x = n.inverse_x, *inverse_y = n.inverse_y, *along = kOfX ? n.along_x : n.along_y;
#pragma omp simd
  for (int64_t i = 0; i < t.count; ++i) {
    const T difference = kNormalize ? x[i] * inverse_x[i] - y[i] * inverse_y[i] : x[i] - y[i];
    const T slope = weight * power_slope<kPower>(difference);
    T result = kOfX ? slope : -slope;
    if (kNormalize) result = kOfX ? slope * inverse_x[i] - along[i] * x[i] : along[i] * y[i] - slope * inverse_y[i];
    direction[i] = kOfX && kRelu && x[i] == 0 ? T(0) : factor * result;
  }
}

// --- rows are pixels, of `channels` numbers each ---------------------------------------------------------------------

template <int kPower, bool kNormalize, bool kRelu, typename T>
FASTGAN_CLONES double sweep_pixels(Tile<T> t) {
  const int64_t channels = t.channels;
  const T *weights = t.weights, factor = t.factor;
  double sum = 0;
  for (int64_t pixel = 0; pixel < t.count; ++pixel) {
    const T *x = t.x + pixel * channels, *y = t.y + pixel * channels;
    T squares_x = 0, squares_y = 0, distance = 0, along_x = 0, along_y = 0;
    if (kNormalize) {
#pragma omp simd reduction(+ : squares_x, squares_y)
      for (int64_t c = 0; c < channels; ++c) {
        const T value = kRelu ? rectified(x[c]) : x[c];
        squares_x += value * value;
        squares_y += y[c] * y[c];
      }
    }
    const UnitScale<T> scale_x(squares_x, t.eps), scale_y(squares_y, t.eps);
    const T inverse_x = scale_x.inverse, inverse_y = scale_y.inverse;
#pragma omp simd reduction(+ : distance, along_x, along_y)
    for (int64_t c = 0; c < channels; ++c) {
      const T value = kRelu ? rectified(x[c]) : x[c];
      const T difference = kNormalize ? value * inverse_x - y[c] * inverse_y : value - y[c];
      const T slope = weights[c] * power_slope<kPower>(difference);
      distance += weights[c] * power<kPower>(difference);
      along_x += slope * value;
      along_y += slope * y[c];
    }
    sum += distance;
    const T rate_x = along_x * scale_x.along, rate_y = along_y * scale_y.along;
    if (t.direction_x) {
      T* const direction = t.direction_x + pixel * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const T value = kRelu ? rectified(x[c]) : x[c];
        const T difference = kNormalize ? value * inverse_x - y[c] * inverse_y : value - y[c];
        const T slope = weights[c] * power_slope<kPower>(difference);
        const T result = kNormalize ? slope * inverse_x - rate_x * value : slope;
        direction[c] = kRelu && value == 0 ? T(0) : factor * result;
      }
    }
    if (t.direction_y) {
      T* const direction = t.direction_y + pixel * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const T value = kRelu ? rectified(x[c]) : x[c];
        const T difference = kNormalize ? value * inverse_x - y[c] * inverse_y : value - y[c];
        const T slope = weights[c] * power_slope<kPower>(difference);
        direction[c] = factor * (kNormalize ? rate_y * y[c] - slope * inverse_y : -slope);
      }
    }
  }
  return sum;
}

// --- a tile of tensors -----------------------------------------------------------------------------------------------

template <typename T>
struct Place {
  const char *x, *y;
  char *direction_x, *direction_y;
  Dtype x_dtype, y_dtype;
  int64_t row_stride;  // elements, from a channel to the next
  NextTile next;
};

template <int kPower, bool kNormalize, bool kRelu, typename T>
double channel_by_channel(const Place<T>& place, Tile<T> t, T* buffer) {
  const PixelNumbers<T> numbers(buffer, t.count);
  T *const packed_x = buffer + numbers.kRows * t.count, *const packed_y = packed_x + t.channels * t.count;
  T* const converted = packed_y + t.channels * t.count;
  for (int64_t c = 0; c < t.channels; ++c) {
    const int64_t offset = c * place.row_stride;
    const T* const x = load(place.x + offset * size_of(place.x_dtype), place.x_dtype, 1, t.count, converted);
    pack_row<kRelu>(x, t.count, packed_x + c * t.count, numbers.inverse_x);
    const T* const y = load(place.y + offset * size_of(place.y_dtype), place.y_dtype, 1, t.count, converted);
    pack_row<false>(y, t.count, packed_y + c * t.count, numbers.inverse_y);
  }
  t.x = packed_x;
  t.y = packed_y;
  if (kNormalize) {
    to_unit_scales(numbers.inverse_x, numbers.rate_x, t.eps, t.count);
    to_unit_scales(numbers.inverse_y, numbers.rate_y, t.eps, t.count);
  }
  add_distances<kPower, kNormalize>(t, numbers, place.next);
  double sum = 0;
  for (int64_t i = 0; i < t.count; ++i) {
    sum += numbers.distance[i];
    numbers.along_x[i] *= numbers.rate_x[i];
    numbers.along_y[i] *= numbers.rate_y[i];
  }
  const auto write = [&](char* direction, Dtype dtype, auto write_one) {
    for (int64_t c = 0; c < t.channels && direction; ++c) {
      char* const row = direction + c * place.row_stride * size_of(dtype);
      T* const target = target_of(row, dtype, 1, converted);
      write_one(t, numbers, c, target);
      store(target, row, dtype, 1, t.count);
    }
  };
  write(place.direction_x, place.x_dtype, write_row<kPower, kNormalize, kRelu, true, T>);
  write(place.direction_y, place.y_dtype, write_row<kPower, kNormalize, kRelu, false, T>);
  return sum;
}

template <int kPower, bool kNormalize, bool kRelu, typename T>
double pixel_by_pixel(const Place<T>& place, Tile<T> t, T* buffer) {
  const int64_t size = t.channels * t.count;
  t.x = load(place.x, place.x_dtype, 1, size, buffer);
  t.y = load(place.y, place.y_dtype, 1, size, buffer + size);
  const auto target = [&](void* direction, Dtype dtype, T* converted) {
    return direction ? target_of(direction, dtype, 1, converted) : nullptr;
  };
  t.direction_x = target(place.direction_x, place.x_dtype, buffer + 2 * size);
  t.direction_y = target(place.direction_y, place.y_dtype, buffer + 3 * size);
  const double sum = sweep_pixels<kPower, kNormalize, kRelu>(t);
  if (t.direction_x) store(t.direction_x, place.direction_x, place.x_dtype, 1, size);
  if (t.direction_y) store(t.direction_y, place.direction_y, place.y_dtype, 1, size);
  return sum;
}

template <int kPower, bool kNormalize, bool kRelu, typename T>
double run_tile(const Place<T>& place, const Tile<T>& tile, T* buffer, bool channels_last) {
  return channels_last ? pixel_by_pixel<kPower, kNormalize, kRelu>(place, tile, buffer)
                       : channel_by_channel<kPower, kNormalize, kRelu>(place, tile, buffer);
}

template <typename T>
double run_tile(const FeatureOptions& o, const Place<T>& place, const Tile<T>& tile, T* buffer, bool channels_last) {
  const auto with_power = [&](auto power) {
    constexpr int kPower = decltype(power)::value;
    if (o.normalize) {
      return o.relu_x ? run_tile<kPower, true, true>(place, tile, buffer, channels_last)
                      : run_tile<kPower, true, false>(place, tile, buffer, channels_last);
    }
    return o.relu_x ? run_tile<kPower, false, true>(place, tile, buffer, channels_last)
                    : run_tile<kPower, false, false>(place, tile, buffer, channels_last);
  };
  return o.power == 1 ? with_power(std::integral_constant<int, 1>()) : with_power(std::integral_constant<int, 2>());
}

const float* weights_as(const std::vector<double>&, const std::vector<float>& floats, float) { return floats.data(); }
const double* weights_as(const std::vector<double>& doubles, const std::vector<float>&, double) {
  return doubles.data();
}

}  // namespace

FeatureDistanceSweep::FeatureDistanceSweep(
    FeatureLayout layout, FeatureOptions options, std::vector<double> weights, const void* x, Dtype x_dtype,
    const void* y, Dtype y_dtype, void* direction_x, void* direction_y)
    : layout_(layout),
      options_(options),
      weights_(std::move(weights)),
      float_weights_(weights_.begin(), weights_.end()),
      x_(x),
      y_(y),
      x_dtype_(x_dtype),
      y_dtype_(y_dtype),
      direction_x_(direction_x),
      direction_y_(direction_y) {
  // Whole vectors of pixels.
  tile_ = std::min(kMostPixels, std::max(kLeastPixels, kTile / layout_.channels / kLeastPixels * kLeastPixels));
  blocks_per_sample_ = (layout_.pixels + tile_ - 1) / tile_;
  sums_.assign(blocks(), 0.0);
}

void FeatureDistanceSweep::run(int64_t block) {
  const int64_t sample = block / blocks_per_sample_, begin = block % blocks_per_sample_ * tile_;
  const int64_t count = std::min(tile_, layout_.pixels - begin);
  const bool wide = x_dtype_ == Dtype::kFloat64 || y_dtype_ == Dtype::kFloat64;
  sums_[block] = wide ? run_typed<double>(sample, begin, count) : run_typed<float>(sample, begin, count);
}

template <typename T>
double FeatureDistanceSweep::run_typed(int64_t sample, int64_t begin, int64_t count) const {
  const int64_t channels = layout_.channels;
  const int64_t offset = sample * channels * layout_.pixels + begin * (layout_.channels_last ? channels : 1);
  const int64_t size = channels * count;
  thread_local Scratch<T> buffer;
  thread_local int64_t capacity = 0;
  const int64_t needed = layout_.channels_last ? 4 * size : 2 * size + (PixelNumbers<T>::kRows + 1) * count;
  if (needed > capacity) {
    buffer = scratch<T>(needed);
    capacity = needed;
  }
  Place<T> place;
  place.x = static_cast<const char*>(x_) + offset * size_of(x_dtype_);
  place.y = static_cast<const char*>(y_) + offset * size_of(y_dtype_);
  place.direction_x = direction_x_ ? static_cast<char*>(direction_x_) + offset * size_of(x_dtype_) : nullptr;
  place.direction_y = direction_y_ ? static_cast<char*>(direction_y_) + offset * size_of(y_dtype_) : nullptr;
  place.x_dtype = x_dtype_;
  place.y_dtype = y_dtype_;
  place.row_stride = layout_.pixels;
  const int64_t after = std::min(tile_, layout_.pixels - begin - count);
  const int64_t x_size = size_of(x_dtype_), y_size = size_of(y_dtype_);
  place.next = {place.x + count * x_size, place.y + count * y_size, layout_.pixels * x_size,
                layout_.pixels * y_size,  after * x_size,           after * y_size};
  Tile<T> tile = {};
  tile.weights = weights_as(weights_, float_weights_, T());
  tile.eps = static_cast<T>(options_.eps);
  tile.factor = static_cast<T>(options_.direction_factor);
  tile.channels = channels;
  tile.count = count;
  return run_tile(options_, place, tile, buffer.get(), layout_.channels_last);
}

double FeatureDistanceSweep::distance(int64_t sample) const {
  double sum = 0;
  for (int64_t i = 0; i < blocks_per_sample_; ++i) sum += sums_[sample * blocks_per_sample_ + i];
  return sum / static_cast<double>(layout_.pixels);
}

}  // namespace fastgan
