#pragma once

#include <cmath>

#include "host_device.h"

// One channel of one pixel of fastgan/ops/feature_distance.py, which tells the formula.
namespace fastgan {

// |d|^p and its slope, p = 1 or 2.
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

// Of a pixel's vector: 1 / (|x| + eps), and what its gradient takes off along x for each unit of sum_c u_c x_c.
template <typename T>
struct UnitScale {
  T inverse, along;

  FASTGAN_HOST_DEVICE UnitScale(T squares, T eps) {
    const T norm = std::sqrt(squares);
    // Squares that overflow say nothing of the direction: NaN, not the zero that 1 over infinity would be.
    inverse = 1 / (norm + eps) + (norm - norm);
    // At the zero vector, where the norm has no gradient, none.
    along = norm > 0 ? inverse * inverse / norm : T(0);
  }
};

}  // namespace fastgan
