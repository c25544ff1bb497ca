#include "feature_distance_sweep.h"

#include <algorithm>

#include "feature_distance_tile.h"
#include "scratch.h"

namespace fastgan {
namespace {

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
  const bool no_conversion = x_dtype == y_dtype && (x_dtype == Dtype::kFloat32 || x_dtype == Dtype::kFloat64);
  if (layout_.channels == 0) {
    tile_ = blocks_per_sample_ = 0;
    return;
  }
  tile_ = layout_.channels_last ? pixels_tile(layout_.channels)
                                : planes_tile(layout_.channels, layout_.pixels, no_conversion ? size_of(x_dtype) : 0);
  blocks_per_sample_ = (layout_.pixels + tile_ - 1) / tile_;
  sums_.assign(blocks(), 0.0);
}

void FeatureDistanceSweep::run(int64_t block) {
  const bool is_double = x_dtype_ == Dtype::kFloat64 || y_dtype_ == Dtype::kFloat64;
  sums_[block] = is_double ? run_typed<double>(block) : run_typed<float>(block);
}

template <typename T>
double FeatureDistanceSweep::run_typed(int64_t block) const {
  const int64_t channels = layout_.channels;
  const auto offset = [&](int64_t number) {
    const int64_t begin = number % blocks_per_sample_ * tile_;
    const int64_t sample = number / blocks_per_sample_ * channels * layout_.pixels;
    return sample + begin * (layout_.channels_last ? channels : 1);
  };
  const auto count = [&](int64_t number) {
    return std::min(tile_, layout_.pixels - number % blocks_per_sample_ * tile_);
  };
  const auto place = [&](const void* map, Dtype dtype) {
    return map ? static_cast<const char*>(map) + offset(block) * size_of(dtype) : nullptr;
  };
  FeatureTile<T> tile;
  tile.x = place(x_, x_dtype_);
  tile.y = place(y_, y_dtype_);
  tile.direction_x = const_cast<char*>(place(direction_x_, x_dtype_));
  tile.direction_y = const_cast<char*>(place(direction_y_, y_dtype_));
  tile.x_dtype = x_dtype_;
  tile.y_dtype = y_dtype_;
  tile.channels = channels;
  tile.count = count(block);
  tile.plane = layout_.pixels;
  const bool last = block + 1 == blocks();
  tile.next = last ? 0 : offset(block + 1) - offset(block);
  tile.next_count = last ? 0 : count(block + 1);
  tile.weights = weights_as(weights_, float_weights_, T());
  tile.eps = static_cast<T>(options_.eps);
  tile.factor = static_cast<T>(options_.direction_factor);
  tile.relu_x = options_.relu_x;

  thread_local Scratch<T> buffer;
  thread_local int64_t capacity = 0;
  const int64_t needed =
      layout_.channels_last ? pixels_scratch(channels, tile.count) : planes_scratch(channels, tile.count);
  if (needed > capacity) {
    buffer = scratch<T>(needed);
    capacity = needed;
  }
  return layout_.channels_last ? sweep_pixels(options_, tile, buffer.get())
                               : sweep_planes(options_, tile, buffer.get());
}

double FeatureDistanceSweep::distance(int64_t sample) const {
  double sum = 0;
  for (int64_t i = 0; i < blocks_per_sample_; ++i) sum += sums_[sample * blocks_per_sample_ + i];
  return sum / static_cast<double>(layout_.pixels);
}

}  // namespace fastgan
