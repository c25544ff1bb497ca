#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

// An optimizer's step for one element of a parameter, with the operations in the order of torch.optim's formulas and
// rounded as they are. fastgan/ops/optimizer_step.py documents them.
namespace fastgan {

// The numbers are part of the operator's schema.
enum class Algorithm : int { kRMSprop = 0, kAdam = 1, kAverage = 2 };  // kAverage: only the moving average

// The fields of StepOptions in fastgan/reference/optimizer_step.py, in the same order.
struct StepNumbers {
  double lr, weight_decay, momentum, decay, eps, decoupled, maximize, eps_inside_sqrt;
  double grad_clip_value, grad_clip_norm, low, high, average_weight, average_warmup, counts_update;
  double rounding_seed;  // of stochastic rounding; negative: round to nearest

  static constexpr int kCount = 16;
};

// The values that a step reads from tensors.
struct StepReadings {
  double step = 1;  // the number of this step, from 1
  double lr = 0;
  double unscale = 1;    // of the gradients
  double grad_norm = 0;  // of the gradients before unscaling
  double updates = 0;    // number of updates of the moving average so far
};

template <typename T>
struct StepConstants {
  T grad_factor;              // unscales, clips the norm, and flips the sign to maximize
  T grad_bound;               // bound of the gradient's values; infinite: no clipping
  T weight_decay, shrinkage;  // L2 term of the gradient; factor of the parameter before the step
  T step_size;                // factor of the gradient: lr, for Adam lr / (1 - beta1^t); 1 with momentum
  T momentum_step_size;       // factor of the momentum buffer: lr
  T momentum;                 // RMSprop's; beta1 for Adam
  T decay;                    // of squared gradients: RMSprop's alpha, Adam's beta2
  T renewal;                  // 1 - decay, computed in double and then rounded to T: 1 - 0.999f is off by 1e-5
  T mean_renewal;             // of the gradient's average: RMSprop's 1 - alpha, Adam's 1 - beta1
  T correction;               // of Adam's denominator: sqrt(1 - beta2^t)
  T eps;
  T low, high;       // bounds of the parameter after the step
  T average_weight;  // 1 - decay of the parameter's moving average
};

// Adam's decays to the power of the step's number.
struct StepPowers {
  double momentum = 0, decay = 0;
};

inline StepPowers step_powers(const StepNumbers& n, double step) {
  return {std::pow(n.momentum, step), std::pow(n.decay, step)};
}

// The same by squaring, in a tenth of pow's time on a GPU, for which each block of threads would wait. `step` is an
// integer; the rounding errors of float64, about `step` of them, vanish when a constant is rounded to float32.
FASTGAN_HOST_DEVICE StepPowers powers_by_squaring(const StepNumbers& n, double step) {
  StepPowers powers = {1, 1};
  double momentum = n.momentum, decay = n.decay;
  for (uint64_t left = static_cast<uint64_t>(step); left != 0; left >>= 1) {
    if (left & 1) {
      powers.momentum *= momentum;
      powers.decay *= decay;
    }
    momentum *= momentum;
    decay *= decay;
  }
  return powers;
}

// The factor that reduces a norm to its bound, as in torch.nn.utils.clip_grad_norm_; NaN stays NaN.
FASTGAN_HOST_DEVICE double shrinking(double bound, double norm) {
  return bound > norm + 1e-6 ? 1 : bound / (norm + 1e-6);
}

// 1 - decay. With warm-up the decay is at most (1 + updates) / (10 + updates), where `updates` does not count this one.
FASTGAN_HOST_DEVICE double average_weight(const StepNumbers& n, double updates) {
  if (n.average_warmup == 0) return n.average_weight;
  const double early = 9 / (10 + updates);
  return early > n.average_weight ? early : n.average_weight;
}

template <typename T>
FASTGAN_HOST_DEVICE StepConstants<T> step_constants(
    Algorithm algorithm, const StepNumbers& n, const StepReadings& r, const StepPowers& powers) {
  const bool adam = algorithm == Algorithm::kAdam;
  const double factor = r.unscale * shrinking(n.grad_clip_norm, r.grad_norm * r.unscale);
  StepConstants<T> c;
  c.grad_factor = static_cast<T>(n.maximize != 0 ? -factor : factor);
  c.grad_bound = static_cast<T>(n.grad_clip_value);
  c.weight_decay = static_cast<T>(n.decoupled != 0 ? 0 : n.weight_decay);
  c.shrinkage = static_cast<T>(n.decoupled != 0 ? 1 - r.lr * n.weight_decay : 1);
  c.step_size = static_cast<T>(adam ? r.lr / (1 - powers.momentum) : n.momentum != 0 ? 1 : r.lr);
  c.momentum_step_size = static_cast<T>(r.lr);
  c.momentum = static_cast<T>(n.momentum);
  c.decay = static_cast<T>(n.decay);
  c.renewal = static_cast<T>(1 - n.decay);
  c.mean_renewal = static_cast<T>(adam ? 1 - n.momentum : 1 - n.decay);
  c.correction = static_cast<T>(adam ? std::sqrt(1 - powers.decay) : 1);
  c.eps = static_cast<T>(n.eps);
  c.low = static_cast<T>(n.low);
  c.high = static_cast<T>(n.high);
  c.average_weight = static_cast<T>(average_weight(n, r.updates));
  return c;
}

// NaN stays NaN.
template <typename T>
FASTGAN_HOST_DEVICE T bounded_between(T value, T low, T high) {
  const T raised = value < low ? low : value;
  return raised > high ? high : raised;
}

// a + weight (b - a), computed like aten::lerp: from b for weights of one half and above.
template <typename T>
FASTGAN_HOST_DEVICE T interpolated(T a, T b, T weight) {
  return weight < T(0.5) ? a + weight * (b - a) : b - (b - a) * (1 - weight);
}

// Which formula to use, and which arrays exist. Adam requires the second state, and eps outside of the root.
struct StepKind {
  bool adam, steps, inside, second, third, average;
};

// The same, known at compile time.
template <bool kAdam, bool kInside, bool kSecond, bool kThird, bool kAverage>
struct FixedKind {
  static constexpr bool adam = kAdam, steps = true, inside = kInside, second = kSecond, third = kThird;
  static constexpr bool average = kAverage;
};

template <typename T>
struct StepElement {
  T parameter = 0, first = 0, second = 0, third = 0, average = 0;
};

template <typename Kind, typename T>
FASTGAN_HOST_DEVICE void take_step(const Kind& kind, const StepConstants<T>& c, T grad, StepElement<T>& e) {
  if (kind.steps) {
    grad = bounded_between(grad * c.grad_factor, -c.grad_bound, c.grad_bound) + c.weight_decay * e.parameter;
    e.first = c.decay * e.first + c.renewal * grad * grad;
    if (kind.second) e.second = interpolated(e.second, grad, c.mean_renewal);
    T square = e.first;
    if (kind.adam) {
      if (kind.third) {
        // NaN on either side counts as the larger.
        square = e.third > square || e.third != e.third ? e.third : square;
        e.third = square;
      }
    } else if (kind.second) {
      square -= e.second * e.second;
    }
    // All formulas share one root and one quotient: where the kind is known only at run time, each would add code.
    const T root = std::sqrt(kind.inside ? square + c.eps : square);
    const T corrected = kind.adam ? root / c.correction : root;
    T step = c.step_size * (kind.adam ? e.second : grad) / (kind.inside ? root : corrected + c.eps);
    if (!kind.adam && kind.third) {
      e.third = c.momentum * e.third + step;
      step = c.momentum_step_size * e.third;
    }
    e.parameter = bounded_between(e.parameter * c.shrinkage - step, c.low, c.high);
  }
  if (kind.average) e.average = interpolated(e.average, e.parameter, c.average_weight);
}

}  // namespace fastgan
