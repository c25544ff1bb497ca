#pragma once

#include <vector>

#include "pixels.h"

// The weighted L1 distances of pairs of feature maps, and the signs of their differences, without torch. Bounds of
// segments do not depend on the number of threads, so the results are bit-identical for any number.
namespace fastgan {

struct FeaturePair {
  const void *fake, *real;
  Dtype fake_dtype, real_dtype;
  int64_t count;
  double slope;  // weight / count
};

class FeatureMatchingSweep {
 public:
  // A segment has `length` elements of one pair; the last of a pair may have fewer.
  FeatureMatchingSweep(std::vector<FeaturePair> pairs, int64_t length);

  int64_t segments() const { return static_cast<int64_t>(parts_.size()); }
  // Writes the signs of a segment, 0 beyond the end of its maps; null if not wanted.
  void run(int64_t segment, int8_t* signs);
  double loss() const;  // once all segments have run
  double slope(int64_t segment) const { return pairs_[parts_[segment].pair].slope; }

 private:
  struct Part {
    int64_t pair, begin, count;
  };
  template <typename T>
  double run_typed(const FeaturePair& pair, const Part& part, int8_t* signs) const;

  std::vector<FeaturePair> pairs_;
  int64_t length_;
  std::vector<Part> parts_;
  std::vector<double> sums_;  // one per segment
};

// target[i] = factor * signs[i] for `count` signs, NaN for the sign of NaN.
void apply_signs(const int8_t* signs, double factor, void* target, Dtype dtype, int64_t count);

}  // namespace fastgan
