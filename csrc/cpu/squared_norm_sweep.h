#pragma once

#include <vector>

#include "pixels.h"

// Sums of squares of samples that lie one after the other, and their gradient; without torch. Blocks are the same for
// any number of threads, and so are the sums' bits.
namespace fastgan {

// The sum of squares of `count` elements from `data` on, added in float32 (float64 for float64) by the thousand.
double sum_of_squares(const void* data, Dtype dtype, int64_t count);

class SquaredNormSweep {
 public:
  // `elements` of each sample, in any order inside it.
  SquaredNormSweep(const void* data, Dtype dtype, int64_t samples, int64_t elements);

  int64_t blocks() const { return blocks_; }
  void run(int64_t block);

  // After all blocks.
  double norm(int64_t sample) const;

  // target = factors[sample] * data, of the same dtype and order.
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
