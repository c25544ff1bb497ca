#pragma once

#include <vector>

#include "pixels.h"

// Sums of squares of the samples of a batch, which lie one after the other, and their gradient; without torch. Block
// bounds do not depend on the number of threads, so the sums are bit-identical for any number.
namespace fastgan {

// The sum of squares of `count` elements from `data` on: chunks of 1024 are summed in float32 (float64 for float64),
// and their sums in float64.
double sum_of_squares(const void* data, Dtype dtype, int64_t count);

class SquaredNormSweep {
 public:
  // Each sample has `elements` elements, which may be in any order.
  SquaredNormSweep(const void* data, Dtype dtype, int64_t samples, int64_t elements);

  int64_t blocks() const { return blocks_; }
  void run(int64_t block);

  // Valid once all blocks have run.
  double norm(int64_t sample) const;

  // target = factors[sample] * data, in the same dtype and order.
  void scale_block(int64_t block, const std::vector<double>& factors, void* target) const;

 private:
  struct Part {
    int64_t sample, begin, count;
  };
  Part part(int64_t block) const;

  const char* data_;
  Dtype dtype_;
  int64_t elements_, blocks_per_sample_, blocks_;
  std::vector<double> partial_sums_;  // [blocks]
};

}  // namespace fastgan
