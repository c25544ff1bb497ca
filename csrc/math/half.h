#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

// bfloat16 and float16 as bit patterns. Conversions have no branches, so that loops over them vectorize on every
// target; they round to nearest even and keep infinities and NaN.
namespace fastgan {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

FASTGAN_HOST_DEVICE float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

FASTGAN_HOST_DEVICE uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

FASTGAN_HOST_DEVICE float to_float(BFloat16 value) { return float_from_bits(uint32_t(value.bits) << 16); }

FASTGAN_HOST_DEVICE BFloat16 to_bfloat16(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x0040u;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return {static_cast<uint16_t>(is_nan ? quiet_nan : rounded)};
}

FASTGAN_HOST_DEVICE float to_float(Float16 value) {
  const uint32_t magnitude = uint32_t(value.bits & 0x7fffu) << 13;
  const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
  // The exponent biases differ by 112; multiplying by 2^112 also normalizes subnormals.
  const float finite = float_from_bits(magnitude) * 5.192296858534828e33f;
  const uint32_t special = magnitude | 0x7f800000u;
  return float_from_bits(sign | (magnitude >= 0x0f800000u ? special : bits_of_float(finite)));
}

FASTGAN_HOST_DEVICE Float16 to_float16(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t odd = (magnitude >> 13) & 1u;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
  // Below 2^-14 the half is subnormal: adding 0.5 aligns its last bit with the float's, and the addition rounds.
  const uint32_t subnormal = bits_of_float(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x47800000u ? special : half;  // 65536 and above; 65520 to 65536 become infinity by the carry
  return {static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u))};
}

// Stochastic rounding: up with the probability that makes the expected result equal the value, else down. `word` is
// random.
FASTGAN_HOST_DEVICE BFloat16 stochastic_bfloat16(float value, uint32_t word) {
  const uint32_t bits = bits_of_float(value);
  const bool is_finite = (bits & 0x7f800000u) != 0x7f800000u;
  return is_finite ? BFloat16{static_cast<uint16_t>((bits >> 16) + ((word >> 16) < (bits & 0xffffu)))}
                   : to_bfloat16(value);
}

FASTGAN_HOST_DEVICE Float16 stochastic_float16(float value, uint32_t word) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x47800000u) return to_float16(value);  // 65536 and above
  const uint32_t normal = ((magnitude - (112u << 23)) >> 13) + ((word >> 19) < (magnitude & 0x1fffu));
  // A subnormal half counts units of 2^-24.
  const float units = float_from_bits(magnitude) * 16777216.0f;
  const uint32_t whole = static_cast<uint32_t>(units);
  const float part = static_cast<float>(word >> 8) * 5.9604644775390625e-8f;
  const uint32_t subnormal = whole + (part < units - static_cast<float>(whole) ? 1u : 0u);
  const uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  return {static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u))};
}

}  // namespace fastgan
