#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace fastgan {

// Clamps to [0, high]; NaN becomes one of the two. Compilers make chains of masks from comparisons of floats; the bits
// of floats from 0 on are ordered as integers are, and those of negative floats are negative.
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
