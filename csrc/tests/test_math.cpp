#include "../math/half.h"
#include "../math/yuv_l2.h"
#include "check.h"

using namespace fastgan;

// Every finite half survives the conversion to float and back, and has the value that its fields define.
void every_half_round_trips() {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Float16 half{static_cast<uint16_t>(bits)};
    const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const float value = to_float(half);
    if (exponent == 31) {
      CHECK(fraction ? std::isnan(value) : std::isinf(value));
      if (fraction) continue;
    } else {
      const double magnitude = exponent ? std::ldexp(1024.0 + fraction, exponent - 25) : std::ldexp(fraction, -24);
      CHECK(value == ((bits & 0x8000) ? -magnitude : magnitude));
    }
    CHECK(to_float16(value).bits == bits);
  }
}

void halves_round_to_nearest_even() {
  CHECK(to_float16(1.0f + std::ldexp(1.0f, -11)).bits == 0x3c00);      // tie: down to even
  CHECK(to_float16(1.0f + 3 * std::ldexp(1.0f, -11)).bits == 0x3c02);  // tie: up to even
  CHECK(to_float16(65519.996f).bits == 0x7bff);                        // below the tie: largest finite
  CHECK(to_float16(65520.0f).bits == 0x7c00);                          // tie: infinity
  CHECK(to_float16(std::ldexp(1.0f, -25)).bits == 0);                  // tie: down to zero
  CHECK(to_float16(1.5f * std::ldexp(1.0f, -25)).bits == 1);
  CHECK(to_float16(-INFINITY).bits == 0xfc00);
  CHECK(to_bfloat16(1.0f + std::ldexp(1.0f, -8)).bits == 0x3f80);
  CHECK(to_bfloat16(1.0f + 3 * std::ldexp(1.0f, -8)).bits == 0x3f82);
  CHECK(std::isnan(to_float(to_bfloat16(NAN))));
  CHECK(std::isnan(to_float(to_float16(NAN))));
}

void ramp_rises_from_the_border_to_a_quarter() {
  CHECK(border_ramp(0, 400) == 0.0);
  CHECK(border_ramp(399, 400) == 0.0);
  CHECK_CLOSE(border_ramp(50, 400), 0.5, 1e-15);
  CHECK(border_ramp(100, 400) == 1.0);
  CHECK(border_ramp(200, 400) == 1.0);
  CHECK(border_ramp(0, 1) == 0.0);
  for (int i = 0; i < 17; ++i) CHECK(border_ramp(i, 17) == border_ramp(16 - i, 17));
}

int main() {
  every_half_round_trips();
  halves_round_to_nearest_even();
  ramp_rises_from_the_border_to_a_quarter();
  std::puts("3 passed, 0 failed");
}
