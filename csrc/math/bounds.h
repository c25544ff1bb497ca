#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace fastgan {

// Clamps to [0, high]; NaN becomes one of the bounds. Compares bits as integers, because compilers turn comparisons of
// floats into chains of masks: the bits of non-negative floats have the same order as the floats, and those of negative
// floats are negative integers.
FASTGAN_HOST_DEVICE float bounded(float value, float high) {
  int32_t bits, high_bits;
  std::memcpy(&bits, &value, sizeof bits);
  std::memcpy(&high_bits, &high, sizeof high_bits);
  bits = bits < high_bits ? bits : high_bits;
  bits = bits > 0 ? bits : 0;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

FASTGAN_HOST_DEVICE double bounded(double value, double high) {
  const double raised = value > 0 ? value : 0.0;
  return raised < high ? raised : high;
}

}  // namespace fastgan
