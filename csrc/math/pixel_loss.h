#pragma once

#include <cmath>

#include "host_device.h"

// The penalty rho of a value, and its derivative psi:
//
//     L1            |v|                                    sign(v)
//     L2            v^2                                    2 v
//     Charbonnier   sqrt(v^2 + eps)                        v / sqrt(v^2 + eps)
//     Huber         v^2 / 2, beyond delta                  v, bounded by delta
//                   delta (|v| - delta / 2)
namespace fastgan {

// In the order of KINDS in fastgan/reference/pixel_loss.py.
enum class PixelKind { kL1, kL2, kCharbonnier, kHuber };

// In the order of COLORS there.
enum class PixelColour { kRgb, kLuma, kYuv };

template <typename T>
struct PixelPenalty {
  T value, slope;
};

// `threshold` is eps or delta. As in torch, sign(NaN) is 0, and a NaN stays one in all others.
template <PixelKind kKind, typename T>
FASTGAN_HOST_DEVICE PixelPenalty<T> pixel_penalty(T value, T threshold) {
  if (kKind == PixelKind::kL1) {
    const T size = std::abs(value);
    // copysign is one bitwise operation; (value > 0) - (value < 0) would compare twice and blend twice.
    return {size, size > 0 ? std::copysign(T(1), value) : T(0)};
  }
  if (kKind == PixelKind::kL2) return {value * value, 2 * value};
  if (kKind == PixelKind::kCharbonnier) {
    const T root = std::sqrt(value * value + threshold);
    return {root, value / root};
  }
  // Huber
  const T size = std::abs(value), bounded = size > threshold ? threshold : size;
  const T slope = value > threshold ? threshold : (value < -threshold ? -threshold : value);
  return {bounded * (size - bounded / 2), slope};
}

}  // namespace fastgan
