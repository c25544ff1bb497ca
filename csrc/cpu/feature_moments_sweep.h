#pragma once

#include <vector>

#include "feature_layout.h"
#include "pixels.h"

// Means, variances and covariances of the planes of two feature maps, and the maps' gradients, without torch. Both maps
// are read from memory once: the means of a few pixels are taken first, then, from the cache, the deviations from them.
// Block bounds do not depend on the number of threads, so the results are bit-identical for any number.
namespace fastgan {

// Of pixels of one plane: their number, sums of both maps, and sums of the products of deviations from the means.
struct PairMoments {
  double count = 0, x = 0, y = 0, xx = 0, yy = 0, xy = 0;

  void add(const PairMoments& other);
};

// What the gradients of a plane are made of: a_x + b_x (x - mean_x) + c (y - mean_y), and likewise for y. A rest is
// what its mean lost by rounding to the maps' arithmetic.
struct PlaneSlopes {
  double mean_x, mean_y, rest_x, rest_y, a_x, a_y, b_x, b_y, c;
};

class FeatureMomentsSweep {
 public:
  // Both maps are dense and have the same layout.
  FeatureMomentsSweep(FeatureLayout layout, const void* x, Dtype x_dtype, const void* y, Dtype y_dtype);

  int64_t blocks() const { return blocks_; }
  void run(int64_t block);
  // Of one channel of one sample, numbered sample after sample; valid once all blocks have run.
  PairMoments moments(int64_t plane) const;

  // Writes the gradients of a block, of the maps' dtypes and layout; null where not wanted.
  void write_gradients(int64_t block, const std::vector<PlaneSlopes>& slopes, void* grad_x, void* grad_y) const;

 private:
  // A part of one plane, or whole planes that are small.
  struct Part {
    int64_t plane, planes, begin, count;
  };
  Part part(int64_t block) const;
  // Pixels with all channels.
  struct Pixels {
    int64_t sample, begin, count;
  };
  Pixels pixels(int64_t block) const;
  int64_t first_element(int64_t plane) const;
  bool is_double() const;

  template <typename T>
  void run_planes(int64_t block);
  template <typename T>
  void run_pixels(int64_t block);
  template <typename T>
  void write_planes(int64_t block, const PlaneSlopes* slopes, char* grad_x, char* grad_y) const;
  template <typename T>
  void write_pixels(int64_t block, const PlaneSlopes* slopes, char* grad_x, char* grad_y) const;

  FeatureLayout layout_;
  const char *x_, *y_;
  Dtype x_dtype_, y_dtype_;
  bool by_pixels_;          // whether channels are swept side by side, not one after the other
  int64_t length_;          // pixels of a block
  int64_t planes_at_once_;  // per block, if not by pixels
  int64_t parts_;           // blocks per plane or, by pixels, per sample
  int64_t blocks_;
  std::vector<PairMoments> partial_;  // [planes, parts] or, by pixels, [samples, parts, channels]
};

}  // namespace fastgan
