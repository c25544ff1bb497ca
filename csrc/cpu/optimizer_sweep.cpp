#include "optimizer_sweep.h"

#include <algorithm>
#include <type_traits>

#include "clones.h"
#include "squared_norm_sweep.h"

namespace fastgan {
namespace {

// What a run needs stays in the first-level cache between its passes, and is short enough to add in float32.
constexpr int64_t kRun = 1024;

template <typename T>
FASTGAN_CLONES void prepare_run(
    const T* grad, const T* parameter, StepConstants<T> c, int64_t count, T* prepared, T* shrunk) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    prepared[i] = prepared_gradient(grad[i], parameter[i], c);
    shrunk[i] = parameter[i] * c.shrinkage;
  }
}

// RMSprop's step; `mean` is the gradient's average, or null.
template <bool kInside, typename T>
FASTGAN_CLONES void rmsprop_run(
    const T* grad, StepConstants<T> c, int64_t count, const T* square, T* new_square, const T* mean, T* new_mean,
    T* step) {
  if (mean) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const T average = mean_square(square[i], grad[i], c);
      const T center = interpolated(mean[i], grad[i], c.mean_renewal);
      const T variance = average - center * center;
      new_square[i] = average;
      new_mean[i] = center;
      step[i] = c.step_size * grad[i] / (kInside ? std::sqrt(variance + c.eps) : std::sqrt(variance) + c.eps);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const T average = mean_square(square[i], grad[i], c);
      new_square[i] = average;
      step[i] = c.step_size * grad[i] / (kInside ? std::sqrt(average + c.eps) : std::sqrt(average) + c.eps);
    }
  }
}

template <typename T>
FASTGAN_CLONES void momentum_run(T* step, StepConstants<T> c, int64_t count, const T* buffer, T* new_buffer) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    new_buffer[i] = c.momentum * buffer[i] + step[i];
    step[i] = c.momentum_step_size * new_buffer[i];
  }
}

// Adam's step; `largest` is AMSGrad's, or null.
template <typename T>
FASTGAN_CLONES void adam_run(
    const T* grad, StepConstants<T> c, int64_t count, const T* square, T* new_square, const T* mean, T* new_mean,
    const T* largest, T* new_largest, T* step) {
  if (largest) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const T average = mean_square(square[i], grad[i], c);
      const T center = interpolated(mean[i], grad[i], c.mean_renewal);
      // NaN on either side is the larger.
      const T most = largest[i] > average || largest[i] != largest[i] ? largest[i] : average;
      new_square[i] = average;
      new_mean[i] = center;
      new_largest[i] = most;
      step[i] = c.step_size * center / (std::sqrt(most) / c.correction + c.eps);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const T average = mean_square(square[i], grad[i], c);
      const T center = interpolated(mean[i], grad[i], c.mean_renewal);
      new_square[i] = average;
      new_mean[i] = center;
      step[i] = c.step_size * center / (std::sqrt(average) / c.correction + c.eps);
    }
  }
}

template <typename T>
FASTGAN_CLONES void apply_run(const T* shrunk, const T* step, StepConstants<T> c, int64_t count, T* parameter) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    parameter[i] = bounded_between(shrunk[i] - step[i], c.low, c.high);
  }
}

template <typename T>
FASTGAN_CLONES void average_run(const T* parameter, T weight, int64_t count, const T* average, T* new_average) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) new_average[i] = interpolated(average[i], parameter[i], weight);
}

template <typename T>
FASTGAN_CLONES int64_t at_bound_in_run(const T* values, StepConstants<T> c, int64_t count) {
  int64_t found = 0;
#pragma omp simd reduction(+ : found)
  for (int64_t i = 0; i < count; ++i) found += values[i] <= c.low || values[i] >= c.high;
  return found;
}

// An array that a run reads and writes, as numbers of the kernel's arithmetic.
template <typename T>
class Array {
 public:
  Array(void* data, Dtype dtype, int64_t offset, int64_t count)
      : place_(data ? static_cast<char*>(data) + offset * size_of(dtype) : nullptr), dtype_(dtype), count_(count) {
    if (!place_) return;
    read_ = load(place_, dtype_, 1, count_, input_);
    write_ = target_of(place_, dtype_, 1, output_);
  }
  const T* read() const { return read_; }
  T* write() { return write_; }
  void finish() {
    if (place_) store(write_, place_, dtype_, 1, count_);
  }

 private:
  char* place_;
  Dtype dtype_;
  int64_t count_;
  const T* read_ = nullptr;
  T* write_ = nullptr;
  alignas(64) T input_[kRun], output_[kRun];
};

}  // namespace

OptimizerSweep::OptimizerSweep(std::vector<OptimizedTensor> tensors, OptimizerOptions options, bool with_statistics)
    : tensors_(std::move(tensors)), options_(options) {
  first_blocks_.push_back(0);
  for (const OptimizedTensor& tensor : tensors_) {
    first_blocks_.push_back(first_blocks_.back() + (tensor.count + kOptimizerBlock - 1) / kOptimizerBlock);
    elements_ += tensor.count;
  }
  if (with_statistics) statistics_.resize(blocks());
}

template <typename T>
StepConstants<T> OptimizerSweep::constants(double step) const {
  const OptimizerOptions& o = options_;
  const bool adam = o.algorithm == Algorithm::kAdam;
  StepConstants<T> c;
  c.grad_factor = static_cast<T>(o.maximize ? -o.grad_factor : o.grad_factor);
  c.grad_bound = static_cast<T>(o.grad_bound);
  c.weight_decay = static_cast<T>(o.decoupled ? 0 : o.weight_decay);
  c.shrinkage = static_cast<T>(o.decoupled ? 1 - o.lr * o.weight_decay : 1);
  c.step_size = static_cast<T>(adam ? o.lr / (1 - std::pow(o.momentum, step)) : o.momentum ? 1 : o.lr);
  c.momentum_step_size = static_cast<T>(o.lr);
  c.momentum = static_cast<T>(o.momentum);
  c.decay = static_cast<T>(o.decay);
  c.renewal = static_cast<T>(1 - o.decay);
  c.mean_renewal = static_cast<T>(adam ? 1 - o.momentum : 1 - o.decay);
  c.correction = static_cast<T>(adam ? std::sqrt(1 - std::pow(o.decay, step)) : 1);
  c.eps = static_cast<T>(o.eps);
  c.low = static_cast<T>(o.low);
  c.high = static_cast<T>(o.high);
  c.average_weight = static_cast<T>(o.average_weight);
  return c;
}

void OptimizerSweep::run(int64_t block) {
  const auto after = std::upper_bound(first_blocks_.begin(), first_blocks_.end(), block);
  const int64_t number = after - first_blocks_.begin() - 1;
  const OptimizedTensor& tensor = tensors_[number];
  const int64_t begin = (block - first_blocks_[number]) * kOptimizerBlock;
  const int64_t end = std::min(begin + kOptimizerBlock, tensor.count);
  StepStatistics* statistics = statistics_.empty() ? nullptr : &statistics_[block];
  if (tensor.parameter_dtype == Dtype::kFloat64) {
    run_typed<double>(tensor, begin, end, statistics);
  } else {
    run_typed<float>(tensor, begin, end, statistics);
  }
}

template <typename T>
void OptimizerSweep::run_typed(
    const OptimizedTensor& tensor, int64_t begin, int64_t end, StepStatistics* statistics) const {
  const StepConstants<T> c = constants<T>(tensor.step);
  constexpr Dtype dtype = std::is_same<T, double>::value ? Dtype::kFloat64 : Dtype::kFloat32;
  alignas(64) T grads[kRun], prepared[kRun], shrunk[kRun], steps[kRun];
  for (int64_t offset = begin; offset < end; offset += kRun) {
    const int64_t count = std::min(kRun, end - offset);
    const char* grad_place = static_cast<const char*>(tensor.grad) + offset * size_of(tensor.grad_dtype);
    const T* grad = load(grad_place, tensor.grad_dtype, 1, count, grads);
    Array<T> parameter(tensor.parameter, tensor.parameter_dtype, offset, count);
    Array<T> first(tensor.states[0], tensor.state_dtype, offset, count);
    Array<T> second(tensor.states[1], tensor.state_dtype, offset, count);
    Array<T> third(tensor.states[2], tensor.state_dtype, offset, count);
    Array<T> average(tensor.average, tensor.average_dtype, offset, count);

    prepare_run(grad, parameter.read(), c, count, prepared, shrunk);
    if (options_.algorithm == Algorithm::kAdam) {
      adam_run(
          prepared, c, count, first.read(), first.write(), second.read(), second.write(), third.read(), third.write(),
          steps);
    } else {
      const auto rmsprop = options_.eps_inside_sqrt ? rmsprop_run<true, T> : rmsprop_run<false, T>;
      rmsprop(prepared, c, count, first.read(), first.write(), second.read(), second.write(), steps);
      if (third.read()) momentum_run(steps, c, count, third.read(), third.write());
    }
    apply_run(shrunk, steps, c, count, parameter.write());
    if (statistics) {
      statistics->grad_square += sum_of_squares(grad, dtype, count);
      statistics->weight_square += sum_of_squares(parameter.write(), dtype, count);
      statistics->at_bound += at_bound_in_run(parameter.write(), c, count);
    }
    for (Array<T>* array : {&parameter, &first, &second, &third}) array->finish();
    if (average.read()) {
      average_run(parameter.write(), c.average_weight, count, average.read(), average.write());
      average.finish();
    }
  }
}

StepStatistics OptimizerSweep::statistics() const {
  StepStatistics sum;
  for (const StepStatistics& part : statistics_) {
    sum.grad_square += part.grad_square;
    sum.weight_square += part.weight_square;
    sum.at_bound += part.at_bound;
  }
  return sum;
}

}  // namespace fastgan
