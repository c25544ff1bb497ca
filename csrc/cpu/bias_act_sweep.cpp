#include "bias_act_sweep.h"

#include <cmath>

#include "clones.h"

namespace fastgan {
namespace {

constexpr int64_t kRun = ChannelRuns::kRun;

// --- a run of values -------------------------------------------------------------------------------------------------

template <typename T>
struct Bounds {
  T gain, limit;
};

// With one bias for each element, or one for all: chosen outside of the loop, which gcc does not do for long ones.
template <Activation kAct, bool kEach, typename T>
FASTGAN_HOST_DEVICE void activate_row(
    const T* source, const T* biases, T bias, int64_t length, Bounds<T> bounds, T* target) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) {
    const T y = bounds.gain * activation<kAct>(source[i] + (kEach ? biases[i] : bias));
    const T raised = y < -bounds.limit ? -bounds.limit : y;  // comparisons in this order keep NaN
    target[i] = raised > bounds.limit ? bounds.limit : raised;
  }
}

template <Activation kAct, typename T>
FASTGAN_HOST_DEVICE void activate_as(const T* source, const RunRows<T>& run, Bounds<T> bounds, T* target) {
  const T* const biases = run.biases();
  int64_t channel = run.channel;
  for (int64_t row = 0; row < run.rows; ++row, channel = run.next_channel(channel)) {
    if (biases) {
      activate_row<kAct, true>(source, biases, T(0), run.length, bounds, target);
    } else {
      activate_row<kAct, false>(source, biases, run.bias_of(channel), run.length, bounds, target);
    }
    source += run.length;
    target += run.length;
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void activate_elements(
    Activation act, const T* source, const RunRows<T>& run, Bounds<T> bounds, T* target) {
  switch (act) {
    case Activation::kTanh: return activate_as<Activation::kTanh>(source, run, bounds, target);
    case Activation::kSigmoid: return activate_as<Activation::kSigmoid>(source, run, bounds, target);
    case Activation::kElu: return activate_as<Activation::kElu>(source, run, bounds, target);
    case Activation::kSelu: return activate_as<Activation::kSelu>(source, run, bounds, target);
    case Activation::kSoftplus: return activate_as<Activation::kSoftplus>(source, run, bounds, target);
    case Activation::kSwish: return activate_as<Activation::kSwish>(source, run, bounds, target);
    default: return activate_as<Activation::kLinear>(source, run, bounds, target);
  }
}

FASTGAN_CLONES void activate_run(
    Activation act, const float* source, const RunRows<float>& run, Bounds<float> bounds, float* target) {
  activate_elements(act, source, run, bounds, target);
}
FASTGAN_CLONES void activate_run(
    Activation act, const double* source, const RunRows<double>& run, Bounds<double> bounds, double* target) {
  activate_elements(act, source, run, bounds, target);
}

// --- a run of derivatives --------------------------------------------------------------------------------------------

// Without kSecond only the first derivative, a quarter less arithmetic for most.
template <Activation kAct, bool kSecond, bool kEach, typename T>
FASTGAN_HOST_DEVICE void differentiate_row(
    const T* source, const T* biases, T bias, int64_t length, T gain, T* first, T* second) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) {
    const Derivatives<T> slopes = derivatives<kAct>(source[i] + (kEach ? biases[i] : bias));
    first[i] = gain * slopes.first;
    if constexpr (kSecond) second[i] = gain * slopes.second;
  }
}

template <Activation kAct, bool kSecond, typename T>
FASTGAN_HOST_DEVICE void differentiate_as(const T* source, const RunRows<T>& run, T gain, T* first, T* second) {
  const T* const biases = run.biases();
  int64_t channel = run.channel;
  for (int64_t row = 0; row < run.rows; ++row, channel = run.next_channel(channel)) {
    if (biases) {
      differentiate_row<kAct, kSecond, true>(source, biases, T(0), run.length, gain, first, second);
    } else {
      differentiate_row<kAct, kSecond, false>(source, biases, run.bias_of(channel), run.length, gain, first, second);
    }
    source += run.length;
    first += run.length;
    if constexpr (kSecond) second += run.length;
  }
}

template <bool kSecond, typename T>
FASTGAN_HOST_DEVICE void differentiate_elements(
    Activation act, const T* source, const RunRows<T>& run, T gain, T* first, T* second) {
  switch (act) {
    case Activation::kTanh: return differentiate_as<Activation::kTanh, kSecond>(source, run, gain, first, second);
    case Activation::kSigmoid: return differentiate_as<Activation::kSigmoid, kSecond>(source, run, gain, first, second);
    case Activation::kElu: return differentiate_as<Activation::kElu, kSecond>(source, run, gain, first, second);
    case Activation::kSelu: return differentiate_as<Activation::kSelu, kSecond>(source, run, gain, first, second);
    case Activation::kSoftplus:
      return differentiate_as<Activation::kSoftplus, kSecond>(source, run, gain, first, second);
    case Activation::kSwish: return differentiate_as<Activation::kSwish, kSecond>(source, run, gain, first, second);
    case Activation::kOfTanh: return differentiate_as<Activation::kOfTanh, kSecond>(source, run, gain, first, second);
    case Activation::kOfSigmoid:
      return differentiate_as<Activation::kOfSigmoid, kSecond>(source, run, gain, first, second);
    default: return;
  }
}

// `second` may be null.
template <typename T>
FASTGAN_HOST_DEVICE void differentiate_either(
    Activation act, const T* source, const RunRows<T>& run, T gain, T* first, T* second) {
  if (second) return differentiate_elements<true>(act, source, run, gain, first, second);
  differentiate_elements<false>(act, source, run, gain, first, second);
}

FASTGAN_CLONES void differentiate_run(
    Activation act, const float* source, const RunRows<float>& run, float gain, float* first, float* second) {
  differentiate_either(act, source, run, gain, first, second);
}
FASTGAN_CLONES void differentiate_run(
    Activation act, const double* source, const RunRows<double>& run, double gain, double* first, double* second) {
  differentiate_either(act, source, run, gain, first, second);
}

// Where the clamp acts, derivatives are 0.
template <typename T>
FASTGAN_HOST_DEVICE void stop_elements(const T* values, int64_t count, T limit, T* slopes) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const bool clamped = (values[i] < -limit) | (values[i] > limit);
    slopes[i] = clamped ? T(0) : slopes[i];
  }
}

FASTGAN_CLONES void stop_run(const float* values, int64_t count, float limit, float* slopes) {
  stop_elements(values, count, limit, slopes);
}
FASTGAN_CLONES void stop_run(const double* values, int64_t count, double limit, double* slopes) {
  stop_elements(values, count, limit, slopes);
}

// --- products --------------------------------------------------------------------------------------------------------

template <typename T>
FASTGAN_HOST_DEVICE void multiply_elements(const T* values, const T* factors, int64_t count, T* target) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) target[i] = values[i] * factors[i];
}

FASTGAN_CLONES void multiply_run(const float* values, const float* factors, int64_t count, float* target) {
  multiply_elements(values, factors, count, target);
}
FASTGAN_CLONES void multiply_run(const double* values, const double* factors, int64_t count, double* target) {
  multiply_elements(values, factors, count, target);
}

// Without `second`, grad_saved is not computed.
template <typename T>
struct Products {
  const T *grad, *tangent, *first, *second;
  T *grad_grad, *grad_saved;
};

template <bool kSecond, typename T>
FASTGAN_HOST_DEVICE void multiply_both_elements(Products<T> p, const RunRows<T>& run) {
  const T* const biases = run.biases();
  int64_t channel = run.channel, begin = 0;
  for (int64_t row = 0; row < run.rows; ++row, channel = run.next_channel(channel), begin += run.length) {
    const T bias = run.bias_of(channel);
    const T *const grad = p.grad + begin, *const tangents = p.tangent + begin, *const first = p.first + begin;
    T* const grad_grad = p.grad_grad + begin;
#pragma omp simd
    for (int64_t i = 0; i < run.length; ++i) {
      const T tangent = tangents[i] + (biases ? biases[i] : bias);
      grad_grad[i] = first[i] * tangent;
      if constexpr (kSecond) p.grad_saved[begin + i] = p.second[begin + i] * (grad[i] * tangent);
    }
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void multiply_either(Products<T> p, const RunRows<T>& run) {
  if (p.second) return multiply_both_elements<true>(p, run);
  multiply_both_elements<false>(p, run);
}

FASTGAN_CLONES void multiply_both_run(Products<float> products, const RunRows<float>& run) {
  multiply_either(products, run);
}
FASTGAN_CLONES void multiply_both_run(Products<double> products, const RunRows<double>& run) {
  multiply_either(products, run);
}

}  // namespace

// --- the sweep -------------------------------------------------------------------------------------------------------

template <typename T>
struct BiasActSweep::RunDerivatives {
  alignas(64) T first[kRun], second[kRun], saved[kRun], values[kRun];
};

template <typename T>
void BiasActSweep::differentiate(
    const Run& run, const void* saved, const void* bias, bool with_second, RunDerivatives<T>& derivatives) const {
  const T gain = static_cast<T>(options_.gain), limit = static_cast<T>(options_.limit);
  if (options_.activation == Activation::kLinear) {
    std::fill_n(derivatives.first, run.count, gain);
    std::fill_n(derivatives.second, run.count, T(0));
    return;
  }
  const RunRows<T> rows = runs_.with_bias(run, static_cast<const T*>(bias));
  const char* place = static_cast<const char*>(saved) + run.offset * size_of(dtype_);
  const T* points = load(place, dtype_, 1, run.count, derivatives.saved);
  T* const second = with_second ? derivatives.second : nullptr;
  differentiate_run(options_.activation, points, rows, gain, derivatives.first, second);
  if (!(limit < INFINITY)) return;
  activate_run(options_.activation, points, rows, {gain, T(INFINITY)}, derivatives.values);
  stop_run(derivatives.values, run.count, limit, derivatives.first);
  if (second) stop_run(derivatives.values, run.count, limit, second);
}

template <typename T>
void BiasActSweep::activate_typed(int64_t block, const void* source, const void* bias, void* target) const {
  alignas(64) T input[kRun], output[kRun];
  const Bounds<T> bounds{static_cast<T>(options_.gain), static_cast<T>(options_.limit)};
  runs_.for_each(block, [&](const Run& run) {
    const int64_t offset = run.offset * size_of(dtype_);
    void* place = static_cast<char*>(target) + offset;
    T* results = target_of(place, dtype_, 1, output);
    const T* values = load(static_cast<const char*>(source) + offset, dtype_, 1, run.count, input);
    activate_run(options_.activation, values, runs_.with_bias(run, static_cast<const T*>(bias)), bounds, results);
    store(results, place, dtype_, 1, run.count);
  });
}

template <typename T>
void BiasActSweep::backward_typed(
    int64_t block, const void* grad, const void* saved, const void* bias, void* target, double* sums) const {
  alignas(64) T input[kRun], output[kRun];
  RunDerivatives<T> derivatives;
  runs_.for_each(block, [&](const Run& run) {
    const int64_t offset = run.offset * size_of(dtype_);
    differentiate(run, saved, bias, false, derivatives);
    void* place = static_cast<char*>(target) + offset;
    T* results = target_of(place, dtype_, 1, output);
    const T* values = load(static_cast<const char*>(grad) + offset, dtype_, 1, run.count, input);
    multiply_run(values, derivatives.first, run.count, results);
    if (sums) runs_.add(block, run, results, sums);
    store(results, place, dtype_, 1, run.count);
  });
}

template <typename T>
void BiasActSweep::double_backward_typed(int64_t block, const DoubleBackward& tensors) const {
  alignas(64) T grads[kRun], tangents[kRun], grad_grads[kRun], grad_saveds[kRun];
  RunDerivatives<T> derivatives;
  const bool with_second = tensors.grad_saved || tensors.sums;
  runs_.for_each(block, [&](const Run& run) {
    const int64_t offset = run.offset * size_of(dtype_);
    differentiate(run, tensors.saved, tensors.bias, with_second, derivatives);
    void* place = static_cast<char*>(tensors.grad_grad) + offset;
    void* place_of_saved = tensors.grad_saved ? static_cast<char*>(tensors.grad_saved) + offset : nullptr;
    Products<T> products{
        load(static_cast<const char*>(tensors.grad) + offset, dtype_, 1, run.count, grads),
        load(static_cast<const char*>(tensors.tangent) + offset, dtype_, 1, run.count, tangents),
        derivatives.first,
        with_second ? derivatives.second : nullptr,
        target_of(place, dtype_, 1, grad_grads),
        place_of_saved ? target_of(place_of_saved, dtype_, 1, grad_saveds) : grad_saveds};
    multiply_both_run(products, runs_.with_bias(run, static_cast<const T*>(tensors.tangent_bias)));
    if (tensors.sums) runs_.add(block, run, products.grad_saved, tensors.sums);
    store(products.grad_grad, place, dtype_, 1, run.count);
    if (place_of_saved) store(products.grad_saved, place_of_saved, dtype_, 1, run.count);
  });
}

void BiasActSweep::activate(int64_t block, const void* source, const void* bias, void* target) const {
  if (dtype_ == Dtype::kFloat64) return activate_typed<double>(block, source, bias, target);
  activate_typed<float>(block, source, bias, target);
}

void BiasActSweep::backward(
    int64_t block, const void* grad, const void* saved, const void* bias, void* target, double* sums) const {
  if (dtype_ == Dtype::kFloat64) return backward_typed<double>(block, grad, saved, bias, target, sums);
  backward_typed<float>(block, grad, saved, bias, target, sums);
}

void BiasActSweep::double_backward(int64_t block, const DoubleBackward& tensors) const {
  if (dtype_ == Dtype::kFloat64) return double_backward_typed<double>(block, tensors);
  double_backward_typed<float>(block, tensors);
}

}  // namespace fastgan
