#pragma once

#include <cmath>

#include "host_device.h"

// What one element of a parameter goes through in an optimizer's step, in the order and with the roundings of
// torch.optim's formulas. Told in fastgan/ops/optimizer_step.py.
namespace fastgan {

// The numbers are part of the operator's schema.
enum class Algorithm : int { kRMSprop = 0, kAdam = 1 };

template <typename T>
struct StepConstants {
  T grad_factor;              // unscales, clips the norm, and turns the sign to maximize
  T grad_bound;               // of the gradient's values; infinite: none
  T weight_decay, shrinkage;  // added to the gradient; factor of the parameter before the step
  T step_size;                // of the gradient: lr, for Adam over 1 - beta1^t; 1 where there is momentum
  T momentum_step_size;       // of the momentum: lr
  T momentum;                 // of RMSprop; beta1 of Adam
  T decay;                    // of squared gradients: alpha of RMSprop, beta2 of Adam
  T renewal;                  // 1 - decay, subtracted before it is rounded to T: 1 - 0.999f is off by 1e-5
  T mean_renewal;             // of the gradient's average: 1 - alpha of RMSprop, 1 - beta1 of Adam
  T correction;               // of Adam's denominator: sqrt(1 - beta2^t)
  T eps;
  T low, high;       // bounds of the parameter after the step
  T average_weight;  // 1 - decay of the parameter's moving average
};

// NaN stays NaN.
template <typename T>
FASTGAN_HOST_DEVICE T bounded_between(T value, T low, T high) {
  const T raised = value < low ? low : value;
  return raised > high ? high : raised;
}

template <typename T>
FASTGAN_HOST_DEVICE T prepared_gradient(T grad, T parameter, const StepConstants<T>& c) {
  return bounded_between(grad * c.grad_factor, -c.grad_bound, c.grad_bound) + c.weight_decay * parameter;
}

// a + weight (b - a), as aten::lerp for weights below one half; above, from the other side.
template <typename T>
FASTGAN_HOST_DEVICE T interpolated(T a, T b, T weight) {
  return weight < T(0.5) ? a + weight * (b - a) : b - (b - a) * (1 - weight);
}

template <typename T>
FASTGAN_HOST_DEVICE T mean_square(T average, T grad, const StepConstants<T>& c) {
  return c.decay * average + c.renewal * grad * grad;
}

}  // namespace fastgan
