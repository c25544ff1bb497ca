#include "outputs.h"
#include "parallel.h"
#include "photometric_sweep.h"

namespace fastgan {
namespace {

// `parameters` is (N, 6), contiguous: strength of the noise, contrast, three offsets, desaturation.
std::vector<Photometric<double>> photometric_parameters(const Tensor& parameters, int64_t images) {
  const std::vector<double> numbers = numbers_in("photometric: parameters", parameters, 6 * images);
  std::vector<Photometric<double>> result;
  for (size_t i = 0; i < numbers.size(); i += 6) {
    const double* p = &numbers[i];
    result.push_back({p[0], p[1], {p[2], p[3], p[4]}, p[5]});
  }
  return result;
}

// A block takes a few microseconds; waking a thread pays off from two blocks on.
constexpr int64_t kGrainBlocks = 2;

std::tuple<Tensor, Tensor> photometric_cpu(
    const Tensor& image, const Tensor& parameters, const Tensor& seed, bool with_masks) {
  check_colour("photometric: image", image);
  const std::vector<int64_t> none = {0}, pixels = {image.size(0), image.size(2), image.size(3)};
  Tensor distorted = new_image(image, image.scalar_type());
  Tensor masks = torch::stable::new_empty(image, with_masks ? pixels : none, ScalarType::Byte);
  const PhotometricSweep sweep(
      image_view(image), image_view(distorted), photometric_parameters(parameters, image.size(0)),
      with_masks ? static_cast<uint8_t*>(masks.data_ptr()) : nullptr);
  const uint64_t seed_value = static_cast<uint64_t>(integer_in("photometric: seed", seed));
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.forward(block, seed_value); });
  return {distorted, masks};
}

Tensor photometric_backward_cpu(const Tensor& grad, const Tensor& parameters, const Tensor& masks) {
  check_colour("photometric: grad", grad);
  check_count("photometric: masks", masks, grad.size(0) * grad.size(2) * grad.size(3));
  Tensor result = new_image(grad, grad.scalar_type());
  const PhotometricSweep sweep(
      image_view(grad), image_view(result), photometric_parameters(parameters, grad.size(0)),
      static_cast<uint8_t*>(masks.data_ptr()));
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.backward(block); });
  return result;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("photometric", TORCH_BOX(&fastgan::photometric_cpu));
  library.impl("photometric_backward", TORCH_BOX(&fastgan::photometric_backward_cpu));
}
