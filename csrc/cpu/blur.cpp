#include "../ops.h"
#include "blur_sweep.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {

Tensor blur_cpu(const Tensor& image, const Tensor& kernels) {
  Tensor blurred = new_image(image, image.scalar_type());
  const BlurSweep sweep(image_view(image), image_view(blurred), numbers_in(kernels), kernels.size(1));
  for_all(sweep.blocks(), 1, [&](int64_t block) { sweep.run(block); });
  return blurred;
}

}  // namespace fastgan
