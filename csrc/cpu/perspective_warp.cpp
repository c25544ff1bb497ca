#include "outputs.h"
#include "parallel.h"
#include "perspective_sweep.h"

namespace fastgan {
namespace {

// (N, 3, 3), contiguous.
std::vector<Homography> homographies(const Tensor& matrix, int64_t images) {
  const std::vector<double> values = numbers_in("perspective_warp: matrix", matrix, 9 * images);
  std::vector<Homography> result(images);
  for (size_t n = 0; n < result.size(); ++n) {
    for (int i = 0; i < 9; ++i) result[n].m[i] = values[9 * n + i];
  }
  return result;
}

// The sweeps index the elements of a plane with 32 bits.
void check_plane(const Tensor& image) {
  const int64_t rows = (image.size(2) - 1) * image.stride(2), columns = (image.size(3) - 1) * image.stride(3);
  STD_TORCH_CHECK(
      rows + columns < (int64_t(1) << 31), "perspective_warp: one channel must span fewer than 2^31 elements, got ",
      image.size(2), " x ", image.size(3), " of strides ", image.stride(2), ", ", image.stride(3));
}

Tensor perspective_warp_cpu(const Tensor& image, const Tensor& matrix, const std::optional<Tensor>& fill) {
  check_plane(image);
  if (fill) check_alike("perspective_warp: fill", *fill, image);
  Tensor warped = new_image(image, image.scalar_type());
  const WarpForward sweep(
      image_view(image), image_view(warped), fill ? image_view(*fill) : ImageView(),
      homographies(matrix, image.size(0)));
  for_all(sweep.blocks(), 1, [&](int64_t block) { sweep.run(block); });
  return warped;
}

Tensor perspective_warp_backward_cpu(const Tensor& grad, const Tensor& matrix) {
  check_plane(grad);
  Tensor result = new_image(grad, grad.scalar_type());
  const WarpBackward sweep(image_view(grad), image_view(result), homographies(matrix, grad.size(0)));
  for_all(sweep.blocks(), 1, [&](int64_t block) { sweep.run(block); });
  return result;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("perspective_warp", TORCH_BOX(&fastgan::perspective_warp_cpu));
  library.impl("perspective_warp_backward", TORCH_BOX(&fastgan::perspective_warp_backward_cpu));
}
