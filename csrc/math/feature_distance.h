#pragma once

#include <cmath>

#include "host_device.h"

// The formula of fastgan/ops/feature_distance.py for one channel of one pixel.
namespace fastgan {

// |d|^p and its derivative, p = 1 or 2.
template <int kPower, typename T>
FASTGAN_HOST_DEVICE T power(T difference) {
  return kPower == 1 ? std::fabs(difference) : difference * difference;
}

template <int kPower, typename T>
FASTGAN_HOST_DEVICE T power_slope(T difference) {
  if (kPower == 2) return 2 * difference;
  const T sign = difference < 0 ? T(-1) : T(1);
  return difference == 0 || difference != difference ? difference : sign;
}

// For a pixel's feature vector x: `inverse` is 1 / (|x| + eps), and `along` the multiple of x that the gradient
// subtracts per unit of sum_c u_c x_c.
template <typename T>
struct UnitScale {
  T inverse, along;

  FASTGAN_HOST_DEVICE UnitScale(T squares, T eps) {
    const T norm = std::sqrt(squares);
    // If the sum of squares overflows, the direction is unknown: NaN, instead of 1 / infinity = 0.
    inverse = 1 / (norm + eps) + (norm - norm);
    // The norm has no gradient at the zero vector; take 0.
    along = norm > 0 ? inverse * inverse / norm : T(0);
  }
};

}  // namespace fastgan
