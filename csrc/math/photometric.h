#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "bounds.h"
#include "host_device.h"
#include "philox.h"

// StegaStamp's photometric distortions of one pixel, channel c of three:
//
//     u_c = clamp(x_c + strength n_c)              n_c: a standard normal number
//     v_c = clamp(contrast u_c + offset_c)
//     z_c = (1 - desaturation) v_c + desaturation (0.3 v_r + 0.6 v_g + 0.1 v_b)
//
// It is linear between the clamps' bounds, so that a backward pass needs only two bits per channel and neither image
// nor noise: "within both bounds" and, since NaN is on no side of a bound, "NaN".
namespace fastgan {

template <typename T>
struct Photometric {
  T strength, contrast, offset[3], desaturation;
};

template <typename T>
struct Luminance {
  static constexpr T red = T(0.3), green = T(0.6), blue = T(0.1);
};

template <typename T>
struct Pixel {
  T red, green, blue;
};

// --- normal numbers ------------------------------------------------------------------------------------

// ln x for normal x > 0. With x = 2^e m and m in [sqrt(1/2), sqrt(2)): ln m = 2 artanh s, s = (m - 1) / (m + 1), a
// series whose first omitted term is below 1e-9. Loops over it vectorize, unlike loops over the library's logarithm.
FASTGAN_HOST_DEVICE float natural_logarithm(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  constexpr uint32_t kSqrtHalf = 0x3f3504f3;  // bits of sqrt(1/2), where m's range begins
  const int32_t exponent = static_cast<int32_t>(bits - kSqrtHalf) >> 23;
  bits -= static_cast<uint32_t>(exponent) << 23;
  float m;
  std::memcpy(&m, &bits, sizeof m);
  const float s = (m - 1) / (m + 1), square = s * s;
  const float series = 1.0f + square * (1.0f / 3 + square * (1.0f / 5 + square * (1.0f / 7 + square * (1.0f / 9))));
  return static_cast<float>(exponent) * 0.69314718056f + 2 * s * series;
}

template <typename T>
struct Direction {
  T cosine, sine;
};

// Cosine and sine of 2 pi t, t in [0, 1): an exact reduction to [-1/8, 1/8], followed by Taylor series.
FASTGAN_HOST_DEVICE Direction<float> direction(float t) {
  const float quarters = 4 * t;
  const int32_t quadrant = static_cast<int32_t>(quarters + 0.5f);
  const float angle = (quarters - static_cast<float>(quadrant)) * 1.57079632679f, square = angle * angle;
  const float sine =
      angle * (1 + square * (-1.0f / 6 + square * (1.0f / 120 + square * (-1.0f / 5040 + square * (1.0f / 362880)))));
  const float cosine =
      1 + square * (-1.0f / 2 + square * (1.0f / 24 + square * (-1.0f / 720 + square * (1.0f / 40320))));
  const bool odd = quadrant & 1;
  const float x = odd ? sine : cosine, y = odd ? cosine : sine;
  return {(quadrant + 1) & 2 ? -x : x, quadrant & 2 ? -y : y};
}

FASTGAN_HOST_DEVICE double natural_logarithm(double x) { return std::log(x); }

FASTGAN_HOST_DEVICE Direction<double> direction(double t) {
  constexpr double kTwoPi = 6.283185307179586477;
  return {std::cos(kTwoPi * t), std::sin(kTwoPi * t)};
}

// Pixels are numbered through all images, (n H + y) W + x. Channel c of four neighbours, pixels 4 q to 4 q + 3, takes
// its noise from the four words of counter q in stream c.
constexpr int kQuad = 4;

template <typename T>
struct Quad {
  T normal[kQuad];
};

// Two Box-Muller transforms. The radius uses a word's upper 24 bits as a number in (0, 1], so that it is finite (at
// most 5.77); the angle uses them as one in [0, 1).
template <typename T>
FASTGAN_HOST_DEVICE Quad<T> normal_quad(uint32_t word0, uint32_t word1, uint32_t word2, uint32_t word3) {
  constexpr float kLast = 5.9604644775390625e-8f;  // 2^-24
  const T radius_0 = std::sqrt(-2 * natural_logarithm(T(uniform(word0) + kLast)));
  const T radius_1 = std::sqrt(-2 * natural_logarithm(T(uniform(word2) + kLast)));
  const Direction<T> direction_0 = direction(T(uniform(word1)));
  const Direction<T> direction_1 = direction(T(uniform(word3)));
  return {{
      radius_0 * direction_0.cosine,
      radius_0 * direction_0.sine,
      radius_1 * direction_1.cosine,
      radius_1 * direction_1.sine,
  }};
}

// --- the distortion and its transpose ----------------------------------------------------------------

// Clamps to [0, 1]; NaN stays NaN.
template <typename T>
FASTGAN_HOST_DEVICE T bound_unit(T value) {
  const T result = bounded(value, T(1));
  return value == value ? result : value;
}

// The same, and clears `within` if the value was outside, or NaN.
template <typename T>
FASTGAN_HOST_DEVICE T clamp_unit(T value, int32_t& within) {
  const T bounded = bound_unit(value);
  within = bounded == value ? within : 0;
  return bounded;
}

constexpr int32_t kPhotometricNan = 8;  // for red; shifted by the channel

// `mask`: bit c is set if channel c passed both clamps unchanged, bit 3 + c if it is NaN.
template <typename T>
FASTGAN_HOST_DEVICE Pixel<T> photometric_pixel(
    const Pixel<T>& pixel, const Pixel<T>& normal, const Photometric<T>& p, int32_t& mask) {
  using L = Luminance<T>;
  int32_t within_r = 1, within_g = 2, within_b = 4;
  const T r =
      clamp_unit(p.contrast * clamp_unit(pixel.red + p.strength * normal.red, within_r) + p.offset[0], within_r);
  const T g =
      clamp_unit(p.contrast * clamp_unit(pixel.green + p.strength * normal.green, within_g) + p.offset[1], within_g);
  const T b =
      clamp_unit(p.contrast * clamp_unit(pixel.blue + p.strength * normal.blue, within_b) + p.offset[2], within_b);
  const int32_t nan = (r == r ? 0 : 1) | (g == g ? 0 : 2) | (b == b ? 0 : 4);
  mask = within_r | within_g | within_b | (nan * kPhotometricNan);
  const T grey = p.desaturation * (L::red * r + L::green * g + L::blue * b);
  const T colour = 1 - p.desaturation;
  return {colour * r + grey, colour * g + grey, colour * b + grey};
}

template <typename T>
FASTGAN_HOST_DEVICE Pixel<T> photometric_gradient(const Pixel<T>& grad, const Photometric<T>& p, int32_t mask) {
  using L = Luminance<T>;
  const T grey = p.contrast * p.desaturation * (grad.red + grad.green + grad.blue);
  const T colour = p.contrast * (1 - p.desaturation);
  const T red = mask & 1 ? colour * grad.red + L::red * grey : T(0);
  const T green = mask & 2 ? colour * grad.green + L::green * grey : T(0);
  const T blue = mask & 4 ? colour * grad.blue + L::blue * grey : T(0);
  return {
      mask & kPhotometricNan ? T(NAN) : red,
      mask & (kPhotometricNan << 1) ? T(NAN) : green,
      mask & (kPhotometricNan << 2) ? T(NAN) : blue,
  };
}

}  // namespace fastgan
