#include "bias_leaky_relu_sweep.h"

#include "../math/bias_leaky_relu.h"
#include "clones.h"

namespace fastgan {
namespace {

template <typename T>
struct Constants {
  T slope, gain, limit;
};

// kEach: one bias for each element instead of one for all. It and kCodes are template parameters because gcc does not
// move such choices out of long loops.
template <bool kEach, bool kCodes, typename T>
FASTGAN_HOST_DEVICE void activate_row(
    const T* source, const T* biases, T bias, int64_t length, Constants<T> constants, T* target, uint8_t* codes) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) {
    const T x = source[i] + (kEach ? biases[i] : bias);
    const Activated<T> y = leaky_relu(x, constants.slope, constants.gain, constants.limit);
    target[i] = y.value;
    if constexpr (kCodes) codes[i] = static_cast<uint8_t>(y.code);
  }
}

template <bool kCodes, typename T>
FASTGAN_HOST_DEVICE void activate_elements(
    const T* source, const RunRows<T>& run, Constants<T> constants, T* target, uint8_t* codes) {
  const T* const biases = run.biases();
  int64_t channel = run.channel;
  for (int64_t row = 0; row < run.rows; ++row, channel = run.next_channel(channel)) {
    if (biases) {
      activate_row<true, kCodes>(source, biases, T(0), run.length, constants, target, codes);
    } else {
      activate_row<false, kCodes>(source, biases, run.bias_of(channel), run.length, constants, target, codes);
    }
    source += run.length;
    target += run.length;
    if constexpr (kCodes) codes += run.length;
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void activate_either(
    const T* source, const RunRows<T>& run, Constants<T> constants, T* target, uint8_t* codes) {
  if (codes) return activate_elements<true>(source, run, constants, target, codes);
  activate_elements<false>(source, run, constants, target, codes);
}

FASTGAN_CLONES void activate_run(
    const float* source, const RunRows<float>& run, Constants<float> constants, float* target, uint8_t* codes) {
  activate_either(source, run, constants, target, codes);
}
FASTGAN_CLONES void activate_run(
    const double* source, const RunRows<double>& run, Constants<double> constants, double* target, uint8_t* codes) {
  activate_either(source, run, constants, target, codes);
}

template <bool kEach, typename T>
FASTGAN_HOST_DEVICE void multiply_row(
    const T* source, const T* biases, T bias, int64_t length, Constants<T> constants, const uint8_t* codes, T* target) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) {
    const T value = source[i] + (kEach ? biases[i] : bias);
    target[i] = leaky_relu_factor(codes[i], constants.slope, constants.gain) * value;
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void multiply_elements(
    const T* source, const RunRows<T>& run, Constants<T> constants, const uint8_t* codes, T* target) {
  const T* const biases = run.biases();
  int64_t channel = run.channel;
  for (int64_t row = 0; row < run.rows; ++row, channel = run.next_channel(channel)) {
    if (biases) {
      multiply_row<true>(source, biases, T(0), run.length, constants, codes, target);
    } else {
      multiply_row<false>(source, biases, run.bias_of(channel), run.length, constants, codes, target);
    }
    source += run.length;
    target += run.length;
    codes += run.length;
  }
}

FASTGAN_CLONES void multiply_run(
    const float* source, const RunRows<float>& run, Constants<float> constants, const uint8_t* codes, float* target) {
  multiply_elements(source, run, constants, codes, target);
}
FASTGAN_CLONES void multiply_run(
    const double* source, const RunRows<double>& run, Constants<double> constants, const uint8_t* codes,
    double* target) {
  multiply_elements(source, run, constants, codes, target);
}

template <typename T>
Constants<T> constants_of(const LeakyReluOptions& options) {
  return {static_cast<T>(options.slope), static_cast<T>(options.gain), static_cast<T>(options.limit)};
}

}  // namespace

// Calls body(run, rows, values, results) for each run of the block; values and results are in the kernel's arithmetic.
template <typename T, typename Body>
void BiasLeakyReluSweep::for_each_run(
    int64_t block, const void* source, const T* bias, void* target, const Body& body) const {
  alignas(64) T input[ChannelRuns::kRun], output[ChannelRuns::kRun];
  const int64_t size = size_of(dtype_);
  runs_.for_each(block, [&](const Run& run) {
    void* place = static_cast<char*>(target) + run.offset * size;
    T* results = target_of(place, dtype_, 1, output);
    const T* values = load(static_cast<const char*>(source) + run.offset * size, dtype_, 1, run.count, input);
    body(run, runs_.with_bias(run, bias), values, results);
    store(results, place, dtype_, 1, run.count);
  });
}

void BiasLeakyReluSweep::activate(
    int64_t block, const void* source, const void* bias, void* target, uint8_t* codes) const {
  if (dtype_ == Dtype::kFloat64) {
    activate_typed(block, source, static_cast<const double*>(bias), target, codes);
  } else {
    activate_typed(block, source, static_cast<const float*>(bias), target, codes);
  }
}

template <typename T>
void BiasLeakyReluSweep::activate_typed(
    int64_t block, const void* source, const T* bias, void* target, uint8_t* codes) const {
  const Constants<T> constants = constants_of<T>(options_);
  for_each_run(block, source, bias, target, [&](const Run& run, const RunRows<T>& rows, const T* values, T* results) {
    activate_run(values, rows, constants, results, codes ? codes + run.offset : nullptr);
  });
}

void BiasLeakyReluSweep::multiply(
    int64_t block, const void* source, const void* bias, const uint8_t* codes, void* target, double* sums) const {
  if (dtype_ == Dtype::kFloat64) {
    multiply_typed(block, source, static_cast<const double*>(bias), codes, target, sums);
  } else {
    multiply_typed(block, source, static_cast<const float*>(bias), codes, target, sums);
  }
}

template <typename T>
void BiasLeakyReluSweep::multiply_typed(
    int64_t block, const void* source, const T* bias, const uint8_t* codes, void* target, double* sums) const {
  const Constants<T> constants = constants_of<T>(options_);
  for_each_run(block, source, bias, target, [&](const Run& run, const RunRows<T>& rows, const T* values, T* results) {
    multiply_run(values, rows, constants, codes + run.offset, results);
    if (sums) runs_.add(block, run, results, sums);
  });
}

}  // namespace fastgan
