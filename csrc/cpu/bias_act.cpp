#include "bias_act_sweep.h"
#include "channels.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {
namespace {

Activation activation_of(int64_t number, int64_t count) {
  STD_TORCH_CHECK(0 <= number && number < count, "bias_act: act must lie in [0, ", count, "), got ", number);
  return static_cast<Activation>(number);
}

// What backward sweeps read besides gradients.
struct Saved {
  Saved(const std::optional<Tensor>& saved, const std::optional<Tensor>& bias, Activation act, const Tensor& grad)
      : bias("bias_act: bias", bias, grad) {
    if (act == Activation::kLinear) return;
    STD_TORCH_CHECK(saved.has_value(), "bias_act: saved must be given for this act");
    check_same("bias_act: saved", *saved, grad);
    data = saved->data_ptr();
  }
  static void check_same(const char* name, const Tensor& tensor, const Tensor& grad) {
    check_laid_out_like(name, tensor, grad);
    STD_TORCH_CHECK(tensor.scalar_type() == grad.scalar_type(), name, " must have the gradient's dtype");
  }

  Bias bias;
  const void* data = nullptr;
};

Tensor bias_act_cpu(const Tensor& x, const std::optional<Tensor>& bias, int64_t act, double gain, double clamp) {
  Tensor y = new_output(x, x.scalar_type());
  const Bias bias_values("bias_act: bias", bias, x);
  const BiasActSweep sweep(
      layout_of("bias_act: x", x), dtype_of(x.scalar_type()), {activation_of(act, kActivations), gain, clamp});
  for_all(sweep.runs().blocks(), kGrainBlocks, [&](int64_t block) {
    sweep.activate(block, x.data_ptr(), bias_values.values(), y.data_ptr());
  });
  return y;
}

std::tuple<Tensor, Tensor> bias_act_backward_cpu(
    const Tensor& grad, const std::optional<Tensor>& saved, const std::optional<Tensor>& bias, int64_t act, double gain,
    double clamp, std::optional<ScalarType> bias_dtype) {
  const BiasActOptions options{activation_of(act, kDerivatives), gain, clamp};
  const Saved inputs(saved, bias, options.activation, grad);
  Tensor grad_x = new_output(grad, grad.scalar_type());
  const BiasActSweep sweep(layout_of("bias_act: grad", grad), dtype_of(grad.scalar_type()), options);
  BiasGradient grad_bias(sweep.runs(), bias_dtype);
  for_all(sweep.runs().blocks(), kGrainBlocks, [&](int64_t block) {
    sweep.backward(block, grad.data_ptr(), inputs.data, inputs.bias.values(), grad_x.data_ptr(), grad_bias.sums());
  });
  return {grad_x, grad_bias.total(grad)};
}

std::tuple<Tensor, Tensor, Tensor> bias_act_double_backward_cpu(
    const Tensor& grad, const Tensor& tangent_x, const std::optional<Tensor>& tangent_bias,
    const std::optional<Tensor>& saved, const std::optional<Tensor>& bias, int64_t act, double gain, double clamp,
    bool with_saved, std::optional<ScalarType> bias_dtype) {
  const BiasActOptions options{activation_of(act, kDerivatives), gain, clamp};
  const Saved inputs(saved, bias, options.activation, grad);
  Saved::check_same("bias_act: tangent_x", tangent_x, grad);
  const Bias tangent_values("bias_act: tangent_bias", tangent_bias, grad);
  Tensor grad_grad = new_output(grad, grad.scalar_type());
  Tensor grad_saved =
      with_saved ? new_output(grad, grad.scalar_type()) : torch::stable::new_empty(grad, {0}, grad.scalar_type());
  const BiasActSweep sweep(layout_of("bias_act: grad", grad), dtype_of(grad.scalar_type()), options);
  BiasGradient grad_bias(sweep.runs(), bias_dtype);
  const BiasActSweep::DoubleBackward tensors{
      grad.data_ptr(),
      tangent_x.data_ptr(),
      tangent_values.values(),
      inputs.data,
      inputs.bias.values(),
      grad_grad.data_ptr(),
      with_saved ? grad_saved.data_ptr() : nullptr,
      grad_bias.sums()};
  for_all(sweep.runs().blocks(), kGrainBlocks, [&](int64_t block) { sweep.double_backward(block, tensors); });
  return {grad_grad, grad_saved, grad_bias.total(grad)};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("bias_act", TORCH_BOX(&fastgan::bias_act_cpu));
  library.impl("bias_act_backward", TORCH_BOX(&fastgan::bias_act_backward_cpu));
  library.impl("bias_act_double_backward", TORCH_BOX(&fastgan::bias_act_double_backward_cpu));
}
