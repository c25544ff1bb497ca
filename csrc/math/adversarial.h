#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.h"

// Adversarial losses of one logit: the term, its derivative, and its contributions to the statistics. Logits are
// already multiplied by the critic's sign, so that high means real.
namespace fastgan {

// The numbers are part of the operator's schema (fastgan/ops/adversarial.py).
enum class Game : int { kCrossEntropy = 0, kLeastSquares = 1, kHinge = 2, kWasserstein = 3, kRelativistic = 4 };

// exp(x) for x <= 0, vectorizable: 2^n times a series of the remainder r, |r| <= ln(2) / 2. Adding kShift puts 127 + n,
// the biased exponent of 2^n, into the lowest bits of `shifted`. At kBound it is 0, so that 2^n becomes 0. NaN compares
// false with kBound and is passed on.
FASTGAN_HOST_DEVICE float exp_of_negative(float x) {
  constexpr float kShift = 12582912.0f + 127.0f, kBound = -88.0f;
  const float bounded = x < kBound ? kBound : x;
  const float shifted = bounded * 1.44269504f + kShift, n = shifted - kShift;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  const float series = 1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))));
  const float power = 1.0f + r + r * r * series;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits <<= 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return power * scale;
}
FASTGAN_HOST_DEVICE double exp_of_negative(double x) { return std::exp(x); }

// log(1 + e) for e in [0, 1] without a division: a polynomial of least relative error, 5e-9, fitted with the first
// coefficient fixed at 1, so that it is exact for tiny e.
FASTGAN_HOST_DEVICE float log1p_of_unit(float e) {
  float series = -0.00331847347f;
  series = series * e + 0.0202045894f;
  series = series * e - 0.0576644532f;
  series = series * e + 0.106805565f;
  series = series * e - 0.15355397f;
  series = series * e + 0.196954008f;
  series = series * e - 0.249585875f;
  series = series * e + 0.333305113f;
  series = series * e - 0.499999328f;
  return e + e * e * series;
}
FASTGAN_HOST_DEVICE double log1p_of_unit(double e) { return std::log1p(e); }

// log(1 + exp(x)) as max(x, 0) + rest, its derivative `slope`, which is the logistic function of x, and 1 - slope. Kept
// in parts, because their sums would cancel near a label. The struct has no member functions: calling them takes its
// address, and gcc does not vectorize loops that do.
template <typename T>
struct Softplus {
  T positive, rest, slope, complement;
};

template <typename T>
FASTGAN_HOST_DEVICE Softplus<T> softplus(T x) {
  const T e = exp_of_negative(-std::fabs(x));
  const T larger = 1 / (1 + e), smaller = e * larger;
  const bool negative = x < 0;
  return {x > 0 ? x : T(0), log1p_of_unit(e), negative ? smaller : larger, negative ? larger : smaller};
}

// One logit's contributions to the loss, its derivative, and the statistics.
template <typename T>
struct LogitTerms {
  T loss, slope, probability, correct, violation;
};

// The terms of one logit in D's loss. `label` is its target value (cross entropy, least squares), `target` +1 for real
// and -1 for fake, and `threshold` separates logits classified as real from those classified as fake.
template <Game kGame, typename T>
FASTGAN_HOST_DEVICE LogitTerms<T> discriminator_terms(T logit, T label, T target, T threshold) {
  const Softplus<T> soft = softplus(logit);
  const T margin = target * logit;
  LogitTerms<T> terms;
  if constexpr (kGame == Game::kCrossEntropy) {
    // (1 - label) max(l, 0) + label max(-l, 0), where zero times infinity is 0, its limit. `soft.rest` brings NaN in.
    const T weight = logit < 0 ? -label : 1 - label;
    terms.loss = (weight != 0 ? weight * logit : T(0)) + soft.rest;
    terms.slope = (1 - label) * soft.slope - label * soft.complement;
  } else if constexpr (kGame == Game::kLeastSquares) {
    const T difference = logit - label;
    terms.loss = T(0.5) * difference * difference;
    terms.slope = difference;
  } else if constexpr (kGame == Game::kHinge) {
    const T deficit = 1 - margin;
    const T active_slope = deficit > 0 ? -target : deficit;  // NaN stays NaN
    terms.loss = deficit < 0 ? T(0) : deficit;
    terms.slope = deficit < 0 ? T(0) : active_slope;
  } else {
    terms.loss = -margin;
    terms.slope = -target;
  }
  terms.probability = soft.slope;
  terms.correct = margin > target * threshold ? T(1) : T(0);
  terms.violation = margin < 1 ? T(1) : T(0);
  return terms;
}

}  // namespace fastgan
