#include <algorithm>

#include "blur_sweep.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {
namespace {

Tensor blur_cpu(const Tensor& image, const Tensor& kernels, bool turned) {
  const int64_t size = kernels.size(1);
  STD_TORCH_CHECK(size % 2 == 1, "blur: kernels must have an odd size, got ", size);
  std::vector<double> taps = numbers_in("blur: kernels", kernels, image.size(0) * size * size);
  if (turned) {
    for (auto kernel = taps.begin(); kernel != taps.end(); kernel += size * size)
      std::reverse(kernel, kernel + size * size);
  }
  Tensor blurred = new_image(image, image.scalar_type());
  const BlurSweep sweep(image_view(image), image_view(blurred), taps, size);
  for_all(sweep.blocks(), 1, [&](int64_t block) { sweep.run(block); });
  return blurred;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) { library.impl("blur", TORCH_BOX(&fastgan::blur_cpu)); }
