#include "feature_moments_sweep.h"
#include "feature_tensors.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {
namespace {

// A block takes some ten microseconds.
constexpr int64_t kGrainBlocks = 2;
// The numbers of a plane: both means, both variances, the covariance; and what rounding took from the means.
constexpr int64_t kMoments = 5, kRests = 2;

FeatureMomentsSweep sweep_of(const Tensor& x, const Tensor& y) {
  check_layout("feature_moments: x", x);
  check_same_layout("feature_moments: y", y, "x", x);
  return FeatureMomentsSweep(
      layout_of_features(x), x.data_ptr(), dtype_of(x.scalar_type()), y.data_ptr(), dtype_of(y.scalar_type()));
}

std::tuple<Tensor, Tensor> feature_moments_cpu(const Tensor& x, const Tensor& y) {
  FeatureMomentsSweep sweep = sweep_of(x, y);
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.run(block); });
  const bool is_double = x.scalar_type() == ScalarType::Double || y.scalar_type() == ScalarType::Double;
  const ScalarType dtype = is_double ? ScalarType::Double : ScalarType::Float;
  const int64_t planes = x.size(0) * x.size(1);
  std::vector<double> moments, rests;
  moments.reserve(planes * kMoments);
  rests.reserve(planes * kRests);
  for (int64_t plane = 0; plane < planes; ++plane) {
    const PairMoments sums = sweep.moments(plane);
    const double mean_x = sums.x / sums.count, mean_y = sums.y / sums.count;
    for (const double value : {mean_x, mean_y, sums.xx / sums.count, sums.yy / sums.count, sums.xy / sums.count})
      moments.push_back(value);
    // NaN of what is not finite, so that the gradients of its plane are NaN.
    for (const double mean : {mean_x, mean_y}) rests.push_back(mean - (is_double ? mean : double(float(mean))));
  }
  Tensor result = torch::stable::new_empty(x, {x.size(0), x.size(1), kMoments}, dtype);
  Tensor result_rests = torch::stable::new_empty(x, {x.size(0), x.size(1), kRests}, dtype);
  store(moments.data(), result.data_ptr(), dtype_of(dtype), 1, planes * kMoments);
  store(rests.data(), result_rests.data_ptr(), dtype_of(dtype), 1, planes * kRests);
  return {result, result_rests};
}

// From the moments and the incoming gradient of each plane.
std::vector<PlaneSlopes> slopes_of(
    const std::vector<double>& moments, const std::vector<double>& rests, const std::vector<double>& grad,
    double pixels) {
  std::vector<PlaneSlopes> slopes(moments.size() / kMoments);
  for (size_t plane = 0; plane < slopes.size(); ++plane) {
    const double *m = moments.data() + plane * kMoments, *r = rests.data() + plane * kRests;
    const double* g = grad.data() + plane * kMoments;
    slopes[plane] = {m[0],         m[1], r[0], r[1], g[0] / pixels, g[1] / pixels, 2 * g[2] / pixels, 2 * g[3] / pixels,
                     g[4] / pixels};
  }
  return slopes;
}

std::tuple<Tensor, Tensor> feature_moments_backward_cpu(
    const Tensor& x, const Tensor& y, const Tensor& moments, const Tensor& rests, const Tensor& grad, bool with_x,
    bool with_y) {
  const FeatureMomentsSweep sweep = sweep_of(x, y);
  const int64_t planes = x.size(0) * x.size(1);
  const std::vector<PlaneSlopes> slopes = slopes_of(
      numbers_in("feature_moments: moments", moments, planes * kMoments),
      numbers_in("feature_moments: rests", rests, planes * kRests),
      numbers_in("feature_moments: grad", grad, planes * kMoments), double(layout_of_features(x).pixels));
  const auto gradient_of = [](const Tensor& map, bool wanted) {
    return wanted ? new_output(map, map.scalar_type()) : torch::stable::new_empty(map, {0}, map.scalar_type());
  };
  Tensor grad_x = gradient_of(x, with_x), grad_y = gradient_of(y, with_y);
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) {
    sweep.write_gradients(block, slopes, with_x ? grad_x.data_ptr() : nullptr, with_y ? grad_y.data_ptr() : nullptr);
  });
  return {grad_x, grad_y};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("feature_moments", TORCH_BOX(&fastgan::feature_moments_cpu));
  library.impl("feature_moments_backward", TORCH_BOX(&fastgan::feature_moments_backward_cpu));
}
