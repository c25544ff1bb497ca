#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

// The activation within filtered_lrelu, and a code per upsampled pixel from which its gradient's factor follows.
namespace fastgan {

constexpr uint8_t kCodeNegative = 0, kCodePositive = 1, kCodeClamped = 2, kCodeNan = 3;

// clamp(gain leaky_relu(u)). Comparisons in this order keep NaN, which the clamp leaves unchanged.
template <typename T>
FASTGAN_HOST_DEVICE T activated(T u, T slope, T gain, T limit, uint8_t* code) {
  // With slope 0, minus infinity gives 0 as any negative number does, not 0 times infinity.
  const T negative = (slope == 0) & (u == T(-INFINITY)) ? T(0) : slope * u;
  const T y = gain * (u > 0 ? u : negative);
  const T raised = y < -limit ? -limit : y, bounded = raised > limit ? limit : raised;
  const int32_t clamped = (y < -limit) | (y > limit);
  const int32_t finite = clamped ? kCodeClamped : u > 0 ? kCodePositive : kCodeNegative;
  *code = static_cast<uint8_t>(u == u ? finite : kCodeNan);
  return bounded;
}

template <typename T>
FASTGAN_HOST_DEVICE T activation_factor(uint8_t code, T slope, T gain) {
  const T unclamped = code == kCodePositive ? gain : gain * slope;
  const T factor = code == kCodeClamped ? T(0) : unclamped;
  return code == kCodeNan ? T(NAN) : factor;
}

}  // namespace fastgan
