#include <algorithm>
#include <cmath>

#include "outputs.h"
#include "parallel.h"
#include "scale.h"
#include "ssim_sweep.h"

namespace fastgan {
namespace {

constexpr int64_t kGrainElements = 1 << 15;

// From the centre outwards; a standard deviation of 0 stands for equal taps.
std::vector<double> window_of(int64_t size, double sigma) {
  STD_TORCH_CHECK(size > 0 && size % 2 == 1, "ssim: window_size must be odd and positive, got ", size);
  STD_TORCH_CHECK(sigma >= 0, "ssim: sigma must not be negative, got ", sigma);
  std::vector<double> taps(size / 2 + 1);
  double sum = 0;
  for (size_t k = 0; k < taps.size(); ++k) {
    const double distance = sigma > 0 ? static_cast<double>(k) / sigma : 0;
    taps[k] = std::exp(-distance * distance / 2);
    sum += (k > 0 ? 2 : 1) * taps[k];
  }
  for (double& tap : taps) tap /= sum;
  return taps;
}

void check_size(const Tensor& x, int64_t window_size, int64_t padding) {
  STD_TORCH_CHECK(padding >= 0 && padding <= 2, "ssim: padding must be 0, 1 or 2, got ", padding);
  const int64_t least = padding == 0 ? window_size : padding == 1 ? 1 : window_size / 2 + 1;
  STD_TORCH_CHECK(
      std::min(x.size(2), x.size(3)) >= least, "ssim: x must have at least ", least, " x ", least, " pixels, got ",
      x.size(2), " x ", x.size(3));
}

Tensor gradient_like(const Tensor& image, bool wanted) {
  const ScalarType dtype = image.scalar_type() == ScalarType::Half ? ScalarType::Float : image.scalar_type();
  return wanted ? new_image(image, dtype) : torch::stable::new_empty(image, {0}, dtype);
}

std::tuple<Tensor, Tensor, Tensor> ssim_cpu(
    const Tensor& x, const Tensor& y, int64_t window_size, double sigma, double c1, double c2, int64_t padding,
    bool contrast, double weight, double l1_weight, bool with_x, bool with_y) {
  check_alike("ssim: y", y, x);
  SsimOptions options;
  options.taps = window_of(window_size, sigma);
  check_size(x, window_size, padding);
  options.c1 = c1;
  options.c2 = c2;
  options.padding = static_cast<SsimPadding>(padding);
  options.contrast = contrast;
  options.weight = weight;
  options.l1_weight = l1_weight;
  options.gradient_scale = 1 / static_cast<double>(std::max<int64_t>(x.size(0) * x.size(1), 1));
  Tensor direction_x = gradient_like(x, with_x), direction_y = gradient_like(y, with_y);
  SsimSweep sweep(
      image_view(x), image_view(y), with_x ? image_view(direction_x) : ImageView(),
      with_y ? image_view(direction_y) : ImageView(), std::move(options));
  for_all(sweep.blocks(), 1, [&](int64_t block) { sweep.run(block); });
  const std::vector<double> losses = sweep.losses();
  const bool is_double = x.scalar_type() == ScalarType::Double || y.scalar_type() == ScalarType::Double;
  const ScalarType dtype = is_double ? ScalarType::Double : ScalarType::Float;
  Tensor result = torch::stable::new_empty(x, {x.size(0), x.size(1)}, dtype);
  store(losses.data(), result.data_ptr(), dtype_of(dtype), 1, static_cast<int64_t>(losses.size()));
  return {result, direction_x, direction_y};
}

// The factor of each channel's direction, which is the gradient of the mean of all channels' losses.
std::vector<double> factors_of(const Tensor& direction, const Tensor& grad) {
  STD_TORCH_CHECK(direction.dim() == 4, "ssim: direction must have 4 dimensions, got ", direction.dim());
  check_dense("ssim: direction", direction);
  const int64_t planes = direction.size(0) * direction.size(1);
  std::vector<double> factors = numbers_in("ssim: grad", grad, planes);
  for (double& factor : factors) factor *= static_cast<double>(planes);
  return factors;
}

template <typename T>
void scale_row(const ImageView& source, const ImageView& target, const int64_t (&at)[3], double factor, T* buffer) {
  const int64_t count = source.sizes[3];
  const T* values = load(source.at(at[0], at[1], at[2], 0), source.dtype, source.strides[3], count, buffer);
  for (int64_t i = 0; i < count; ++i) buffer[i] = static_cast<T>(factor) * values[i];
  store(buffer, target.at(at[0], at[1], at[2], 0), target.dtype, target.strides[3], count);
}

// target = factor of the channel * source; both are dense and have equal strides.
void scale_channels(const Tensor& source, const std::vector<double>& factors, const Tensor& target) {
  const Dtype from = dtype_of(source.scalar_type()), to = dtype_of(target.scalar_type());
  const bool equal = std::adjacent_find(factors.begin(), factors.end(), std::not_equal_to<>()) == factors.end();
  if (equal && !factors.empty()) {
    const char* input = static_cast<const char*>(source.data_ptr());
    char* output = static_cast<char*>(target.data_ptr());
    torch::stable::parallel_for(0, source.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      scale(input + begin * size_of(from), from, factors[0], output + begin * size_of(to), to, end - begin);
    });
    return;
  }
  const ImageView source_view = image_view(source), target_view = image_view(target);
  const int64_t channels = source.size(1), height = source.size(2), width = source.size(3);
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(width, 1));
  torch::stable::parallel_for(0, source.size(0) * channels * height, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> floats(width);
    std::vector<double> doubles(from == Dtype::kFloat64 || to == Dtype::kFloat64 ? width : 0);
    for (int64_t line = begin; line < end; ++line) {
      const int64_t plane = line / height, at[3] = {plane / channels, plane % channels, line % height};
      doubles.empty() ? scale_row(source_view, target_view, at, factors[plane], floats.data())
                      : scale_row(source_view, target_view, at, factors[plane], doubles.data());
    }
  });
}

Tensor ssim_backward_cpu(const Tensor& direction, const Tensor& grad, ScalarType dtype) {
  Tensor result = new_output(direction, dtype);
  scale_channels(direction, factors_of(direction, grad), result);
  return result;
}

void ssim_backward_cpu_(const Tensor& direction, const Tensor& grad) {
  const std::vector<double> factors = factors_of(direction, grad);
  // The incoming gradient is rounded, so that 1 / N times N may differ slightly from one.
  const double rounding = grad.scalar_type() == ScalarType::Double ? 4e-16 : 1e-7;
  const auto is_one = [&](double value) { return std::fabs(value - 1) < rounding; };
  if (!std::all_of(factors.begin(), factors.end(), is_one)) scale_channels(direction, factors, direction);
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("ssim", TORCH_BOX(&fastgan::ssim_cpu));
  library.impl("ssim_backward", TORCH_BOX(&fastgan::ssim_backward_cpu));
  library.impl("ssim_backward_", TORCH_BOX(&fastgan::ssim_backward_cpu_));
}
