#include "filtered_lrelu_sweep.h"
#include "fir_tensors.h"
#include "parallel.h"

namespace fastgan {
namespace {

// One value per channel in the kernels' arithmetic: double for double tensors, else float.
struct ChannelBias {
  ChannelBias(const std::optional<Tensor>& b, const Tensor& x) {
    if (!b) return;
    const bool is_double = x.scalar_type() == ScalarType::Double;
    doubles = numbers_in("filtered_lrelu: b", *b, x.size(1));
    floats.assign(doubles.begin(), doubles.end());
    values = is_double ? static_cast<const void*>(doubles.data()) : floats.data();
  }

  std::vector<double> doubles;
  std::vector<float> floats;
  const void* values = nullptr;
};

std::tuple<Tensor, Tensor> filtered_lrelu_cpu(
    const Tensor& x, const std::optional<Tensor>& b, const Tensor& fu, const Tensor& fd, int64_t up, int64_t down,
    int64_t pad_x, int64_t pad_y, int64_t mid_h, int64_t mid_w, int64_t out_h, int64_t out_w, bool flip, double gain,
    double slope, double clamp, bool with_codes) {
  check_planes("filtered_lrelu: x", x);
  const char* const name = "filtered_lrelu";
  const FirAxis first_x = fir_axis(name, x.size(3), mid_w, up, 1, pad_x);
  const FirAxis first_y = fir_axis(name, x.size(2), mid_h, up, 1, pad_y);
  const FirAxis second_x = fir_axis(name, mid_w, out_w, 1, down, 0),
                second_y = fir_axis(name, mid_h, out_h, 1, down, 0);
  const FirFilter first = fir_filter("filtered_lrelu: fu", fu, !flip, static_cast<double>(up * up), x);
  const FirFilter second = fir_filter("filtered_lrelu: fd", fd, !flip, 1.0, x);
  const ChannelBias bias(b, x);
  Tensor y = new_planes(x, out_h, out_w, x.scalar_type());
  Tensor codes =
      with_codes ? new_planes(x, mid_h, mid_w, ScalarType::Byte) : torch::stable::new_empty(x, {0}, ScalarType::Byte);
  const FilteredLreluSweep sweep(
      x.size(0), x.size(1), first_x, first_y, first, second_x, second_y, second, {slope, gain, clamp},
      dtype_of(x.scalar_type()));
  for_all(sweep.blocks(), 1, [&](int64_t block) {
    sweep.activate(
        block, x.data_ptr(), bias.values, y.data_ptr(), with_codes ? static_cast<uint8_t*>(codes.data_ptr()) : nullptr);
  });
  return {y, codes};
}

Tensor filtered_lrelu_backward_cpu(
    const Tensor& grad, const Tensor& codes, const Tensor& first, const Tensor& second, int64_t up, int64_t down,
    int64_t first_x, int64_t first_y, int64_t second_x, int64_t second_y, int64_t out_h, int64_t out_w, bool flip,
    double gain, double slope) {
  check_planes("filtered_lrelu: grad", grad);
  check_planes("filtered_lrelu: codes", codes);
  STD_TORCH_CHECK(
      codes.size(0) == grad.size(0) && codes.size(1) == grad.size(1),
      "filtered_lrelu: codes must have the samples and channels of grad");
  const char* const name = "filtered_lrelu";
  const int64_t mid_h = codes.size(2), mid_w = codes.size(3);
  Tensor result = new_planes(grad, out_h, out_w, grad.scalar_type());
  const FilteredLreluSweep sweep(
      grad.size(0), grad.size(1), fir_axis(name, grad.size(3), mid_w, up, 1, first_x),
      fir_axis(name, grad.size(2), mid_h, up, 1, first_y), fir_filter("filtered_lrelu: first", first, !flip, 1.0, grad),
      fir_axis(name, mid_w, out_w, 1, down, second_x), fir_axis(name, mid_h, out_h, 1, down, second_y),
      fir_filter("filtered_lrelu: second", second, !flip, 1.0, grad), {slope, gain, 0}, dtype_of(grad.scalar_type()));
  for_all(sweep.blocks(), 1, [&](int64_t block) {
    sweep.multiply(block, grad.data_ptr(), static_cast<const uint8_t*>(codes.data_ptr()), result.data_ptr());
  });
  return result;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("filtered_lrelu", TORCH_BOX(&fastgan::filtered_lrelu_cpu));
  library.impl("filtered_lrelu_backward", TORCH_BOX(&fastgan::filtered_lrelu_backward_cpu));
}
