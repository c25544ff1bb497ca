#pragma once

#include <cstring>
#include <functional>
#include <initializer_list>
#include <vector>

#include "math/optimizer.h"
#include "stable.h"

// Checks and conversions of optimizer_step_'s arguments, shared by the CPU and CUDA kernels.
namespace fastgan {

inline StepNumbers step_numbers(const std::vector<double>& options) {
  STD_TORCH_CHECK(
      options.size() == StepNumbers::kCount, "optimizer_step takes ", StepNumbers::kCount, " numbers, got ",
      options.size());
  StepNumbers numbers;
  static_assert(sizeof(numbers) == StepNumbers::kCount * sizeof(double), "one number after the other");
  std::memcpy(&numbers, options.data(), sizeof(numbers));
  return numbers;
}

// `steps` has one number per parameter, or is empty. A list of arrays may be empty, and so may each of its tensors: an
// empty tensor stands for an array that does not exist.
inline void check_sizes(
    const std::vector<Tensor>& params, const std::vector<Tensor>& steps,
    std::initializer_list<std::reference_wrapper<const std::vector<Tensor>>> lists) {
  STD_TORCH_CHECK(!params.empty(), "optimizer_step: there are no parameters");
  STD_TORCH_CHECK(
      steps.empty() || steps.size() == params.size(), "optimizer_step: ", params.size(), " parameters, but ",
      steps.size(), " steps");
  for (const Tensor& step : steps) check_count("optimizer_step: a step", step, 1);
  for (const std::vector<Tensor>& list : lists) {
    STD_TORCH_CHECK(
        list.empty() || list.size() == params.size(), "optimizer_step: ", params.size(), " parameters, but ",
        list.size(), " of another array");
    for (size_t i = 0; i < list.size(); ++i) {
      const int64_t count = list[i].numel(), expected = params[i].numel();
      STD_TORCH_CHECK(
          count == expected || count == 0, "optimizer_step: a parameter of ", expected, " elements has an array of ",
          count);
    }
  }
}

// Checks the arrays that every step needs: gradients, averages of their squares and, for Adam, averages of them.
inline void check_complete(
    Algorithm algorithm, const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
    const std::vector<Tensor>& first, const std::vector<Tensor>& second, bool with_statistics) {
  const auto check = [&](const char* name, const std::vector<Tensor>& tensors) {
    for (size_t i = 0; i < params.size(); ++i) {
      const int64_t count = tensors.empty() ? 0 : tensors[i].numel();
      STD_TORCH_CHECK(
          count == params[i].numel(), "optimizer_step: parameter ", i, " of ", params[i].numel(), " elements has ",
          name, " of ", count);
    }
  };
  const bool steps = algorithm != Algorithm::kAverage;
  if (steps || with_statistics) check("a gradient", grads);
  if (steps) check("an average of squared gradients", first);
  if (algorithm == Algorithm::kAdam) check("an average of gradients", second);
}

// The data of the i-th tensor; null if the list is shorter or the tensor is empty.
inline void* array_of(const std::vector<Tensor>& tensors, size_t i) {
  return i < tensors.size() && tensors[i].numel() ? tensors[i].data_ptr() : nullptr;
}

inline Dtype dtype_at(const std::vector<Tensor>& tensors, size_t i) {
  return i < tensors.size() ? dtype_of(tensors[i].scalar_type()) : Dtype::kFloat32;
}

}  // namespace fastgan
