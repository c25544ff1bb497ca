#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.h"

// The weights of focal frequency loss before they are divided by their maximum: |D|^alpha, or log(1 + |D|^alpha), from
// squares |D|^2. In float they vectorize; roots other than the square one and logarithms go through double, in which
// series of few terms are exact to 1e-10: a float exponent of large numbers would lose digits.
namespace fastgan {

// log(x) for a positive float, from its exponent and a series of its mantissa, which is in [sqrt(1/2), sqrt(2)).
FASTGAN_HOST_DEVICE double log_of_positive(float x) {
  const bool subnormal = x < 1.17549435e-38f;
  const float normal = subnormal ? x * 16777216.0f : x;
  uint32_t bits;
  std::memcpy(&bits, &normal, sizeof(bits));
  const uint32_t mantissa_bits = (bits & 0x007fffffu) | 0x3f800000u;
  float mantissa;
  std::memcpy(&mantissa, &mantissa_bits, sizeof(mantissa));
  // Selected in float, since gcc does not vectorize conditions that select both floats and doubles.
  const float exponent = static_cast<float>(static_cast<int32_t>(bits >> 23) - (subnormal ? 151 : 127));
  const bool upper = mantissa > 1.41421356f;
  const double m = upper ? 0.5f * mantissa : mantissa;
  const double s = (m - 1) / (m + 1), z = s * s;
  const double series = 1 + z * (1.0 / 3 + z * (1.0 / 5 + z * (1.0 / 7 + z * (1.0 / 9 + z * (1.0 / 11)))));
  return double(upper ? exponent + 1 : exponent) * 0.69314718055994531 + 2 * s * series;
}

// exp(x), bounded to what double has normal numbers for: 2^n times a series of the remainder r, |r| <= ln(2) / 2.
// Adding kShift puts 1023 + n, the biased exponent of 2^n, into the lowest bits of `shifted`.
FASTGAN_HOST_DEVICE double exp_of_bounded(double x) {
  constexpr double kShift = 6755399441055744.0 + 1023.0, kBound = 708.0;
  const double lower = x < -kBound ? -kBound : x, bounded = lower > kBound ? kBound : lower;
  const double shifted = bounded * 1.4426950408889634 + kShift, n = shifted - kShift;
  const double r = bounded - n * 0.69314718055994531;
  const double tail = 1.0 / 120 + r * (1.0 / 720 + r * (1.0 / 5040 + r * (1.0 / 40320 + r * (1.0 / 362880))));
  const double power = 1 + r * (1 + r * (1.0 / 2 + r * (1.0 / 6 + r * (1.0 / 24 + r * tail))));
  uint64_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits <<= 52;
  double scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return power * scale;
}

// Raises squares to `value`. Both bounds are powers of numbers that have no series.
template <typename T>
struct SquareExponent {
  double value;
  T at_zero, at_infinity;
};

FASTGAN_HOST_DEVICE float power_of_square(float squares, SquareExponent<float> exponent) {
  const float power = static_cast<float>(exp_of_bounded(exponent.value * log_of_positive(squares)));
  const float bounded = squares > 3.40282347e38f ? exponent.at_infinity : power;
  return squares == 0 ? exponent.at_zero : bounded;
}
FASTGAN_HOST_DEVICE double power_of_square(double squares, SquareExponent<double> exponent) {
  return std::pow(squares, exponent.value);
}

// log(1 + f) for f >= 0; the second term is what 1 + f loses.
FASTGAN_HOST_DEVICE float log1p_of_positive(float f) {
  const float u = 1 + f;
  const double rest = double(f - (u - 1)) / double(u);
  const float value = static_cast<float>(log_of_positive(u) + rest);
  return f > 3.40282347e38f ? f : value;
}
FASTGAN_HOST_DEVICE double log1p_of_positive(double f) { return std::log1p(f); }

template <bool kIsRoot, bool kLog, typename T>
FASTGAN_HOST_DEVICE T frequency_weight(T squares, SquareExponent<T> exponent) {
  const T weight = kIsRoot ? std::sqrt(squares) : power_of_square(squares, exponent);
  return kLog ? log1p_of_positive(weight) : weight;
}

}  // namespace fastgan
