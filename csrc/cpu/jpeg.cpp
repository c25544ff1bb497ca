#include "../jpeg_arguments.h"
#include "jpeg_sweep.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {
namespace {

JpegOptions jpeg_options(int64_t horizontal, int64_t vertical, bool fancy, int64_t rounding) {
  JpegOptions options;
  options.horizontal = static_cast<int>(horizontal);
  options.vertical = static_cast<int>(vertical);
  options.fancy = fancy;
  options.truncate = rounding == kStraightThroughTruncated;
  options.rounding = options.truncate ? Rounding::kStraightThrough : static_cast<Rounding>(rounding);
  return options;
}

uint64_t jpeg_seed(const std::optional<Tensor>& seed) {
  return seed ? static_cast<uint64_t>(integer_in("jpeg: seed", *seed)) : 0;
}

// (N or 1, 2, 8, 8), contiguous.
JpegTables jpeg_tables(const Tensor& tables) {
  return {numbers_in("jpeg: tables", tables, tables.numel()), tables.size(0) == 1 ? 0 : 128};
}

JpegMasks jpeg_masks(const Tensor& masks, const Tensor& chroma_masks) {
  JpegMasks result;
  if (masks.numel() == 0) return result;
  result.pixels = static_cast<uint8_t*>(masks.data_ptr());
  result.chroma = static_cast<uint8_t*>(chroma_masks.data_ptr());
  return result;
}

std::tuple<Tensor, Tensor, Tensor> jpeg_cpu(
    const Tensor& image, const Tensor& tables, const std::optional<Tensor>& seed, int64_t horizontal, int64_t vertical,
    bool fancy, int64_t rounding, bool with_masks) {
  check_jpeg(image, tables, seed, horizontal, vertical);
  const int64_t images = image.size(0), height = image.size(2), width = image.size(3);
  const JpegOptions options = jpeg_options(horizontal, vertical, fancy, rounding);
  const JpegSizes sizes(images, height, width, options);
  const std::vector<int64_t> none = {0}, pixels = {images, height, width},
                             chroma = {images, sizes.chroma_height, sizes.chroma_width};
  Tensor decoded = new_image(image, image.scalar_type());
  Tensor masks = torch::stable::new_empty(image, with_masks ? pixels : none, ScalarType::Byte);
  Tensor chroma_masks = torch::stable::new_empty(image, with_masks ? chroma : none, ScalarType::Byte);
  JpegForward forward(
      image_view(image), jpeg_tables(tables), options, jpeg_seed(seed), image_view(decoded),
      jpeg_masks(masks, chroma_masks));
  for_all(forward.blocks(), 1, [&](int64_t block) { forward.encode(block); });
  for_all(forward.blocks(), 1, [&](int64_t block) { forward.merge(block); });
  return {decoded, masks, chroma_masks};
}

std::tuple<Tensor, Tensor> jpeg_backward_cpu(
    const Tensor& grad, const std::optional<Tensor>& image, const Tensor& tables, const std::optional<Tensor>& seed,
    const Tensor& masks, const Tensor& chroma_masks, int64_t horizontal, int64_t vertical, bool fancy, int64_t rounding,
    bool grad_image_wanted, bool grad_tables_wanted) {
  check_jpeg(grad, tables, seed, horizontal, vertical);
  const JpegOptions options = jpeg_options(horizontal, vertical, fancy, rounding);
  check_jpeg_masks(JpegSizes(grad.size(0), grad.size(2), grad.size(3), options), masks, chroma_masks);
  check_jpeg_image(image, grad, JpegBackward::needs_image(options, grad_tables_wanted));
  const std::vector<int64_t> none = {0};
  Tensor grad_image = grad_image_wanted ? new_image(grad, grad.scalar_type())
                                        : torch::stable::new_empty(grad, none, grad.scalar_type());
  Tensor grad_tables = grad_tables_wanted ? empty_like(tables, tables.scalar_type())
                                          : torch::stable::new_empty(tables, none, tables.scalar_type());
  ImageView grad_image_view = image_view(grad);
  if (grad_image_wanted) {
    grad_image_view = image_view(grad_image);
  } else {
    grad_image_view.data = nullptr;
  }
  JpegBackward backward(
      image_view(grad), image ? image_view(*image) : ImageView(), jpeg_tables(tables), options, jpeg_seed(seed),
      grad_image_view, grad_tables_wanted, jpeg_masks(masks, chroma_masks));
  for_all(backward.blocks(), 1, [&](int64_t block) { backward.run(block); });
  if (!grad_tables_wanted) return {grad_image, grad_tables};

  std::vector<double> sums(tables.numel(), 0.0);
  for (int64_t n = 0; n < grad.size(0); ++n) {
    double one[128];
    backward.table_gradient(n, one);
    double* target = &sums[tables.size(0) == 1 ? 0 : 128 * n];
    for (int i = 0; i < 128; ++i) target[i] += one[i];
  }
  store(sums.data(), grad_tables.data_ptr(), dtype_of(tables.scalar_type()), 1, tables.numel());
  return {grad_image, grad_tables};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("jpeg", TORCH_BOX(&fastgan::jpeg_cpu));
  library.impl("jpeg_backward", TORCH_BOX(&fastgan::jpeg_backward_cpu));
}
