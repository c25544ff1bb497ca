#include "bias_leaky_relu_sweep.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {
namespace {

// A block takes a few microseconds; waking a thread pays off from two blocks on.
constexpr int64_t kGrainBlocks = 2;

// How the channels of a contiguous or channels-last tensor lie in memory; see fastgan/ops/bias_leaky_relu.py.
ChannelLayout layout_of(const Tensor& x) {
  const int64_t channels = x.size(1), length = channels > 1 ? x.stride(1) : x.numel();
  if (x.numel() == 0) return {0, channels, 1};
  return {x.numel() / (channels * length), channels, length};
}

// The bias in the kernels' arithmetic, one value per channel: double for double tensors, else float.
class Bias {
 public:
  Bias(const std::optional<Tensor>& bias, const Tensor& x) {
    if (!bias) return;
    check_count("bias_leaky_relu: bias", *bias, x.size(1));
    const int64_t count = bias->numel(), stride = count > 1 ? bias->stride(0) : 1;
    const Dtype dtype = dtype_of(bias->scalar_type());
    if (x.scalar_type() == ScalarType::Double) {
      doubles_.resize(count);
      values_ = load(bias->data_ptr(), dtype, stride, count, doubles_.data());
    } else {
      floats_.resize(count);
      values_ = load(bias->data_ptr(), dtype, stride, count, floats_.data());
    }
  }
  const void* values() const { return values_; }

 private:
  std::vector<float> floats_;
  std::vector<double> doubles_;
  const void* values_ = nullptr;
};

std::tuple<Tensor, Tensor> bias_leaky_relu_cpu(
    const Tensor& x, const std::optional<Tensor>& bias, double slope, double gain, double clamp, bool with_codes) {
  Tensor y = new_output(x, x.scalar_type());
  Tensor codes = with_codes ? empty_like(x, ScalarType::Byte) : torch::stable::new_empty(x, {0}, ScalarType::Byte);
  const Bias bias_values(bias, x);
  const BiasLeakyReluSweep sweep(layout_of(x), dtype_of(x.scalar_type()), {slope, gain, clamp});
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) {
    sweep.activate(
        block, x.data_ptr(), bias_values.values(), y.data_ptr(),
        with_codes ? static_cast<uint8_t*>(codes.data_ptr()) : nullptr);
  });
  return {y, codes};
}

std::tuple<Tensor, Tensor> bias_leaky_relu_backward_cpu(
    const Tensor& grad, const Tensor& codes, double slope, double gain, std::optional<ScalarType> bias_dtype) {
  check_count("bias_leaky_relu: codes", codes, grad.numel());
  Tensor grad_x = new_output(grad, grad.scalar_type());
  const BiasLeakyReluSweep sweep(layout_of(grad), dtype_of(grad.scalar_type()), {slope, gain, 0});
  std::vector<double> sums;
  if (bias_dtype) sums = sweep.new_sums();
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) {
    sweep.multiply(
        block, grad.data_ptr(), nullptr, static_cast<const uint8_t*>(codes.data_ptr()), grad_x.data_ptr(),
        bias_dtype ? sums.data() : nullptr);
  });
  if (!bias_dtype) return {grad_x, torch::stable::new_empty(grad, {0}, ScalarType::Float)};
  Tensor grad_bias = torch::stable::new_empty(grad, {grad.size(1)}, *bias_dtype);
  const std::vector<double> totals = sweep.channel_sums(sums);
  store(totals.data(), grad_bias.data_ptr(), dtype_of(*bias_dtype), 1, grad.size(1));
  return {grad_x, grad_bias};
}

Tensor bias_leaky_relu_tangent_cpu(
    const Tensor& tangent_x, const std::optional<Tensor>& tangent_bias, const Tensor& codes, double slope,
    double gain) {
  check_count("bias_leaky_relu: codes", codes, tangent_x.numel());
  Tensor result = new_output(tangent_x, tangent_x.scalar_type());
  const Bias bias_values(tangent_bias, tangent_x);
  const BiasLeakyReluSweep sweep(layout_of(tangent_x), dtype_of(tangent_x.scalar_type()), {slope, gain, 0});
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) {
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
