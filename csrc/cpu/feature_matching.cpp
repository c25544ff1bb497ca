#include "feature_matching_sweep.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {
namespace {

// A segment takes a few microseconds; waking a thread pays off from four on.
constexpr int64_t kGrainSegments = 4;

std::tuple<Tensor, Tensor, Tensor> feature_matching_cpu(
    const std::vector<Tensor>& fake, const std::vector<Tensor>& real, const std::vector<double>& weights,
    int64_t segment, bool with_signs) {
  STD_TORCH_CHECK(!fake.empty(), "feature_matching: there are no features");
  STD_TORCH_CHECK(
      real.size() == fake.size() && weights.size() == fake.size(), "feature_matching: got ", fake.size(), " and ",
      real.size(), " features, and ", weights.size(), " weights");
  STD_TORCH_CHECK(segment > 0, "feature_matching: segment must be positive, got ", segment);
  std::vector<FeaturePair> pairs(fake.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    const int64_t count = fake[i].numel();
    check_dense("feature_matching: fake", fake[i]);
    check_same_layout("feature_matching: real", real[i], "fake", fake[i]);
    pairs[i] = {
        fake[i].data_ptr(),
        real[i].data_ptr(),
        dtype_of(fake[i].scalar_type()),
        dtype_of(real[i].scalar_type()),
        count,
        weights[i] / static_cast<double>(count)};
  }
  const bool is_double = fake[0].scalar_type() == ScalarType::Double || real[0].scalar_type() == ScalarType::Double;
  const ScalarType dtype = is_double ? ScalarType::Double : ScalarType::Float;
  FeatureMatchingSweep sweep(std::move(pairs), segment);
  const int64_t segments = with_signs ? sweep.segments() : 0;
  Tensor signs = torch::stable::new_empty(fake[0], {segments, segment}, ScalarType::Char);
  Tensor slopes = torch::stable::new_empty(fake[0], {segments}, dtype);
  advise_huge_pages(signs.data_ptr(), segments * segment);
  int8_t* const first = with_signs ? static_cast<int8_t*>(signs.data_ptr()) : nullptr;
  for_all(sweep.segments(), kGrainSegments, [&](int64_t i) { sweep.run(i, first ? first + i * segment : nullptr); });
  std::vector<double> values(segments);
  for (int64_t i = 0; i < segments; ++i) values[i] = sweep.slope(i);
  store(values.data(), slopes.data_ptr(), dtype_of(dtype), 1, segments);
  Tensor loss = torch::stable::new_empty(fake[0], {}, dtype);
  const double value = sweep.loss();
  store(&value, loss.data_ptr(), dtype_of(dtype), 1, 1);
  return {loss, signs, slopes};
}

Tensor feature_matching_backward_cpu(const Tensor& signs, const Tensor& slopes, const Tensor& grad, ScalarType dtype) {
  STD_TORCH_CHECK(
      signs.dim() == 2 && signs.scalar_type() == ScalarType::Char,
      "feature_matching: signs must be int8 of 2 dimensions, got ", signs.dim());
  STD_TORCH_CHECK(signs.is_contiguous(), "feature_matching: signs must be contiguous");
  const int64_t segments = signs.size(0), length = signs.size(1);
  const double factor = numbers_in("feature_matching: grad", grad, 1)[0];
  const std::vector<double> values = numbers_in("feature_matching: slopes", slopes, segments);
  Tensor result = new_output(signs, dtype);
  const int8_t* const from = static_cast<const int8_t*>(signs.data_ptr());
  char* const to = static_cast<char*>(result.data_ptr());
  const Dtype kind = dtype_of(dtype);
  for_all(segments, kGrainSegments, [&](int64_t i) {
    apply_signs(from + i * length, factor * values[i], to + i * length * size_of(kind), kind, length);
  });
  return result;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("feature_matching", TORCH_BOX(&fastgan::feature_matching_cpu));
  library.impl("feature_matching_backward", TORCH_BOX(&fastgan::feature_matching_backward_cpu));
}
