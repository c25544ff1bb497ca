#include "gradient_budget_sweep.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {
namespace {

// A block of two gradients takes a few microseconds; waking a thread pays off from four blocks on.
constexpr int64_t kGrainBlocks = 4;

bool same_order(const Tensor& a, const Tensor& b) {
  for (int64_t i = 0; i < a.dim(); ++i)
    if (a.size(i) > 1 && a.stride(i) != b.stride(i)) return false;
  return true;
}

// The operator itself may be called with other tensors than the public function lets through.
void check_alike(const Tensor& first, const Tensor& gradient) {
  bool alike = gradient.dim() == first.dim() && gradient.scalar_type() == first.scalar_type();
  for (int64_t i = 0; alike && i < first.dim(); ++i) alike = gradient.size(i) == first.size(i);
  STD_TORCH_CHECK(alike, "gradient_budget: gradients must have one shape and dtype");
}

std::tuple<Tensor, Tensor> gradient_budget_cpu(
    const std::vector<Tensor>& gradients, const std::optional<Tensor>& weights) {
  STD_TORCH_CHECK(!gradients.empty(), "gradient_budget: there are no gradients");
  const Tensor& first = gradients[0];
  const int64_t count = static_cast<int64_t>(gradients.size());
  for (const Tensor& gradient : gradients) check_alike(first, gradient);
  STD_TORCH_CHECK(
      !weights || (weights->dim() == 1 && weights->size(0) == count), "gradient_budget: weights must have shape (",
      count, ",)");
  Tensor total = new_image(first, first.scalar_type());
  std::vector<Tensor> copies;  // of gradients in another memory order than the total, until the sweep is over
  std::vector<const void*> data;
  for (const Tensor& gradient : gradients) {
    const bool is_alike = same_order(gradient, total);
    if (!is_alike) torch::stable::copy_(copies.emplace_back(new_output(first, first.scalar_type())), gradient);
    data.push_back((is_alike ? gradient : copies.back()).data_ptr());
  }
  std::vector<double> factors(count, 1.0);
  if (weights) {
    const void* const values = weights->data_ptr();
    const double* const read =
        load(values, dtype_of(weights->scalar_type()), weights->stride(0), count, factors.data());
    if (read != factors.data()) factors.assign(read, read + count);
  }
  GradientBudgetSweep sweep(
      std::move(data), std::move(factors), dtype_of(first.scalar_type()), first.numel(), total.data_ptr());
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.run(block); });
  const std::vector<double> products = sweep.gram();
  const ScalarType dtype = first.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  Tensor gram = torch::stable::new_empty(first, {count, count}, dtype);
  store(products.data(), gram.data_ptr(), dtype_of(dtype), 1, count * count);
  return {gram, total};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("gradient_budget", TORCH_BOX(&fastgan::gradient_budget_cpu));
}
