#pragma once

#include <vector>

#include "feature_layout.h"
#include "pixels.h"

// The CPU kernel of feature distances without torch: both feature maps are read from memory once, a tile of pixels at a
// time, and the directions of their gradients written.
namespace fastgan {

struct FeatureOptions {
  int power = 2;
  bool normalize = false, relu_x = false;
  double eps = 1e-10;
  double direction_factor = 1;
};

class FeatureDistanceSweep {
 public:
  // Both maps are dense and have the same layout. A direction has its map's dtype; null if not wanted. `weights` has
  // one value per channel.
  FeatureDistanceSweep(
      FeatureLayout layout, FeatureOptions options, std::vector<double> weights, const void* x, Dtype x_dtype,
      const void* y, Dtype y_dtype, void* direction_x, void* direction_y);

  int64_t blocks() const { return layout_.samples * blocks_per_sample_; }
  void run(int64_t block);
  double distance(int64_t sample) const;  // once all blocks have run

 private:
  template <typename T>
  double run_typed(int64_t block) const;

  FeatureLayout layout_;
  FeatureOptions options_;
  std::vector<double> weights_;
  std::vector<float> float_weights_;
  const void *x_, *y_;
  Dtype x_dtype_, y_dtype_;
  void *direction_x_, *direction_y_;
  int64_t tile_, blocks_per_sample_;
  std::vector<double> sums_;  // one per block
};

}  // namespace fastgan
