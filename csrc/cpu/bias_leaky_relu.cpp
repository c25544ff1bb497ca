#include "bias_leaky_relu_sweep.h"
#include "channels.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {
namespace {

std::tuple<Tensor, Tensor> bias_leaky_relu_cpu(
    const Tensor& x, const std::optional<Tensor>& bias, double slope, double gain, double clamp, bool with_codes) {
  Tensor y = new_output(x, x.scalar_type());
  Tensor codes = with_codes ? empty_like(x, ScalarType::Byte) : torch::stable::new_empty(x, {0}, ScalarType::Byte);
  const Bias bias_values("bias_leaky_relu: bias", bias, x);
  const BiasLeakyReluSweep sweep(layout_of("bias_leaky_relu: x", x), dtype_of(x.scalar_type()), {slope, gain, clamp});
  for_all(sweep.runs().blocks(), kGrainBlocks, [&](int64_t block) {
    sweep.activate(
        block, x.data_ptr(), bias_values.values(), y.data_ptr(),
        with_codes ? static_cast<uint8_t*>(codes.data_ptr()) : nullptr);
  });
  return {y, codes};
}

std::tuple<Tensor, Tensor> bias_leaky_relu_backward_cpu(
    const Tensor& grad, const Tensor& codes, double slope, double gain, std::optional<ScalarType> bias_dtype) {
  check_laid_out_like("bias_leaky_relu: codes", codes, grad);
  Tensor grad_x = new_output(grad, grad.scalar_type());
  const BiasLeakyReluSweep sweep(
      layout_of("bias_leaky_relu: grad", grad), dtype_of(grad.scalar_type()), {slope, gain, 0});
  BiasGradient grad_bias(sweep.runs(), bias_dtype);
  for_all(sweep.runs().blocks(), kGrainBlocks, [&](int64_t block) {
    sweep.multiply(
        block, grad.data_ptr(), nullptr, static_cast<const uint8_t*>(codes.data_ptr()), grad_x.data_ptr(),
        grad_bias.sums());
  });
  return {grad_x, grad_bias.total(grad)};
}

Tensor bias_leaky_relu_tangent_cpu(
    const Tensor& tangent_x, const std::optional<Tensor>& tangent_bias, const Tensor& codes, double slope,
    double gain) {
  check_laid_out_like("bias_leaky_relu: codes", codes, tangent_x);
  Tensor result = new_output(tangent_x, tangent_x.scalar_type());
  const Bias bias_values("bias_leaky_relu: tangent_bias", tangent_bias, tangent_x);
  const BiasLeakyReluSweep sweep(
      layout_of("bias_leaky_relu: tangent_x", tangent_x), dtype_of(tangent_x.scalar_type()), {slope, gain, 0});
  for_all(sweep.runs().blocks(), kGrainBlocks, [&](int64_t block) {
    sweep.multiply(
        block, tangent_x.data_ptr(), bias_values.values(), static_cast<const uint8_t*>(codes.data_ptr()),
        result.data_ptr(), nullptr);
  });
  return result;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("bias_leaky_relu", TORCH_BOX(&fastgan::bias_leaky_relu_cpu));
  library.impl("bias_leaky_relu_backward", TORCH_BOX(&fastgan::bias_leaky_relu_backward_cpu));
  library.impl("bias_leaky_relu_tangent", TORCH_BOX(&fastgan::bias_leaky_relu_tangent_cpu));
}
