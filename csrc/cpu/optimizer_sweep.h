#pragma once

#include <vector>

#include "../math/optimizer.h"
#include "pixels.h"

// The CPU kernels of the optimizers' step without torch. All tensors of a parameter group form one list of blocks, so
// that many small tensors keep all threads busy as well as a few large ones do.
namespace fastgan {

// One parameter with its arrays, all dense and in the same memory order. An array that does not exist is null.
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
  // `readings.step` is ignored: each tensor has its own. If not `applies`, only the statistics are computed.
  OptimizerSweep(
      std::vector<OptimizedTensor> tensors, Algorithm algorithm, const StepNumbers& numbers,
      const StepReadings& readings, bool applies, bool with_statistics);

  int64_t blocks() const { return first_blocks_.back(); }
  int64_t elements() const { return elements_; }
  void run(int64_t block);
  StepStatistics statistics() const;  // once all blocks have run

 private:
  template <typename T>
  void run_typed(int64_t number, int64_t begin, int64_t end, StepStatistics* statistics) const;

  std::vector<OptimizedTensor> tensors_;
  Algorithm algorithm_;
  StepNumbers numbers_;
  StepReadings readings_;
  bool applies_;
  std::vector<int64_t> first_blocks_;  // the first block of each tensor, then the number of blocks
  int64_t elements_ = 0;
  std::vector<StepStatistics> statistics_;  // one per block, or empty
};

// Elements per block.
constexpr int64_t kOptimizerBlock = 16384;

}  // namespace fastgan
