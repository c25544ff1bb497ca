#pragma once

#include <vector>

#include "../math/optimizer.h"
#include "pixels.h"

// The CPU kernels of the optimizers' step without torch: all tensors of a group as one list of blocks, so that many
// small tensors and few large ones both fill the threads.
namespace fastgan {

struct OptimizerOptions {
  Algorithm algorithm = Algorithm::kRMSprop;
  double lr = 0, weight_decay = 0, momentum = 0, decay = 0, eps = 0;
  bool decoupled = false, maximize = false, eps_inside_sqrt = false;
  double grad_factor = 1, grad_bound = INFINITY, low = -INFINITY, high = INFINITY, average_weight = 0;
};

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
  OptimizerSweep(std::vector<OptimizedTensor> tensors, OptimizerOptions options, bool with_statistics);

  int64_t blocks() const { return first_blocks_.back(); }
  int64_t elements() const { return elements_; }
  void run(int64_t block);
  StepStatistics statistics() const;  // after all blocks

 private:
  template <typename T>
  void run_typed(const OptimizedTensor& tensor, int64_t begin, int64_t end, StepStatistics* statistics) const;
  template <typename T>
  StepConstants<T> constants(double step) const;

  std::vector<OptimizedTensor> tensors_;
  OptimizerOptions options_;
  std::vector<int64_t> first_blocks_;  // of each tensor, and the end
  int64_t elements_ = 0;
  std::vector<StepStatistics> statistics_;  // of each block, or empty
};

// How many elements a block takes.
constexpr int64_t kOptimizerBlock = 16384;

}  // namespace fastgan
