#pragma once

#include <cmath>

#include "exponential.h"
#include "host_device.h"

// Smooth activations of one number, and their first two derivatives.
namespace fastgan {

// The numbers are part of the operators' schemas (fastgan/ops/bias_act.py). The last two have derivatives alone, as
// functions of the activation's output; all others as functions of its input.
enum class Activation : int {
  kLinear = 0,
  kTanh = 1,
  kSigmoid = 2,
  kElu = 3,
  kSelu = 4,
  kSoftplus = 5,
  kSwish = 6,
  kOfTanh = 7,
  kOfSigmoid = 8
};
constexpr int kActivations = 7, kDerivatives = 9;

// Klambauer et al. 2017: the scale and slope with which activations keep mean 0 and variance 1.
constexpr double kSeluScale = 1.0507009873554804934193349852946;
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;

// Where swish has its limits: products of 0 and infinity would be NaN. For numbers as large exp(-|x|) is 0 in double,
// too.
constexpr double kSwishBound = 1e4;

template <Activation kAct, typename T>
FASTGAN_HOST_DEVICE T activation(T x) {
  if constexpr (kAct == Activation::kLinear) {
    return x;
  } else if constexpr (kAct == Activation::kTanh) {
    const T falling = expm1_of_negative(-2 * std::fabs(x)), t = falling / (2 + falling);
    return x > 0 ? -t : t;
  } else if constexpr (kAct == Activation::kSigmoid) {
    return softplus(x).slope;
  } else if constexpr (kAct == Activation::kElu || kAct == Activation::kSelu) {
    constexpr bool is_elu = kAct == Activation::kElu;
    constexpr T kPositive = T(is_elu ? 1 : kSeluScale), kNegative = T(is_elu ? 1 : kSeluScale * kSeluAlpha);
    const T negative = kNegative * expm1_of_negative(x > 0 ? T(0) : x);
    return x > 0 ? kPositive * x : negative;
  } else if constexpr (kAct == Activation::kSoftplus) {
    const Softplus<T> soft = softplus(x);
    return soft.positive + soft.rest;
  } else {
    return (x < T(-kSwishBound) ? T(-kSwishBound) : x) * softplus(x).slope;
  }
}

template <typename T>
struct Derivatives {
  T first, second;
};

// At 0 elu and selu have the first derivative of negative numbers and the second of positive ones, as in torch.
template <Activation kAct, typename T>
FASTGAN_HOST_DEVICE Derivatives<T> derivatives(T x) {
  if constexpr (kAct == Activation::kLinear) {
    return {1, 0};
  } else if constexpr (kAct == Activation::kOfTanh) {
    return {1 - x * x, -2 * x};
  } else if constexpr (kAct == Activation::kOfSigmoid) {
    return {x * (1 - x), 1 - 2 * x};
  } else if constexpr (kAct == Activation::kTanh) {
    const Exponential<T> falling = exponential_of_negative(-2 * std::fabs(x));
    const T inverse = 1 / (2 + falling.minus_one), t = falling.minus_one * inverse;
    const T first = 4 * falling.value * inverse * inverse;
    return {first, (x > 0 ? 2 * t : -2 * t) * first};
  } else if constexpr (kAct == Activation::kElu || kAct == Activation::kSelu) {
    constexpr bool is_elu = kAct == Activation::kElu;
    constexpr T kPositive = T(is_elu ? 1 : kSeluScale), kNegative = T(is_elu ? 1 : kSeluScale * kSeluAlpha);
    const T power = kNegative * exp_of_negative(x > 0 ? T(0) : x);
    return {x > 0 ? kPositive : power, x >= 0 ? T(0) : power};
  } else {
    const Exponential<T> falling = exponential_of_negative(-std::fabs(x));
    const T larger = 1 / (1 + falling.value), smaller = falling.value * larger, product = larger * smaller;
    const T distance = falling.minus_one * larger;  // of the larger from the smaller, not above 0
    const T slope = x < 0 ? smaller : larger, complement = x < 0 ? larger : smaller;
    const T difference = x < 0 ? -distance : distance;  // complement - slope
    if constexpr (kAct == Activation::kSigmoid) {
      return {product, product * difference};
    } else if constexpr (kAct == Activation::kSoftplus) {
      return {slope, product};
    } else {
      const T raised = x < T(-kSwishBound) ? T(-kSwishBound) : x;
      const T bounded = raised > T(kSwishBound) ? T(kSwishBound) : raised;
      return {slope * (1 + bounded * complement), product * (2 + bounded * difference)};
    }
  }
}

}  // namespace fastgan
