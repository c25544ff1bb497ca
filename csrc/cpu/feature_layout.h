#pragma once

#include <cstdint>

namespace fastgan {

// How dense feature maps N C ... lie in memory.
struct FeatureLayout {
  int64_t samples, channels, pixels;
  bool channels_last;  // a pixel's channels are contiguous; else a channel's pixels
};

// Of a tensor, as a template so that the sweeps need no torch.
template <typename AnyTensor>
FeatureLayout layout_of_features(const AnyTensor& map) {
  FeatureLayout layout{map.size(0), map.size(1), 1, false};
  for (int64_t i = 2; i < map.dim(); ++i) layout.pixels *= map.size(i);
  layout.channels_last = layout.channels > 1 && map.stride(1) == 1;
  return layout;
}

}  // namespace fastgan
