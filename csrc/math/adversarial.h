#pragma once

#include "exponential.h"
#include "host_device.h"

// Adversarial losses of one logit: the term, its derivative, and its contributions to the statistics. Logits are
// already multiplied by the critic's sign, so that high means real.
namespace fastgan {

// The numbers are part of the operator's schema (fastgan/ops/adversarial.py).
enum class Game : int { kCrossEntropy = 0, kLeastSquares = 1, kHinge = 2, kWasserstein = 3, kRelativistic = 4 };

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
