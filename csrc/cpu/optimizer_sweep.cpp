#include "optimizer_sweep.h"

#include <algorithm>
#include <type_traits>

#include "../math/half.h"
#include "../math/philox.h"
#include "clones.h"
#include "squared_norm_sweep.h"

namespace fastgan {
namespace {

// Short enough to sum in float32, and for converted copies of half types to stay in the first-level cache.
constexpr int64_t kRun = 1024;

// The arrays of a run in the kernel's arithmetic. An array that is read and its new version may be the same memory.
template <typename T>
struct RunArrays {
  const T *grad, *parameter, *first, *second, *third, *average;
  T *new_parameter, *new_first, *new_second, *new_third, *new_average;
};

template <typename Kind, typename T>
FASTGAN_CLONES void step_run(RunArrays<T> a, StepConstants<T> c, int64_t count) {
  const T *grad = a.grad, *parameter = a.parameter, *first = a.first, *second = a.second, *third = a.third;
  const T* average = a.average;
  T *new_parameter = a.new_parameter, *new_first = a.new_first, *new_second = a.new_second, *new_third = a.new_third;
  T* new_average = a.new_average;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    StepElement<T> e;
    e.parameter = parameter[i];
    e.first = first[i];
    if (Kind::second) e.second = second[i];
    if (Kind::third) e.third = third[i];
    if (Kind::average) e.average = average[i];
    take_step(Kind(), c, grad[i], e);
    new_parameter[i] = e.parameter;
    new_first[i] = e.first;
    if (Kind::second) new_second[i] = e.second;
    if (Kind::third) new_third[i] = e.third;
    if (Kind::average) new_average[i] = e.average;
  }
}

template <typename T>
FASTGAN_CLONES void average_run(RunArrays<T> a, StepConstants<T> c, int64_t count) {
  const T *parameter = a.parameter, *average = a.average;
  T* new_average = a.new_average;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) new_average[i] = interpolated(average[i], parameter[i], c.average_weight);
}

template <bool... kFixed, typename T>
void with_kind(const RunArrays<T>& a, const StepConstants<T>& c, int64_t count) {
  step_run<FixedKind<kFixed...>>(a, c, count);
}

// Turns run-time flags into template arguments, one after the other.
template <bool... kFixed, typename T, typename... Rest>
void with_kind(const RunArrays<T>& a, const StepConstants<T>& c, int64_t count, bool next, Rest... rest) {
  if (next) {
    with_kind<kFixed..., true>(a, c, count, rest...);
  } else {
    with_kind<kFixed..., false>(a, c, count, rest...);
  }
}

template <typename T>
void run_formula(Algorithm algorithm, bool inside, const RunArrays<T>& a, const StepConstants<T>& c, int64_t count) {
  switch (algorithm) {
    case Algorithm::kRMSprop:
      return with_kind<false>(a, c, count, inside, a.second != nullptr, a.third != nullptr, a.average != nullptr);
    case Algorithm::kAdam: return with_kind<true, false, true>(a, c, count, a.third != nullptr, a.average != nullptr);
    case Algorithm::kAverage:
      if (a.average) average_run(a, c, count);
  }
}

template <typename T>
FASTGAN_CLONES int64_t at_bound_in_run(const T* values, StepConstants<T> c, int64_t count) {
  int64_t clipped = 0;
#pragma omp simd reduction(+ : clipped)
  for (int64_t i = 0; i < count; ++i) clipped += values[i] <= c.low || values[i] >= c.high;
  return clipped;
}

// Rounds stochastically with the tensor's sequence of random words from element `begin` on, a multiple of four.
template <typename T, typename Round>
void store_stochastically(
    const T* values, uint16_t* target, uint64_t seed, uint32_t tensor, int64_t begin, int64_t count, Round round) {
  for (int64_t i = 0; i < count; i += 4) {
    const Philox random = philox(seed, (begin + i) / 4, tensor);
    for (int64_t j = i; j < std::min(i + 4, count); ++j) {
      target[j] = round(static_cast<float>(values[j]), random.words[j - i]).bits;
    }
  }
}

// An array that a run reads and writes; null data if there is none.
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
  void* place() { return place_; }
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

OptimizerSweep::OptimizerSweep(
    std::vector<OptimizedTensor> tensors, Algorithm algorithm, const StepNumbers& numbers, const StepReadings& readings,
    bool applies, bool with_statistics)
    : tensors_(std::move(tensors)), algorithm_(algorithm), numbers_(numbers), readings_(readings), applies_(applies) {
  first_blocks_.push_back(0);
  for (const OptimizedTensor& tensor : tensors_) {
    first_blocks_.push_back(first_blocks_.back() + (tensor.count + kOptimizerBlock - 1) / kOptimizerBlock);
    elements_ += tensor.count;
  }
  if (with_statistics) statistics_.resize(blocks());
}

void OptimizerSweep::run(int64_t block) {
  const auto after = std::upper_bound(first_blocks_.begin(), first_blocks_.end(), block);
  const int64_t number = after - first_blocks_.begin() - 1;
  const OptimizedTensor& tensor = tensors_[number];
  const int64_t begin = (block - first_blocks_[number]) * kOptimizerBlock;
  const int64_t end = std::min(begin + kOptimizerBlock, tensor.count);
  StepStatistics* statistics = statistics_.empty() ? nullptr : &statistics_[block];
  if (tensor.parameter_dtype == Dtype::kFloat64) {
    run_typed<double>(number, begin, end, statistics);
  } else {
    run_typed<float>(number, begin, end, statistics);
  }
}

template <typename T>
void OptimizerSweep::run_typed(int64_t number, int64_t begin, int64_t end, StepStatistics* statistics) const {
  const OptimizedTensor& tensor = tensors_[number];
  StepReadings readings = readings_;
  readings.step = tensor.step;
  const bool adam = algorithm_ == Algorithm::kAdam;
  const StepPowers powers = adam ? step_powers(numbers_, tensor.step) : StepPowers();
  const StepConstants<T> c = step_constants<T>(algorithm_, numbers_, readings, powers);
  constexpr Dtype dtype = std::is_same<T, double>::value ? Dtype::kFloat64 : Dtype::kFloat32;
  const bool is_half = size_of(tensor.parameter_dtype) == 2;
  alignas(64) T grads[kRun];
  for (int64_t offset = begin; offset < end; offset += kRun) {
    const int64_t count = std::min(kRun, end - offset);
    const char* place = static_cast<const char*>(tensor.grad) + offset * size_of(tensor.grad_dtype);
    const T* grad = tensor.grad ? load(place, tensor.grad_dtype, 1, count, grads) : nullptr;
    Array<T> parameter(tensor.parameter, tensor.parameter_dtype, offset, count);
    Array<T> first(tensor.states[0], tensor.state_dtype, offset, count);
    Array<T> second(tensor.states[1], tensor.state_dtype, offset, count);
    Array<T> third(tensor.states[2], tensor.state_dtype, offset, count);
    Array<T> average(tensor.average, tensor.average_dtype, offset, count);
    const RunArrays<T> arrays = {grad,           parameter.read(), first.read(),      second.read(),
                                 third.read(),   average.read(),   parameter.write(), first.write(),
                                 second.write(), third.write(),    average.write()};
    if (statistics) statistics->grad_square += sum_of_squares(grad, dtype, count);
    if (applies_) {
      run_formula(algorithm_, numbers_.eps_inside_sqrt != 0, arrays, c, count);
      for (Array<T>* array : {&first, &second, &third, &average}) array->finish();
    }
    if (statistics) {
      const T* const weights = applies_ ? parameter.write() : parameter.read();
      statistics->weight_square += sum_of_squares(weights, dtype, count);
      statistics->at_bound += at_bound_in_run(weights, c, count);
    }
    if (!applies_ || algorithm_ == Algorithm::kAverage) continue;
    if (is_half && numbers_.rounding_seed >= 0) {
      const uint64_t seed = static_cast<uint64_t>(numbers_.rounding_seed) + static_cast<uint64_t>(tensor.step);
      const auto round = [&](auto rounded) {
        store_stochastically(
            parameter.write(), static_cast<uint16_t*>(parameter.place()), seed, static_cast<uint32_t>(number), offset,
            count, rounded);
      };
      tensor.parameter_dtype == Dtype::kBFloat16 ? round(stochastic_bfloat16) : round(stochastic_float16);
    } else {
      parameter.finish();
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
