#include "outputs.h"
#include "parallel.h"
#include "squared_norm_sweep.h"

namespace fastgan {
namespace {

// A block takes one or two microseconds; waking a thread pays off from four blocks on.
constexpr int64_t kGrainBlocks = 4;

SquaredNormSweep sweep_of(const Tensor& x) {
  // The operator itself may be called without samples; the public function refuses that.
  const int64_t samples = x.size(0);
  return SquaredNormSweep(x.data_ptr(), dtype_of(x.scalar_type()), samples, samples ? x.numel() / samples : 0);
}

Tensor squared_norm_cpu(const Tensor& x) {
  SquaredNormSweep sweep = sweep_of(x);
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.run(block); });
  std::vector<double> norms(x.size(0));
  for (int64_t n = 0; n < x.size(0); ++n) norms[n] = sweep.norm(n);
  const ScalarType dtype = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  Tensor result = torch::stable::new_empty(x, {x.size(0)}, dtype);
  store(norms.data(), result.data_ptr(), dtype_of(dtype), 1, x.size(0));
  return result;
}

Tensor squared_norm_backward_cpu(const Tensor& x, const Tensor& grad) {
  Tensor result = new_output(x, x.scalar_type());
  std::vector<double> factors = numbers_in("squared_norm: grad", grad, x.size(0));
  for (double& factor : factors) factor *= 2;
  const SquaredNormSweep sweep = sweep_of(x);
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.scale_block(block, factors, result.data_ptr()); });
  return result;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("squared_norm", TORCH_BOX(&fastgan::squared_norm_cpu));
  library.impl("squared_norm_backward", TORCH_BOX(&fastgan::squared_norm_backward_cpu));
}
