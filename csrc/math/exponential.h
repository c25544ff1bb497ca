#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.h"

// Exponentials and logarithms of bounded numbers, in float as polynomials that vectorize, and the functions made of
// them. Structs have no member functions: calling them takes their address, and gcc does not vectorize loops that do.
namespace fastgan {

// exp(x) and exp(x) - 1 for x <= 0; the latter is exact to rounding near 0, too.
template <typename T>
struct Exponential {
  T value, minus_one;
};

// 2^n times a series of the remainder r, |r| <= ln(2) / 2. Adding kShift puts 127 + n, the biased exponent of 2^n, into
// the lowest bits of `shifted`. At kBound it is 0, so that 2^n becomes 0. NaN compares false with kBound and is passed
// on.
FASTGAN_HOST_DEVICE Exponential<float> exponential_of_negative(float x) {
  constexpr float kShift = 12582912.0f + 127.0f, kBound = -88.0f;
  const float bounded = x < kBound ? kBound : x;
  const float shifted = bounded * 1.44269504f + kShift, n = shifted - kShift;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  const float series = 1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))));
  const float power = 1.0f + r + r * r * series, power_minus_one = r + r * r * series;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits <<= 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return {power * scale, power_minus_one * scale + (scale - 1)};
}
FASTGAN_HOST_DEVICE Exponential<double> exponential_of_negative(double x) { return {std::exp(x), std::expm1(x)}; }

FASTGAN_HOST_DEVICE float exp_of_negative(float x) { return exponential_of_negative(x).value; }
FASTGAN_HOST_DEVICE double exp_of_negative(double x) { return std::exp(x); }
FASTGAN_HOST_DEVICE float expm1_of_negative(float x) { return exponential_of_negative(x).minus_one; }
FASTGAN_HOST_DEVICE double expm1_of_negative(double x) { return std::expm1(x); }

// log(1 + e) for e in [0, 1] without a division: a polynomial of least relative error, 5e-9, fitted with the first
// coefficient fixed at 1, so that it is exact for tiny e.
FASTGAN_HOST_DEVICE float log1p_of_unit(float e) {
  float series = -0.00331847347f;
  series = series * e + 0.0202045894f;
  series = series * e - 0.0576644532f;
  series = series * e + 0.106805565f;
  series = series * e - 0.15355397f;
  series = series * e + 0.196954008f;
  series = series * e - 0.249585875f;
  series = series * e + 0.333305113f;
  series = series * e - 0.499999328f;
  return e + e * e * series;
}
FASTGAN_HOST_DEVICE double log1p_of_unit(double e) { return std::log1p(e); }

// log(1 + exp(x)) as max(x, 0) + rest, its derivative `slope`, which is the logistic function of x, and 1 - slope. Kept
// in parts, because their sums would cancel near a label.
template <typename T>
struct Softplus {
  T positive, rest, slope, complement;
};

template <typename T>
FASTGAN_HOST_DEVICE Softplus<T> softplus(T x) {
  const T e = exp_of_negative(-std::fabs(x));
  const T larger = 1 / (1 + e), smaller = e * larger;
  const bool negative = x < 0;
  return {x > 0 ? x : T(0), log1p_of_unit(e), negative ? smaller : larger, negative ? larger : smaller};
}

}  // namespace fastgan
