#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

// Squared distance between two RGB images in YUV, with a gain that rises towards the border:
//
//     d = M (x - y) (1 + edge_gain f),    loss = sum_c scale_c mean(d_c^2)
//
// Per pixel this is a quadratic form, so its gradient is linear in x - y:
//
//     direction = M^T diag(scale) M (x - y) (1 + edge_gain f)^2,    d loss / d x = 2 / (N H W) direction
namespace fastgan {

// RGB to YUV, BT.601 (analogue PAL): the constants of tf.image.rgb_to_yuv, with the digits that StegaStamp used.
template <typename T>
struct YuvMatrix {
  static constexpr T y_r = T(0.299), y_g = T(0.587), y_b = T(0.114);
  static constexpr T u_r = T(-0.14713), u_g = T(-0.28886), u_b = T(0.436);
  static constexpr T v_r = T(0.615), v_g = T(-0.51499), v_b = T(-0.10001);
};

// Rises from 0 on the border row (or column) to 1 a quarter of the way in: (cos(4 pi i / size + pi) + 1) / 2 with i the
// distance to the nearer border.
FASTGAN_HOST_DEVICE double border_ramp(int64_t index, int64_t size) {
  const int64_t opposite = size - 1 - index;
  const int64_t distance = index < opposite ? index : opposite;
  constexpr double kFourPi = 12.566370614359172954;
  const double position = static_cast<double>(distance) / static_cast<double>(size);
  return position < 0.25 ? 0.5 * (1.0 - std::cos(kFourPi * position)) : 1.0;
}

template <typename T>
struct YuvL2Pixel {
  T squared_y, squared_u, squared_v;        // d_c^2
  T direction_r, direction_g, direction_b;  // see above
};

// `weight` is 1 + edge_gain f at this pixel.
template <typename T>
FASTGAN_HOST_DEVICE YuvL2Pixel<T> yuv_l2_pixel(T red, T green, T blue, T weight, T scale_y, T scale_u, T scale_v) {
  using M = YuvMatrix<T>;
  const T y = M::y_r * red + M::y_g * green + M::y_b * blue;
  const T u = M::u_r * red + M::u_g * green + M::u_b * blue;
  const T v = M::v_r * red + M::v_g * green + M::v_b * blue;
  const T squared_weight = weight * weight;
  const T weighted_y = squared_weight * y, weighted_u = squared_weight * u, weighted_v = squared_weight * v;
  const T scaled_y = scale_y * weighted_y, scaled_u = scale_u * weighted_u, scaled_v = scale_v * weighted_v;
  return {
      weighted_y * y,
      weighted_u * u,
      weighted_v * v,
      M::y_r * scaled_y + M::u_r * scaled_u + M::v_r * scaled_v,
      M::y_g * scaled_y + M::u_g * scaled_u + M::v_g * scaled_v,
      M::y_b * scaled_y + M::u_b * scaled_u + M::v_b * scaled_v,
  };
}

}  // namespace fastgan
