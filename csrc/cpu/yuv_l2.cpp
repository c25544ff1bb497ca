#include "outputs.h"
#include "parallel.h"
#include "scale.h"
#include "yuv_l2_sweep.h"

namespace fastgan {
namespace {

// A block takes a few microseconds; waking a thread pays off from four blocks on.
constexpr int64_t kGrainBlocks = 4;
constexpr int64_t kGrainElements = 1 << 15;

Tensor new_empty(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType dtype) {
  return torch::stable::new_empty(like, sizes, dtype);
}

// 2 / (N H W), the factor of D in the gradient.
double mean_factor(const Tensor& image) { return 6.0 / static_cast<double>(image.numel()); }

// target = factor * source, for dense tensors of equal strides.
void scale_into(const Tensor& target, const Tensor& source, double factor) {
  const Dtype from = dtype_of(source.scalar_type()), to = dtype_of(target.scalar_type());
  const char* input = static_cast<const char*>(source.data_ptr());
  char* output = static_cast<char*>(target.data_ptr());
  torch::stable::parallel_for(0, source.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
    scale(input + begin * size_of(from), from, factor, output + begin * size_of(to), to, end - begin);
  });
}

double backward_factor(const Tensor& direction, const Tensor& grad_loss, int64_t sign, bool scaled) {
  check_dense("yuv_l2: direction", direction);
  return static_cast<double>(sign) * (scaled ? 1 : mean_factor(direction)) *
         numbers_in("yuv_l2: grad_loss", grad_loss, 1)[0];
}

std::tuple<Tensor, Tensor, Tensor> yuv_l2_cpu(
    const Tensor& x, const Tensor& y, const std::optional<Tensor>& edge_gain, double edge_gain_number, double scale_y,
    double scale_u, double scale_v, int64_t direction_sign, std::optional<ScalarType> direction_dtype) {
  check_colour("yuv_l2: x", x);
  check_alike("yuv_l2: y", y, x);
  const bool is_double = x.scalar_type() == ScalarType::Double || y.scalar_type() == ScalarType::Double;
  const ScalarType result_dtype = is_double ? ScalarType::Double : ScalarType::Float;
  Tensor direction = direction_dtype ? new_output(x, *direction_dtype) : new_empty(x, {0}, result_dtype);
  const double direction_factor = direction_sign == 0 ? 1 : static_cast<double>(direction_sign) * mean_factor(x);
  const double direction_scales[3] = {
      direction_factor * scale_y, direction_factor * scale_u, direction_factor * scale_v};
  YuvL2Sweep sweep(
      image_view(x), image_view(y), direction_dtype ? image_view(direction) : ImageView(),
      edge_gain ? numbers_in("yuv_l2: edge_gain", *edge_gain, 1)[0] : edge_gain_number, direction_scales);
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.run(block); });
  double means[3];
  sweep.channel_means(means);
  const double loss = scale_y * means[0] + scale_u * means[1] + scale_v * means[2];
  Tensor loss_tensor = new_empty(x, {}, result_dtype), channels = new_empty(x, {3}, result_dtype);
  store(&loss, loss_tensor.data_ptr(), dtype_of(result_dtype), 1, 1);
  store(means, channels.data_ptr(), dtype_of(result_dtype), 1, 3);
  return {loss_tensor, channels, direction};
}

Tensor yuv_l2_backward_cpu(
    const Tensor& direction, const Tensor& grad_loss, int64_t sign, bool scaled, ScalarType dtype) {
  Tensor grad = new_output(direction, dtype);
  scale_into(grad, direction, backward_factor(direction, grad_loss, sign, scaled));
  return grad;
}

void yuv_l2_backward_cpu_(const Tensor& direction, const Tensor& grad_loss, int64_t sign, bool scaled) {
  const double scale = backward_factor(direction, grad_loss, sign, scaled);
  if (scale != 1) scale_into(direction, direction, scale);
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("yuv_l2", TORCH_BOX(&fastgan::yuv_l2_cpu));
  library.impl("yuv_l2_backward", TORCH_BOX(&fastgan::yuv_l2_backward_cpu));
  library.impl("yuv_l2_backward_", TORCH_BOX(&fastgan::yuv_l2_backward_cpu_));
}
