#include <algorithm>

#include "../optimizer_arguments.h"
#include "optimizer_sweep.h"
#include "parallel.h"
#include "squared_norm_sweep.h"

namespace fastgan {
namespace {

// A step over fewer elements finishes before another thread would have woken.
constexpr int64_t kSerialElements = 32768;

double number_in(const char* name, const std::optional<Tensor>& tensor, double fallback) {
  return tensor ? numbers_in(name, *tensor, 1)[0] : fallback;
}

Tensor optimizer_step_cpu_(
    int64_t algorithm, const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
    const std::vector<Tensor>& first, const std::vector<Tensor>& second, const std::vector<Tensor>& third,
    const std::vector<Tensor>& averages, const std::vector<Tensor>& steps, const std::vector<double>& options,
    const std::optional<Tensor>& lr, const std::optional<Tensor>& grad_scale, const std::optional<Tensor>& found_inf,
    const std::optional<Tensor>& grad_norm, const std::optional<Tensor>& updates, bool with_statistics) {
  check_sizes(params, steps, {grads, first, second, third, averages});
  check_complete(static_cast<Algorithm>(algorithm), params, grads, first, second, with_statistics);
  Tensor result = torch::stable::new_empty(params[0], {with_statistics ? 3 : 0}, ScalarType::Double);
  StepStatistics statistics;
  const bool applies = number_in("optimizer_step: found_inf", found_inf, 0) == 0;
  if (applies || with_statistics) {
    const StepNumbers numbers = step_numbers(options);
    StepReadings readings;
    readings.lr = number_in("optimizer_step: lr", lr, numbers.lr);
    readings.unscale = 1 / number_in("optimizer_step: grad_scale", grad_scale, 1);
    readings.grad_norm = number_in("optimizer_step: grad_norm", grad_norm, 0);
    if (updates) readings.updates = static_cast<double>(integer_in("optimizer_step: updates", *updates));
    std::vector<OptimizedTensor> tensors(params.size());
    for (size_t i = 0; i < params.size(); ++i) {
      OptimizedTensor& tensor = tensors[i];
      tensor.count = params[i].numel();
      if (!steps.empty()) {
        tensor.step = numbers_in("optimizer_step: a step", steps[i], 1)[0] + 1;
        if (applies) store(&tensor.step, steps[i].data_ptr(), dtype_of(steps[i].scalar_type()), 1, 1);
      }
      tensor.parameter = params[i].data_ptr();
      tensor.parameter_dtype = dtype_at(params, i);
      tensor.grad = array_of(grads, i);
      tensor.grad_dtype = dtype_at(grads, i);
      tensor.states[0] = array_of(first, i);
      tensor.states[1] = array_of(second, i);
      tensor.states[2] = array_of(third, i);
      tensor.state_dtype = dtype_at(first, i);
      tensor.average = array_of(averages, i);
      tensor.average_dtype = dtype_at(averages, i);
    }
    OptimizerSweep sweep(
        std::move(tensors), static_cast<Algorithm>(algorithm), numbers, readings, applies, with_statistics);
    const int64_t blocks = sweep.blocks();
    for_all(blocks, sweep.elements() < kSerialElements ? blocks : 1, [&](int64_t block) { sweep.run(block); });
    statistics = sweep.statistics();
    statistics.grad_square *= readings.unscale * readings.unscale;
    if (applies && updates && numbers.counts_update != 0) ++*static_cast<int64_t*>(updates->data_ptr());
  }
  if (with_statistics) {
    const double values[3] = {statistics.grad_square, statistics.weight_square, statistics.at_bound};
    std::copy_n(values, 3, static_cast<double*>(result.data_ptr()));
  }
  return result;
}

Tensor gradient_norm_cpu(const std::vector<Tensor>& grads) {
  STD_TORCH_CHECK(!grads.empty(), "gradient_norm: there are no gradients");
  struct Part {
    const char* data;
    Dtype dtype;
    int64_t count;
  };
  std::vector<Part> parts;
  bool is_double = false;
  int64_t elements = 0;
  for (const Tensor& grad : grads) {
    const Dtype dtype = dtype_of(grad.scalar_type());
    is_double |= dtype == Dtype::kFloat64;
    elements += grad.numel();
    for (int64_t begin = 0; begin < grad.numel(); begin += kOptimizerBlock) {
      const char* data = static_cast<const char*>(grad.data_ptr()) + begin * size_of(dtype);
      parts.push_back({data, dtype, std::min(kOptimizerBlock, grad.numel() - begin)});
    }
  }
  std::vector<double> squares(parts.size());
  const int64_t blocks = static_cast<int64_t>(parts.size());
  for_all(blocks, elements < kSerialElements ? blocks : 1, [&](int64_t block) {
    squares[block] = sum_of_squares(parts[block].data, parts[block].dtype, parts[block].count);
  });
  double sum = 0;
  for (const double square : squares) sum += square;
  const double norm = std::sqrt(sum);
  Tensor result = torch::stable::new_empty(grads[0], {}, is_double ? ScalarType::Double : ScalarType::Float);
  store(&norm, result.data_ptr(), is_double ? Dtype::kFloat64 : Dtype::kFloat32, 1, 1);
  return result;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("optimizer_step_", TORCH_BOX(&fastgan::optimizer_step_cpu_));
  library.impl("gradient_norm", TORCH_BOX(&fastgan::gradient_norm_cpu));
}
