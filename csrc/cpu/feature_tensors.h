#pragma once

#include "../stable.h"
#include "feature_layout.h"

// What kernels of feature maps ask of their tensors, whose elements they read in the order of memory.
namespace fastgan {

// Checks that a map lies as its layout says: contiguous, or with each pixel's channels together.
inline void check_layout(const char* name, const Tensor& map) {
  STD_TORCH_CHECK(map.dim() >= 2, name, " must have shape (N, C, ...), got ", map.dim(), " dimensions");
  if (map.numel() == 0) return;
  const FeatureLayout layout = layout_of_features(map);
  int64_t stride = layout.channels_last ? layout.channels : 1;
  bool fits = true;
  const auto next = [&](int64_t i) {
    fits = fits && (map.size(i) == 1 || map.stride(i) == stride);
    stride *= map.size(i);
  };
  for (int64_t i = map.dim() - 1; i >= 2; --i) next(i);
  if (!layout.channels_last) next(1);
  next(0);
  STD_TORCH_CHECK(fits, name, " must be contiguous, or have each pixel's channels together");
}

}  // namespace fastgan
