#pragma once

#include <cstdint>

#include "bounds.h"
#include "half.h"
#include "host_device.h"

// A JPEG round trip, sample by sample and eight values at a time, in two arithmetics:
//
//     int32_t         bit-identical to libjpeg-turbo's default encoder and decoder ("islow")
//     float, double   the same without any rounding, for surrogates of the quantization and for gradients
//
// Samples are centred: grey level - 128. Coefficients are scaled up by 8 from those of the orthonormal DCT, as in
// libjpeg; a quantization table q therefore divides by 8 q.
namespace fastgan {

template <typename T>
struct IsExact {
  static constexpr bool value = false;
};
template <>
struct IsExact<int32_t> {
  static constexpr bool value = true;
};

// --- Rounding shifts: integers lose bits, real numbers are scaled ---------------------------------------------------

// (x + bias) / 2^bits: integers round down, real numbers ignore the bias.
template <int kBits, int kBias, typename T>
FASTGAN_HOST_DEVICE T shift_down(T x) {
  if constexpr (IsExact<T>::value) {
    return (x + kBias) >> kBits;
  } else {
    return x * (T(1) / T(1 << kBits));
  }
}

// To the nearest integer, ties to even, for |x| < 2^22; vectorizes on every target.
FASTGAN_HOST_DEVICE float round_to_even(float x) { return (x + 12582912.0f) - 12582912.0f; }
FASTGAN_HOST_DEVICE double round_to_even(double x) { return (x + 6755399441055744.0) - 6755399441055744.0; }

// The same as an integer, read from the lowest bits of the sum: GPUs convert at a fraction of the rate of additions.
constexpr float kWholeNumbers = 12582912.0f;
FASTGAN_HOST_DEVICE int32_t whole(float x) {
  return static_cast<int32_t>(bits_of_float(x + kWholeNumbers) - bits_of_float(kWholeNumbers));
}
FASTGAN_HOST_DEVICE int32_t whole(double x) { return static_cast<int32_t>(round_to_even(x)); }

// Comparisons in this order keep NaN.
template <typename T>
FASTGAN_HOST_DEVICE T clamp(T x, T low, T high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

// 255 times a value, rounded to float before anything is added: nvcc would otherwise contract both into one fma.
template <typename In>
FASTGAN_HOST_DEVICE In times_255(In value) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(value, 255.0f);
#else
  return value * 255;
#endif
}

// An image's value, nominally in [0, 1], as a grey level, clamped. Integers round to nearest or, with kTruncate, down;
// NaN becomes one of the bounds where S cannot represent it.
template <typename S, bool kTruncate, typename In>
FASTGAN_HOST_DEVICE S grey_level(In value) {
  if constexpr (IsExact<S>::value) {
    // The clamp separates product and sum, which compilers would otherwise contract into one fma.
    const In level = bounded(times_255(value), In(255));
    return kTruncate ? static_cast<S>(level) : whole(level);
  } else {
    return clamp(value * 255, In(0), In(255));
  }
}

// --- Colour: full-range BT.601 (JFIF) -------------------------------------------------------------------------------

// libjpeg's 16-bit fixed-point constants, which come from coefficients rounded to five digits.
FASTGAN_HOST_DEVICE constexpr int32_t colour_fixed(double x) { return static_cast<int32_t>(x * 65536 + 0.5); }

template <typename T>
struct YCbCr {
  T y, cb, cr;  // each -128..127
};

// Works modulo 2^32. Adding the same multiple of 2^16 to all three arguments changes nothing, since the rows of the
// matrix sum to 2^16, 0 and 0.
FASTGAN_HOST_DEVICE YCbCr<int32_t> to_ycbcr(uint32_t red, uint32_t green, uint32_t blue) {
  constexpr uint32_t kHalf = 1 << 15, k128 = uint32_t(128) << 16;
  const uint32_t y =
      colour_fixed(0.299) * red + (kHalf - k128) + colour_fixed(0.587) * green + colour_fixed(0.114) * blue;
  const uint32_t cb =
      colour_fixed(0.5) * blue + (kHalf - 1) - colour_fixed(0.16874) * red - colour_fixed(0.33126) * green;
  const uint32_t cr =
      colour_fixed(0.5) * red + (kHalf - 1) - colour_fixed(0.41869) * green - colour_fixed(0.08131) * blue;
  return {static_cast<int32_t>(y) >> 16, static_cast<int32_t>(cb) >> 16, static_cast<int32_t>(cr) >> 16};
}
FASTGAN_HOST_DEVICE YCbCr<int32_t> to_ycbcr(int32_t red, int32_t green, int32_t blue) {
  return to_ycbcr(static_cast<uint32_t>(red), static_cast<uint32_t>(green), static_cast<uint32_t>(blue));
}

template <typename T>
struct ColourMatrix {
  static constexpr T y_r = T(0.299), y_g = T(0.587), y_b = T(0.114);
  static constexpr T cb_r = T(-0.168735892), cb_g = T(-0.331264108), cb_b = T(0.5);
  static constexpr T cr_r = T(0.5), cr_g = T(-0.418687589), cr_b = T(-0.081312411);
  static constexpr T r_cr = T(1.402), g_cb = T(-0.344136286), g_cr = T(-0.714136286), b_cb = T(1.772);
};

template <typename T>
FASTGAN_HOST_DEVICE YCbCr<T> to_ycbcr(T red, T green, T blue) {
  using M = ColourMatrix<T>;
  // The rows of the matrix sum to 1, 0 and 0. Relative to green, grey pixels are exact: at quality 50 half of all greys
  // lie where a surrogate jumps, and rounding errors must not decide to which side.
  const T red_rest = red - green, blue_rest = blue - green;
  return {
      M::y_r * red_rest + M::y_b * blue_rest + (green - 128),
      M::cb_r * red_rest + M::cb_b * blue_rest,
      M::cr_r * red_rest + M::cr_b * blue_rest,
  };
}

template <typename T>
struct RGB {
  T red, green, blue;  // 0..255 where the samples came from an image
};

FASTGAN_HOST_DEVICE RGB<int32_t> to_rgb(YCbCr<int32_t> sample) {
  constexpr int32_t kHalf = 1 << 15;
  const int32_t y = sample.y + 128, cb = sample.cb, cr = sample.cr;
  return {
      y + ((colour_fixed(1.402) * cr + kHalf) >> 16),
      y + ((-colour_fixed(0.34414) * cb - colour_fixed(0.71414) * cr + kHalf) >> 16),
      y + ((colour_fixed(1.772) * cb + kHalf) >> 16),
  };
}

template <typename T>
FASTGAN_HOST_DEVICE RGB<T> to_rgb(YCbCr<T> sample) {
  using M = ColourMatrix<T>;
  const T y = sample.y + 128;
  return {y + M::r_cr * sample.cr, y + M::g_cb * sample.cb + M::g_cr * sample.cr, y + M::b_cb * sample.cb};
}

// The transposes of both, for gradients.
template <typename T>
FASTGAN_HOST_DEVICE RGB<T> to_ycbcr_transposed(YCbCr<T> grad) {
  using M = ColourMatrix<T>;
  return {
      M::y_r * grad.y + M::cb_r * grad.cb + M::cr_r * grad.cr,
      M::y_g * grad.y + M::cb_g * grad.cb + M::cr_g * grad.cr,
      M::y_b * grad.y + M::cb_b * grad.cb + M::cr_b * grad.cr,
  };
}

template <typename T>
FASTGAN_HOST_DEVICE YCbCr<T> to_rgb_transposed(RGB<T> grad) {
  using M = ColourMatrix<T>;
  return {
      grad.red + grad.green + grad.blue,
      M::g_cb * grad.green + M::b_cb * grad.blue,
      M::r_cr * grad.red + M::g_cr * grad.green,
  };
}

// --- Chroma subsampling ---------------------------------------------------------------------------------------------

// The mean of 2 samples of a row, or of 4 of a square, given their sum. Integers are rounded up and down alternately,
// so that the mean of the plane is preserved, as in libjpeg.
template <typename T>
FASTGAN_HOST_DEVICE T mean_of_two(T sum, int64_t column) {
  if constexpr (IsExact<T>::value) return (sum + 256 + static_cast<T>(column & 1)) / 2 - 128;
  return sum * T(0.5);
}

template <typename T>
FASTGAN_HOST_DEVICE T mean_of_four(T sum, int64_t column) {
  if constexpr (IsExact<T>::value) return (sum + 512 + 1 + static_cast<T>(column & 1)) / 4 - 128;
  return sum * T(0.25);
}

// Triangle ("fancy") upsampling: 3/4 of the nearer and 1/4 of the farther sample. 4:2:2 upsamples rows; 4:2:0 first
// columns, without rounding, and then rows.
template <typename T>
FASTGAN_HOST_DEVICE T triangle_column(T nearer, T farther) {
  return 3 * nearer + farther;
}

// Upsampling along the row: kDirections is 1 for samples, 2 for the column sums of `triangle_column`.
template <int kDirections, typename T>
FASTGAN_HOST_DEVICE T triangle_left(T nearer, T left) {
  return kDirections == 1 ? shift_down<2, 1>(3 * nearer + left) : shift_down<4, 8>(3 * nearer + left);
}
template <int kDirections, typename T>
FASTGAN_HOST_DEVICE T triangle_right(T nearer, T right) {
  return kDirections == 1 ? shift_down<2, 2>(3 * nearer + right) : shift_down<4, 7>(3 * nearer + right);
}

// --- DCT ------------------------------------------------------------------------------------------------------------

// Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms with 11 multiplications", ICASSP 1989. As in
// libjpeg, integers use constants of 13 bits, and 2 extra bits between the two passes.
namespace dct {

template <typename T>
FASTGAN_HOST_DEVICE constexpr T constant(double x) {
  if constexpr (IsExact<T>::value) return static_cast<T>(x * 8192 + 0.5);
  return static_cast<T>(x);
}

// Drops kBits fractional bits of an integer, rounding, or adds them if kBits is negative. Real numbers have none.
template <int kBits, typename T>
FASTGAN_HOST_DEVICE T descale(T x) {
  if constexpr (!IsExact<T>::value) {
    return x;
  } else if constexpr (kBits < 0) {
    return x * (1 << -kBits);
  } else {
    return (x + (1 << (kBits - 1))) >> kBits;
  }
}

// The rotations by odd multiples of pi / 16, shared by the transform and its inverse.
template <typename T>
FASTGAN_HOST_DEVICE void rotate_odd(T& a, T& b, T& c, T& d) {
  const T z5 = (a + b + c + d) * constant<T>(1.1758756024193588);
  const T z1 = (a + d) * constant<T>(0.8999762231364157), z2 = (b + c) * constant<T>(2.5629154477415064);
  const T z3 = z5 - (a + c) * constant<T>(1.9615705608064611), z4 = z5 - (b + d) * constant<T>(0.3901806440322565);
  a = a * constant<T>(0.2986313362013704) - z1 + z3;
  b = b * constant<T>(2.0531198686373475) - z2 + z4;
  c = c * constant<T>(3.0727110268456652) - z2 + z3;
  d = d * constant<T>(1.5013211100714612) - z1 + z4;
}

}  // namespace dct

// Eight samples to eight frequencies. Pass 0 runs along the rows, pass 1 down the columns.
template <int kPass, typename T>
FASTGAN_HOST_DEVICE void forward_dct(T (&v)[8]) {
  using dct::constant;
  using dct::descale;
  constexpr int kPlain = kPass == 0 ? -2 : 2, kMultiplied = 13 + kPlain;
  const T sum0 = v[0] + v[7], sum1 = v[1] + v[6], sum2 = v[2] + v[5], sum3 = v[3] + v[4];
  T odd0 = v[0] - v[7], odd1 = v[1] - v[6], odd2 = v[2] - v[5], odd3 = v[3] - v[4];
  const T even0 = sum0 + sum3, even3 = sum0 - sum3, even1 = sum1 + sum2, even2 = sum1 - sum2;
  const T z = (even2 + even3) * constant<T>(0.5411961001461971);
  dct::rotate_odd(odd3, odd2, odd1, odd0);
  v[0] = descale<kPlain>(even0 + even1);
  v[4] = descale<kPlain>(even0 - even1);
  v[2] = descale<kMultiplied>(z + even3 * constant<T>(0.7653668647301795));
  v[6] = descale<kMultiplied>(z - even2 * constant<T>(1.8477590650225737));
  v[7] = descale<kMultiplied>(odd3);
  v[5] = descale<kMultiplied>(odd2);
  v[3] = descale<kMultiplied>(odd1);
  v[1] = descale<kMultiplied>(odd0);
}

// Eight frequencies to eight samples. Pass 0 runs down the columns, pass 1 along the rows. Takes orthonormal
// coefficients, without the factor 8 of the forward transform.
template <int kPass, typename T>
FASTGAN_HOST_DEVICE void inverse_dct(T (&v)[8]) {
  using dct::constant;
  using dct::descale;
  constexpr int kBits = kPass == 0 ? 13 - 2 : 13 + 2 + 3;
  const T z = (v[2] + v[6]) * constant<T>(0.5411961001461971);
  const T even2 = z - v[6] * constant<T>(1.8477590650225737), even3 = z + v[2] * constant<T>(0.7653668647301795);
  const T plain0 = (v[0] + v[4]) * constant<T>(1.0), plain1 = (v[0] - v[4]) * constant<T>(1.0);
  const T sum0 = plain0 + even3, sum3 = plain0 - even3, sum1 = plain1 + even2, sum2 = plain1 - even2;
  T odd3 = v[7], odd2 = v[5], odd1 = v[3], odd0 = v[1];
  dct::rotate_odd(odd3, odd2, odd1, odd0);
  const T scale = IsExact<T>::value || kPass == 0 ? T(1) : T(0.125);
  v[0] = descale<kBits>(sum0 + odd0) * scale;
  v[7] = descale<kBits>(sum0 - odd0) * scale;
  v[1] = descale<kBits>(sum1 + odd1) * scale;
  v[6] = descale<kBits>(sum1 - odd1) * scale;
  v[2] = descale<kBits>(sum2 + odd2) * scale;
  v[5] = descale<kBits>(sum2 - odd2) * scale;
  v[3] = descale<kBits>(sum3 + odd3) * scale;
  v[4] = descale<kBits>(sum3 - odd3) * scale;
}

// --- Quantization ---------------------------------------------------------------------------------------------------

// The numbers are part of the operator's schema (fastgan/ops/jpeg.py).
enum class Rounding : int { kStraightThrough = 0, kCubic = 1, kAtZero = 2, kNoise = 3, kNone = 4 };
constexpr int64_t kStraightThroughTruncated = 5;  // straight through, on grey levels that are rounded down

// Whether the derivative of the rounding's surrogate can differ from 1. If it cannot, transform and inverse cancel in
// the image's gradient, which is passed on unchanged, so that NaN in one sample does not spread.
FASTGAN_HOST_DEVICE constexpr bool slope_varies(Rounding rounding) {
  return rounding == Rounding::kCubic || rounding == Rounding::kAtZero;
}

// The integer step, 1..255, that integer arithmetic divides by; `valid` is false if there is none, as for NaN.
template <typename Real>
FASTGAN_HOST_DEVICE int32_t whole_step(Real step, bool& valid) {
  valid = step >= Real(0.5) && step < Real(255.5);
  const int32_t whole = valid ? static_cast<int32_t>(round_to_even(step)) : 1;
  return whole < 1 ? 1 : whole;
}

// The factor that `quantize` takes for a step of 1..255: 1 / (8 step), increased by between 2^-19 and 2^-17 of it.
FASTGAN_HOST_DEVICE float reciprocal_above(int32_t step) {
#ifdef __CUDA_ARCH__
  return __fdividef(1 + 0x1p-18f, static_cast<float>(8 * step));  // its error is below 2^-21
#else
  return (1 + 0x1p-18f) / static_cast<float>(8 * step);
#endif
}

// c / (8 q) rounded to nearest, halves away from zero, for |c| < 2^16. The increased reciprocal moves halves above the
// tie, and cannot lift a smaller quotient to it, since that is lower by at least 2^-16 of it.
FASTGAN_HOST_DEVICE int32_t quantize(int32_t coefficient, float reciprocal) {
  return whole(static_cast<float>(coefficient) * reciprocal);
}

// To the nearest integer, for any x: numbers too large for `round_to_even` are returned unchanged.
FASTGAN_HOST_DEVICE float nearest_whole(float x) { return (x < 0 ? -x : x) < 4194304.0f ? round_to_even(x) : x; }
FASTGAN_HOST_DEVICE double nearest_whole(double x) {
  return (x < 0 ? -x : x) < 2251799813685248.0 ? round_to_even(x) : x;
}

// The differentiable surrogate of rounding, and its derivative. `noise` is uniform in [-1/2, 1/2).
template <Rounding kRounding, typename T>
FASTGAN_HOST_DEVICE T surrogate(T x, T noise) {
  if constexpr (kRounding == Rounding::kCubic) {
    const T nearest = nearest_whole(x), rest = x - nearest;
    return nearest + rest * rest * rest;
  }
  if constexpr (kRounding == Rounding::kAtZero) return (x < 0 ? -x : x) < T(0.5) ? x * x * x : x;
  if constexpr (kRounding == Rounding::kNoise) return x + noise;
  return x;
}

template <Rounding kRounding, typename T>
FASTGAN_HOST_DEVICE T surrogate_slope(T x) {
  if constexpr (kRounding == Rounding::kCubic) {
    const T rest = x - nearest_whole(x);
    return 3 * rest * rest;
  }
  if constexpr (kRounding == Rounding::kAtZero) return (x < 0 ? -x : x) < T(0.5) ? 3 * x * x : T(1);
  return 1;
}

}  // namespace fastgan
