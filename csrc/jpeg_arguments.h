#pragma once

#include <initializer_list>

#include "math/jpeg_layout.h"
#include "stable.h"

// Checks of the arguments of jpeg and jpeg_backward, shared by the CPU and CUDA kernels.
namespace fastgan {

// `image` may also be its gradient; `tables` is (N or 1, 2, 8, 8).
inline void check_jpeg(
    const Tensor& image, const Tensor& tables, const std::optional<Tensor>& seed, int64_t horizontal,
    int64_t vertical) {
  check_colour("jpeg: image", image);
  for (const int64_t factor : {horizontal, vertical})
    STD_TORCH_CHECK(factor == 1 || factor == 2, "jpeg: chroma is subsampled by 1 or 2, got ", factor);
  check_count("jpeg: tables", tables, tables.size(0) == 1 ? 128 : 128 * image.size(0));
  STD_TORCH_CHECK(tables.is_contiguous(), "jpeg: tables must be contiguous");
  if (seed) check_integer("jpeg: seed", *seed);
}

inline void check_jpeg_masks(const JpegSizes& sizes, const Tensor& masks, const Tensor& chroma_masks) {
  check_count("jpeg: masks", masks, sizes.images * sizes.height * sizes.width);
  check_count("jpeg: chroma_masks", chroma_masks, sizes.images * sizes.chroma_height * sizes.chroma_width);
}

// The image of jpeg_backward, which only some gradients need.
inline void check_jpeg_image(const std::optional<Tensor>& image, const Tensor& grad, bool is_needed) {
  STD_TORCH_CHECK(image || !is_needed, "jpeg: this gradient needs the image");
  if (image) check_alike("jpeg: image", *image, grad);
}

}  // namespace fastgan
