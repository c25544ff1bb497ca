#pragma once

#include <vector>

#include "../math/optimizer.h"
#include "pixels.h"

// The CPU kernels of the optimizers' step without torch: all tensors of a group as one list of blocks, so that many
// small tensors and few large ones both fill the threads.
namespace fastgan {

// One tensor, dense; all its arrays in the same order. Null where there is none.
struct OptimizedTensor {
  int64_t count = 0;
  double step = 0;  // the number of this step, from 1
  void* parameter = nullptr;
  const void* grad = nullptr;
  // RMSprop: square_avg, grad_avg, momentum_buffer; Adam: exp_avg_sq, exp_avg, max_exp_avg_sq
  void* states[3] = {nullptr, nullptr, nullptr};
  void* average = nullptr;
  Dtype parameter_dtype, grad_dtype, state_dtype, average_dtype;
};

// Sums over elements.
struct StepStatistics {
  double grad_square = 0, weight_square = 0, at_bound = 0;
};

class OptimizerSweep {
 public:
  // `readings` without its step, which each tensor has of its own. A step that does not apply has only statistics.
  OptimizerSweep(
      std::vector<OptimizedTensor> tensors, Algorithm algorithm, const StepNumbers& numbers,
      const StepReadings& readings, bool applies, bool with_statistics);

  int64_t blocks() const { return first_blocks_.back(); }
  int64_t elements() const { return elements_; }
  void run(int64_t block);
  StepStatistics statistics() const;  // after all blocks

 private:
  template <typename T>
  void run_typed(int64_t number, int64_t begin, int64_t end, StepStatistics* statistics) const;

  std::vector<OptimizedTensor> tensors_;
  Algorithm algorithm_;
  StepNumbers numbers_;
  StepReadings readings_;
  bool applies_;
  std::vector<int64_t> first_blocks_;  // of each tensor, and the end
  int64_t elements_ = 0;
  std::vector<StepStatistics> statistics_;  // of each block, or empty
};

// How many elements a block takes.
constexpr int64_t kOptimizerBlock = 16384;

}  // namespace fastgan
