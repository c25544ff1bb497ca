#pragma once

#include <type_traits>

#include "../math/feature_distance.h"
#include "feature_distance_sweep.h"

// What the sweeps over both memory orders share: a tile is some pixels of one sample with all their channels.
namespace fastgan {

template <typename T>
struct FeatureTile {
  const char *x, *y;
  char *direction_x, *direction_y;  // null where not wanted; of the map's dtype
  Dtype x_dtype, y_dtype;
  int64_t channels, count,
      plane;                 // count: pixels; plane: elements from a channel to the next, where pixels lie together
  int64_t next, next_count;  // elements from this tile to the next, and its pixels; 0: there is none
  const T* weights;
  T eps, factor;
  bool relu_x;
};

// One channel of one pixel, where `inverse` is 1 / norm and `along` what a gradient takes off along its vector.
template <int kPower, bool kNormalize_>
struct Formula {
  static constexpr bool kNormalize = kNormalize_;

  template <typename T>
  static FASTGAN_HOST_DEVICE T difference(T x, T inverse_x, T y, T inverse_y) {
    return kNormalize ? x * inverse_x - y * inverse_y : x - y;
  }
  template <typename T>
  static FASTGAN_HOST_DEVICE T distance(T weight, T difference) {
    return weight * power<kPower>(difference);
  }
  template <typename T>
  static FASTGAN_HOST_DEVICE T slope(T weight, T difference) {
    return weight * power_slope<kPower>(difference);
  }
  // Of x; that of y is the negative one with y's numbers.
  template <typename T>
  static FASTGAN_HOST_DEVICE T gradient(T slope, T value, T inverse, T along) {
    return kNormalize ? slope * inverse - along * value : slope;
  }
};

// body(Formula) for the options' one.
template <typename Body>
double with_formula(const FeatureOptions& options, const Body& body) {
  if (options.power == 1) return options.normalize ? body(Formula<1, true>()) : body(Formula<1, false>());
  return options.normalize ? body(Formula<2, true>()) : body(Formula<2, false>());
}

// relu(x) and where its gradient vanishes, for x itself with bounds that nothing reaches.
template <typename T>
struct Rectifier {
  T floor, zero;

  explicit Rectifier(bool relu) : floor(relu ? T(0) : T(-INFINITY)), zero(relu ? T(0) : T(NAN)) {}
  FASTGAN_HOST_DEVICE T value(T x) const { return x < floor ? floor : x; }  // NaN stays NaN
  FASTGAN_HOST_DEVICE T slope(T value, T slope) const { return value == zero ? T(0) : slope; }
};

// A channel's pixels together, plane after plane. Returns the tile's sum of distances; `buffer` has as many elements
// as planes_scratch says of the tile's channels and pixels.
template <typename T>
double sweep_planes(const FeatureOptions& options, const FeatureTile<T>& tile, T* buffer);
int64_t planes_scratch(int64_t channels, int64_t count);
// Pixels of a tile; `own_size`: bytes of an element if the maps are in the kernel's own arithmetic, 0 if not.
int64_t planes_tile(int64_t channels, int64_t pixels, int64_t own_size);

// A pixel's channels together. Likewise, with pixels_scratch.
template <typename T>
double sweep_pixels(const FeatureOptions& options, const FeatureTile<T>& tile, T* buffer);
int64_t pixels_scratch(int64_t channels, int64_t count);
int64_t pixels_tile(int64_t channels);

}  // namespace fastgan
