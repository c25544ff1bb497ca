#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

// clamp(gain leaky_relu(x)), and a code per element from which its gradient's factor follows.
namespace fastgan {

// The bits of an element's code. The factor of its gradient is NaN where x is NaN, 0 where the clamp changed the value,
// else gain or gain slope.
constexpr int32_t kPositive = 1, kClamped = 2, kNan = 4;

template <typename T>
struct Activated {
  T value;
  int32_t code;
};

// `x` includes the bias. Comparisons in this order keep NaN, which the clamp leaves unchanged.
template <typename T>
FASTGAN_HOST_DEVICE Activated<T> leaky_relu(T x, T slope, T gain, T limit) {
  // With slope 0, minus infinity gives 0 as any negative number does, not 0 times infinity.
  const T negative = (slope == 0) & (x == T(-INFINITY)) ? T(0) : slope * x;
  const T y = gain * (x > 0 ? x : negative);
  const T raised = y < -limit ? -limit : y, bounded = raised > limit ? limit : raised;
  const int32_t clamped = (y < -limit) | (y > limit);
  return {bounded, (x > 0 ? kPositive : 0) | (clamped ? kClamped : 0) | (x == x ? 0 : kNan)};
}

template <typename T>
FASTGAN_HOST_DEVICE T leaky_relu_factor(int32_t code, T slope, T gain) {
  const T unclamped = code & kPositive ? gain : gain * slope;
  const T factor = code & kClamped ? T(0) : unclamped;
  return code & kNan ? T(NAN) : factor;
}

}  // namespace fastgan
