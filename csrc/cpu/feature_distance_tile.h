#pragma once

#include <type_traits>

#include "../math/feature_distance.h"
#include "feature_distance_sweep.h"

// Shared by the sweeps over both memory orders. A tile is some pixels of one sample with all their channels.
namespace fastgan {

template <typename T>
struct FeatureTile {
  const char *x, *y;
  char *direction_x, *direction_y;  // of the map's dtype; null if not wanted
  Dtype x_dtype, y_dtype;
  int64_t channels;
  int64_t count;       // pixels
  int64_t plane;       // elements from a channel to the next, in contiguous maps
  int64_t next;        // elements from this tile to the next; 0 if there is none
  int64_t next_count;  // pixels of the next tile; 0 if there is none
  const T* weights;
  T eps, factor;
  bool relu_x;
};

// One channel of one pixel. `inverse` is 1 / norm, `along` the factor of the vector that the gradient subtracts.
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
  // The gradient of x; that of y is the negative of this formula with y's values.
  template <typename T>
  static FASTGAN_HOST_DEVICE T gradient(T slope, T value, T inverse, T along) {
    return kNormalize ? slope * inverse - along * value : slope;
  }
};

// Calls body with the Formula that the options select.
template <typename Body>
double with_formula(const FeatureOptions& options, const Body& body) {
  if (options.power == 1) return options.normalize ? body(Formula<1, true>()) : body(Formula<1, false>());
  return options.normalize ? body(Formula<2, true>()) : body(Formula<2, false>());
}

// relu(x) and its gradient or, without ReLU, the identity, by bounds that no value reaches.
template <typename T>
struct Rectifier {
  T floor, zero;

  explicit Rectifier(bool relu) : floor(relu ? T(0) : T(-INFINITY)), zero(relu ? T(0) : T(NAN)) {}
  FASTGAN_HOST_DEVICE T value(T x) const { return x < floor ? floor : x; }  // NaN stays NaN
  FASTGAN_HOST_DEVICE T slope(T value, T slope) const { return value == zero ? T(0) : slope; }
};

// For contiguous maps, where a channel's pixels are together. Returns the tile's sum of distances; `buffer` has
// planes_scratch(channels, count) elements.
template <typename T>
double sweep_planes(const FeatureOptions& options, const FeatureTile<T>& tile, T* buffer);
int64_t planes_scratch(int64_t channels, int64_t count);
// Pixels of a tile. `element_size` is the bytes of an element if the maps are in the kernel's arithmetic, else 0.
int64_t planes_tile(int64_t channels, int64_t pixels, int64_t element_size);

// The same for channels last, with pixels_scratch(channels, count) elements.
template <typename T>
double sweep_pixels(const FeatureOptions& options, const FeatureTile<T>& tile, T* buffer);
int64_t pixels_scratch(int64_t channels, int64_t count);
int64_t pixels_tile(int64_t channels);

}  // namespace fastgan
