#pragma once

#include <cstdint>

#include "host_device.h"

namespace fastgan {

// Division by a number that is constant during a launch, in three instructions. GPUs have no instruction for integer
// division: with 32 bits it takes some 20 instructions, with 64 bits a hundred and more.
//
// With 2^s >= d and f = (2^(31 + s) + e) / d, 0 <= e < d, we have n f / 2^(31 + s) = n / d + n e / (d 2^(31 + s)). For
// n < 2^31 the last term is below 1 / d, too small to reach the next integer. f has 32 bits.
class Divisor {
 public:
  Divisor() : Divisor(1) {}
  // `divisor` is below 2^31. It may be 0, for an image without rows or columns: then `divide` is never called.
  explicit Divisor(int64_t divisor) : divisor_(divisor > 0 ? static_cast<uint32_t>(divisor) : 1), shift_(31) {
    while ((uint64_t(1) << (shift_ - 31)) < divisor_) ++shift_;
    factor_ = static_cast<uint32_t>(((uint64_t(1) << shift_) + divisor_ - 1) / divisor_);
  }

  // Returns the quotient of a dividend below 2^31, and leaves the remainder in `dividend`.
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
