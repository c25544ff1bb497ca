#include <algorithm>
#include <cmath>

#include "feature_distance_sweep.h"
#include "feature_tensors.h"
#include "outputs.h"
#include "parallel.h"
#include "scale.h"

namespace fastgan {
namespace {

// A tile takes ten microseconds or more.
constexpr int64_t kGrainBlocks = 2;
constexpr int64_t kGrainElements = 1 << 15;

// Multiplies each sample of a direction by its own factor.
void scale_samples(const Tensor& direction, const std::vector<double>& factors, void* target) {
  if (direction.numel() == 0) return;
  const Dtype dtype = dtype_of(direction.scalar_type());
  const int64_t length = direction.numel() / direction.size(0);
  const int64_t parts = (length + kGrainElements - 1) / kGrainElements;
  for_all(direction.size(0) * parts, 1, [&](int64_t block) {
    const int64_t sample = block / parts, begin = block % parts * kGrainElements;
    const int64_t offset = (sample * length + begin) * size_of(dtype);
    scale(
        static_cast<const char*>(direction.data_ptr()) + offset, dtype, factors[sample],
        static_cast<char*>(target) + offset, dtype, std::min(kGrainElements, length - begin));
  });
}

// 1 / (N P), by which the gradient of the mean over the batch differs from P times the gradient of one distance.
double mean_factor(const Tensor& map) { return static_cast<double>(map.size(1)) / static_cast<double>(map.numel()); }

// The factor of each sample that turns its direction into the gradient.
std::vector<double> factors_of(const Tensor& direction, const Tensor& grad, bool of_mean) {
  check_layout("feature_distance: direction", direction);
  const double factor = static_cast<double>(direction.size(0)) * (of_mean ? 1 : mean_factor(direction));
  std::vector<double> factors = numbers_in("feature_distance: grad", grad, direction.size(0));
  for (double& value : factors) value *= factor;
  return factors;
}

// The weights of a mean over channels.
std::vector<double> equal_weights(const Tensor& map) {
  return std::vector<double>(map.size(1), 1 / static_cast<double>(map.size(1)));
}

std::tuple<Tensor, Tensor, Tensor> feature_distance_cpu(
    const Tensor& x, const Tensor& y, const std::optional<Tensor>& weight, int64_t power, bool normalize, double eps,
    bool relu_x, bool of_mean, bool with_x, bool with_y) {
  check_layout("feature_distance: x", x);
  check_same_layout("feature_distance: y", y, "x", x);
  const auto direction_of = [](const Tensor& map, bool wanted) {
    return wanted ? new_image(map, map.scalar_type()) : torch::stable::new_empty(map, {0}, map.scalar_type());
  };
  Tensor direction_x = direction_of(x, with_x), direction_y = direction_of(y, with_y);
  FeatureOptions options;
  options.power = static_cast<int>(power);
  options.normalize = normalize;
  options.eps = eps;
  options.relu_x = relu_x;
  options.direction_factor = of_mean ? mean_factor(x) : 1;
  FeatureDistanceSweep sweep(
      layout_of_features(x), options,
      weight ? numbers_in("feature_distance: weight", *weight, x.size(1)) : equal_weights(x), x.data_ptr(),
      dtype_of(x.scalar_type()), y.data_ptr(), dtype_of(y.scalar_type()), with_x ? direction_x.data_ptr() : nullptr,
      with_y ? direction_y.data_ptr() : nullptr);
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.run(block); });
  std::vector<double> distances(x.size(0));
  for (int64_t n = 0; n < x.size(0); ++n) distances[n] = sweep.distance(n);
  const bool is_double = x.scalar_type() == ScalarType::Double || y.scalar_type() == ScalarType::Double;
  const ScalarType dtype = is_double ? ScalarType::Double : ScalarType::Float;
  Tensor result = torch::stable::new_empty(x, {x.size(0)}, dtype);
  store(distances.data(), result.data_ptr(), dtype_of(dtype), 1, x.size(0));
  return {result, direction_x, direction_y};
}

Tensor feature_distance_backward_cpu(const Tensor& direction, const Tensor& grad, bool of_mean) {
  Tensor result = new_output(direction, direction.scalar_type());
  scale_samples(direction, factors_of(direction, grad, of_mean), result.data_ptr());
  return result;
}

void feature_distance_backward_cpu_(const Tensor& direction, const Tensor& grad, bool of_mean) {
  const std::vector<double> factors = factors_of(direction, grad, of_mean);
  // The incoming gradient is rounded, so that 1 / N times N may differ slightly from one.
  const auto is_one = [](double value) { return std::fabs(value - 1) < 1e-7; };
  if (!std::all_of(factors.begin(), factors.end(), is_one)) scale_samples(direction, factors, direction.data_ptr());
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("feature_distance", TORCH_BOX(&fastgan::feature_distance_cpu));
  library.impl("feature_distance_backward", TORCH_BOX(&fastgan::feature_distance_backward_cpu));
  library.impl("feature_distance_backward_", TORCH_BOX(&fastgan::feature_distance_backward_cpu_));
}
