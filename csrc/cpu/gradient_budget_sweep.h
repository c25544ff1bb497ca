#pragma once

#include <vector>

#include "pixels.h"

// All inner products of several gradients and their weighted sum, in one sweep; without torch. Block bounds do not
// depend on the number of threads, so the results are bit-identical for any number.
namespace fastgan {

class GradientBudgetSweep {
 public:
  // Each of `gradients` points to `elements` elements, of which those at the same place belong together; total receives
  // sum_t weights[t] * gradients[t] in the same dtype and order.
  GradientBudgetSweep(
      std::vector<const void*> gradients, std::vector<double> weights, Dtype dtype, int64_t elements, void* total);

  int64_t blocks() const { return blocks_; }
  void run(int64_t block);

  // The symmetric matrix of inner products, row by row. Valid once all blocks have run.
  std::vector<double> gram() const;

 private:
  template <typename S>
  void run_typed(int64_t block);

  std::vector<const void*> gradients_;
  std::vector<double> weights_;
  Dtype dtype_;
  int64_t elements_;
  void* total_;
  int64_t count_, group_, blocks_;
  std::vector<double> partial_sums_;  // [blocks, count, count], of which the upper triangle is used
};

}  // namespace fastgan
