#include "bias_leaky_relu_sweep.h"

#include <algorithm>

#include "../math/bias_leaky_relu.h"
#include "clones.h"

namespace fastgan {
namespace {

// A run's rows stay in the first-level cache, and are short enough to add in float32.
constexpr int64_t kRun = 1024;
// Elements per block: some microseconds of work, so that threads balance.
constexpr int64_t kBlock = 16384;

template <typename T>
struct Constants {
  T slope, gain, limit;
};

// The bias of a run: one number, or one per element.
template <typename T>
struct RunBias {
  T number;
  const T* numbers;
};

template <typename T>
FASTGAN_HOST_DEVICE void activate_elements(
    const T* source, RunBias<T> bias, Constants<T> constants, int64_t count, T* target, uint8_t* codes) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T x = source[i] + (bias.numbers ? bias.numbers[i] : bias.number);
    const Activated<T> y = leaky_relu(x, constants.slope, constants.gain, constants.limit);
    target[i] = y.value;
    codes[i] = static_cast<uint8_t>(y.code);
  }
}

FASTGAN_CLONES void activate_run(
    const float* source, RunBias<float> bias, Constants<float> constants, int64_t count, float* target,
    uint8_t* codes) {
  activate_elements(source, bias, constants, count, target, codes);
}
FASTGAN_CLONES void activate_run(
    const double* source, RunBias<double> bias, Constants<double> constants, int64_t count, double* target,
    uint8_t* codes) {
  activate_elements(source, bias, constants, count, target, codes);
}

template <typename T>
FASTGAN_HOST_DEVICE void multiply_elements(
    const T* source, RunBias<T> bias, Constants<T> constants, int64_t count, const uint8_t* codes, T* target) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T sum = source[i] + (bias.numbers ? bias.numbers[i] : bias.number);
    target[i] = leaky_relu_factor(codes[i], constants.slope, constants.gain) * sum;
  }
}

FASTGAN_CLONES void multiply_run(
    const float* source, RunBias<float> bias, Constants<float> constants, int64_t count, const uint8_t* codes,
    float* target) {
  multiply_elements(source, bias, constants, count, codes, target);
}
FASTGAN_CLONES void multiply_run(
    const double* source, RunBias<double> bias, Constants<double> constants, int64_t count, const uint8_t* codes,
    double* target) {
  multiply_elements(source, bias, constants, count, codes, target);
}

template <typename T>
FASTGAN_HOST_DEVICE T sum_of(const T* values, int64_t count) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += values[i];
  return sum;
}

FASTGAN_CLONES double sum_run(const float* values, int64_t count) { return sum_of(values, count); }
FASTGAN_CLONES double sum_run(const double* values, int64_t count) { return sum_of(values, count); }

template <typename T>
FASTGAN_HOST_DEVICE void add_each(const T* values, int64_t count, double* sums) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) sums[i] += values[i];
}

FASTGAN_CLONES void add_run(const float* values, int64_t count, double* sums) { add_each(values, count, sums); }
FASTGAN_CLONES void add_run(const double* values, int64_t count, double* sums) { add_each(values, count, sums); }

template <typename T>
Constants<T> constants_of(const LeakyReluOptions& options) {
  return {static_cast<T>(options.slope), static_cast<T>(options.gain), static_cast<T>(options.limit)};
}

template <typename T>
RunBias<T> bias_of(const T* bias, int64_t channel, bool channels_last) {
  if (!bias) return {T(0), nullptr};
  return channels_last ? RunBias<T>{T(0), bias + channel} : RunBias<T>{bias[channel], nullptr};
}

}  // namespace

BiasLeakyReluSweep::BiasLeakyReluSweep(ChannelLayout layout, Dtype dtype, LeakyReluOptions options)
    : layout_(layout), dtype_(dtype), options_(options), channels_last_(layout.length == 1) {
  row_length_ = channels_last_ ? layout.channels : layout.length;
  runs_per_row_ = (row_length_ + kRun - 1) / kRun;
  runs_ = layout.outer * (channels_last_ ? 1 : layout.channels) * runs_per_row_;
  runs_per_block_ = std::max<int64_t>(1, kBlock / std::min(row_length_, kRun));
  blocks_ = (runs_ + runs_per_block_ - 1) / runs_per_block_;
}

template <typename T, typename Body>
void BiasLeakyReluSweep::for_each_run(int64_t block, const void* source, void* target, const Body& body) const {
  alignas(64) T input[kRun], output[kRun];
  const int64_t size = size_of(dtype_), last = std::min((block + 1) * runs_per_block_, runs_);
  for (int64_t number = block * runs_per_block_; number < last; ++number) {
    const int64_t row = number / runs_per_row_, begin = number % runs_per_row_ * kRun;
    const int64_t channel = channels_last_ ? begin : row % layout_.channels;
    const Run run = {number, row * row_length_ + begin, std::min(kRun, row_length_ - begin), channel};
    void* place = static_cast<char*>(target) + run.offset * size;
    T* results = target_of(place, dtype_, 1, output);
    body(run, load(static_cast<const char*>(source) + run.offset * size, dtype_, 1, run.count, input), results);
    store(results, place, dtype_, 1, run.count);
  }
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
  alignas(64) uint8_t nowhere[kRun];
  const Constants<T> constants = constants_of<T>(options_);
  for_each_run<T>(block, source, target, [&](const Run& run, const T* values, T* results) {
    uint8_t* run_codes = codes ? codes + run.offset : nowhere;
    activate_run(values, bias_of(bias, run.channel, channels_last_), constants, run.count, results, run_codes);
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
  for_each_run<T>(block, source, target, [&](const Run& run, const T* values, T* results) {
    const RunBias<T> run_bias = bias_of(bias, run.channel, channels_last_);
    multiply_run(values, run_bias, constants, run.count, codes + run.offset, results);
    if (sums && channels_last_) {
      add_run(results, run.count, sums + block * layout_.channels + run.channel);
    } else if (sums) {
      sums[run.number] = sum_run(results, run.count);
    }
  });
}

std::vector<double> BiasLeakyReluSweep::new_sums() const {
  return std::vector<double>(channels_last_ ? blocks_ * layout_.channels : runs_, 0.0);
}

std::vector<double> BiasLeakyReluSweep::channel_sums(const std::vector<double>& sums) const {
  std::vector<double> totals(layout_.channels, 0.0);
  const int64_t places = channels_last_ ? 1 : runs_per_row_;
  for (size_t i = 0; i < sums.size(); ++i) totals[static_cast<int64_t>(i) / places % layout_.channels] += sums[i];
  return totals;
}

}  // namespace fastgan
