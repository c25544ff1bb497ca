#pragma once

#include <cstdint>

#include "host_device.h"

namespace fastgan {

// Division by a number that stays the same for a whole launch, in three instructions. GPUs have none for it: 32 bits
// take some 20 instructions, 64 bits a hundred and more.
//
// With 2^s >= d and f = (2^(31 + s) + e) / d, 0 <= e < d, is n f / 2^(31 + s) = n / d + n e / (d 2^(31 + s)), and for
// n < 2^31 the last term is below 1 / d: too small to reach the next whole number. f has 32 bits.
class Divisor {
 public:
  Divisor() : Divisor(1) {}
  // Below 2^31; of an image without rows or columns it is 0, and nothing will be divided.
  explicit Divisor(int64_t divisor) : divisor_(divisor > 0 ? static_cast<uint32_t>(divisor) : 1), shift_(31) {
    while ((uint64_t(1) << (shift_ - 31)) < divisor_) ++shift_;
    factor_ = static_cast<uint32_t>(((uint64_t(1) << shift_) + divisor_ - 1) / divisor_);
  }

  // Of a dividend below 2^31; what remains is left in it.
  FASTGAN_HOST_DEVICE uint32_t divide(uint32_t& dividend) const {
    const uint32_t quotient = static_cast<uint32_t>((uint64_t(dividend) * factor_) >> shift_);
    dividend -= quotient * divisor_;
    return quotient;
  }

 private:
  uint32_t divisor_, factor_;
  int shift_;
};

}  // namespace fastgan
