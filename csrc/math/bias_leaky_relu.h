#pragma once

#include <cstdint>

#include "host_device.h"

// clamp(gain leaky_relu(x)), and which factor the element's gradient gets.
namespace fastgan {

// The bits of an element's code. Its gradient's factor is 0 where the clamp acted, else gain or gain slope.
constexpr int32_t kPositive = 1, kClamped = 2;

template <typename T>
struct Activated {
  T value;
  int32_t code;
};

// `x` includes the bias. Comparisons in this order keep NaN, which no clamp acts on.
template <typename T>
FASTGAN_HOST_DEVICE Activated<T> leaky_relu(T x, T slope, T gain, T limit) {
  const T y = gain * (x > 0 ? x : slope * x);
  const T raised = y < -limit ? -limit : y, bounded = raised > limit ? limit : raised;
  const int32_t clamped = (y < -limit) | (y > limit);
  return {bounded, (x > 0 ? kPositive : 0) | (clamped ? kClamped : 0)};
}

template <typename T>
FASTGAN_HOST_DEVICE T leaky_relu_factor(int32_t code, T slope, T gain) {
  const T of_sign = code & kPositive ? gain : gain * slope;
  return code & kClamped ? T(0) : of_sign;
}

}  // namespace fastgan
