#include <algorithm>

#include "clones.h"
#include "feature_distance_tile.h"

// Channels last: a pixel's channels are contiguous, so that a sum over channels is the sum of a row.
namespace fastgan {
namespace {

// Elements of each map in a tile: both maps' tiles fit in the second-level cache.
constexpr int64_t kTile = 32768, kLeastPixels = 16, kMostPixels = 1024;

// Rows in the kernel's arithmetic; a direction that is not wanted is null.
template <typename T>
struct PixelRows {
  const T *x, *y;
  T *direction_x, *direction_y;
};

template <typename F, typename T>
FASTGAN_CLONES double sweep(PixelRows<T> rows, FeatureTile<T> tile) {
  const int64_t channels = tile.channels;
  const T *weights = tile.weights, factor = tile.factor;
  const Rectifier<T> rectifier(tile.relu_x);
  double sum = 0;
  for (int64_t pixel = 0; pixel < tile.count; ++pixel) {
    const T *x = rows.x + pixel * channels, *y = rows.y + pixel * channels;
    T squares_x = 0, squares_y = 0, distance = 0, along_x = 0, along_y = 0;
    if (F::kNormalize) {
#pragma omp simd reduction(+ : squares_x, squares_y)
      for (int64_t c = 0; c < channels; ++c) {
        const T a = rectifier.value(x[c]);
        squares_x += a * a;
        squares_y += y[c] * y[c];
      }
    }
    const UnitScale<T> scale_x(squares_x, tile.eps), scale_y(squares_y, tile.eps);
    const T inverse_x = scale_x.inverse, inverse_y = scale_y.inverse;
#pragma omp simd reduction(+ : distance, along_x, along_y)
    for (int64_t c = 0; c < channels; ++c) {
      const T a = rectifier.value(x[c]), b = y[c];
      const T difference = F::difference(a, inverse_x, b, inverse_y), slope = F::slope(weights[c], difference);
      distance += F::distance(weights[c], difference);
      along_x += slope * a;
      along_y += slope * b;
    }
    sum += distance;
    const T rate_x = along_x * scale_x.along, rate_y = along_y * scale_y.along;
    if (rows.direction_x) {
      T* const direction = rows.direction_x + pixel * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const T a = rectifier.value(x[c]), b = y[c];
        const T slope = F::slope(weights[c], F::difference(a, inverse_x, b, inverse_y));
        direction[c] = rectifier.slope(a, factor * F::gradient(slope, a, inverse_x, rate_x));
      }
    }
    if (rows.direction_y) {
      T* const direction = rows.direction_y + pixel * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const T a = rectifier.value(x[c]), b = y[c];
        const T slope = F::slope(weights[c], F::difference(a, inverse_x, b, inverse_y));
        direction[c] = -factor * F::gradient(slope, b, inverse_y, rate_y);
      }
    }
  }
  return sum;
}

}  // namespace

template <typename T>
double sweep_pixels(const FeatureOptions& options, const FeatureTile<T>& tile, T* buffer) {
  const int64_t size = tile.channels * tile.count;
  const auto target = [&](char* direction, Dtype dtype, T* converted) {
    return direction ? target_of(direction, dtype, 1, converted) : nullptr;
  };
  PixelRows<T> rows;
  rows.x = load(tile.x, tile.x_dtype, 1, size, buffer);
  rows.y = load(tile.y, tile.y_dtype, 1, size, buffer + size);
  rows.direction_x = target(tile.direction_x, tile.x_dtype, buffer + 2 * size);
  rows.direction_y = target(tile.direction_y, tile.y_dtype, buffer + 3 * size);
  const double sum = with_formula(options, [&](auto formula) { return sweep<decltype(formula)>(rows, tile); });
  if (tile.direction_x) store(rows.direction_x, tile.direction_x, tile.x_dtype, 1, size);
  if (tile.direction_y) store(rows.direction_y, tile.direction_y, tile.y_dtype, 1, size);
  return sum;
}

template double sweep_pixels(const FeatureOptions&, const FeatureTile<float>&, float*);
template double sweep_pixels(const FeatureOptions&, const FeatureTile<double>&, double*);

int64_t pixels_scratch(int64_t channels, int64_t count) { return 4 * channels * count; }

int64_t pixels_tile(int64_t channels) {
  return std::clamp(kTile / channels / kLeastPixels * kLeastPixels, kLeastPixels, kMostPixels);
}

}  // namespace fastgan
