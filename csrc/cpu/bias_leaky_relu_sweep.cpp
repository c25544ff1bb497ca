#include "bias_leaky_relu_sweep.h"

#include <algorithm>

#include "../math/bias_leaky_relu.h"
#include "clones.h"

namespace fastgan {
namespace {

// A run fits in the first-level cache, and its rows are short enough to sum in float32.
constexpr int64_t kRun = 1024;
// Elements per block: a few microseconds of work, so that threads share the load evenly.
constexpr int64_t kBlock = 16384;

template <typename T>
struct Constants {
  T slope, gain, limit;
};

// The consecutive rows of a run: each row is of one channel, or has one channel per element (`channel_per_element`).
template <typename T>
struct RunRows {
  int64_t rows, length;
  const T* bias;  // one value per channel; null: no bias
  int64_t channel, channels;
  bool channel_per_element;

  FASTGAN_HOST_DEVICE const T* biases() const { return bias && channel_per_element ? bias + channel : nullptr; }
  FASTGAN_HOST_DEVICE T bias_of(int64_t row_channel) const {
    return bias && !channel_per_element ? bias[row_channel] : T(0);
  }
  FASTGAN_HOST_DEVICE int64_t next_channel(int64_t row_channel) const {
    return row_channel + 1 < channels ? row_channel + 1 : 0;
  }
};

template <typename T>
FASTGAN_HOST_DEVICE void activate_elements(
    const T* source, const RunRows<T>& run, Constants<T> constants, T* target, uint8_t* codes) {
  const T* const biases = run.biases();
  int64_t channel = run.channel;
  for (int64_t row = 0; row < run.rows; ++row, channel = run.next_channel(channel)) {
    const T bias = run.bias_of(channel);
#pragma omp simd
    for (int64_t i = 0; i < run.length; ++i) {
      const T x = source[i] + (biases ? biases[i] : bias);
      const Activated<T> y = leaky_relu(x, constants.slope, constants.gain, constants.limit);
      target[i] = y.value;
      codes[i] = static_cast<uint8_t>(y.code);
    }
    source += run.length;
    target += run.length;
    codes += run.length;
  }
}

FASTGAN_CLONES void activate_run(
    const float* source, const RunRows<float>& run, Constants<float> constants, float* target, uint8_t* codes) {
  activate_elements(source, run, constants, target, codes);
}
FASTGAN_CLONES void activate_run(
    const double* source, const RunRows<double>& run, Constants<double> constants, double* target, uint8_t* codes) {
  activate_elements(source, run, constants, target, codes);
}

template <typename T>
FASTGAN_HOST_DEVICE T sum_of(const T* values, int64_t count) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += values[i];
  return sum;
}

// `sums`, if not null, receives the sum of each row. Summing is a separate loop: fused, gcc 12's code is half as fast.
template <typename T>
FASTGAN_HOST_DEVICE void multiply_elements(
    const T* source, const RunRows<T>& run, Constants<T> constants, const uint8_t* codes, T* target, double* sums) {
  const T* const biases = run.biases();
  int64_t channel = run.channel;
  for (int64_t row = 0; row < run.rows; ++row, channel = run.next_channel(channel)) {
    const T bias = run.bias_of(channel);
#pragma omp simd
    for (int64_t i = 0; i < run.length; ++i) {
      const T value = source[i] + (biases ? biases[i] : bias);
      target[i] = leaky_relu_factor(codes[i], constants.slope, constants.gain) * value;
    }
    if (sums) sums[row] = sum_of(target, run.length);
    source += run.length;
    target += run.length;
    codes += run.length;
  }
}

FASTGAN_CLONES void multiply_run(
    const float* source, const RunRows<float>& run, Constants<float> constants, const uint8_t* codes, float* target,
    double* sums) {
  multiply_elements(source, run, constants, codes, target, sums);
}
FASTGAN_CLONES void multiply_run(
    const double* source, const RunRows<double>& run, Constants<double> constants, const uint8_t* codes, double* target,
    double* sums) {
  multiply_elements(source, run, constants, codes, target, sums);
}

template <typename T>
FASTGAN_HOST_DEVICE void add_each(const T* values, int64_t rows, int64_t length, double* sums) {
  for (int64_t row = 0; row < rows; ++row) {
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) sums[i] += values[row * length + i];
  }
}

FASTGAN_CLONES void add_rows(const float* values, int64_t rows, int64_t length, double* sums) {
  add_each(values, rows, length, sums);
}
FASTGAN_CLONES void add_rows(const double* values, int64_t rows, int64_t length, double* sums) {
  add_each(values, rows, length, sums);
}

template <typename T>
Constants<T> constants_of(const LeakyReluOptions& options) {
  return {static_cast<T>(options.slope), static_cast<T>(options.gain), static_cast<T>(options.limit)};
}

// Consecutive elements, whole rows or a part of one; `first_sum` is the index of their first row's sum.
template <typename T>
struct Run {
  RunRows<T> rows;
  int64_t offset, count, first_sum;
};

}  // namespace

BiasLeakyReluSweep::BiasLeakyReluSweep(ChannelLayout layout, Dtype dtype, LeakyReluOptions options)
    : layout_(layout), dtype_(dtype), options_(options), channels_last_(layout.length == 1) {
  row_length_ = std::max<int64_t>(1, channels_last_ ? layout.channels : layout.length);
  rows_ = layout.outer * (channels_last_ ? 1 : layout.channels);
  runs_per_row_ = (row_length_ + kRun - 1) / kRun;
  // Short rows share a run: one call per row would cost more than the work on its elements.
  rows_per_run_ = std::max<int64_t>(1, kRun / row_length_);
  runs_ = (rows_ + rows_per_run_ - 1) / rows_per_run_ * runs_per_row_;
  runs_per_block_ = std::max<int64_t>(1, kBlock / (std::min(row_length_, kRun) * rows_per_run_));
  blocks_ = (runs_ + runs_per_block_ - 1) / runs_per_block_;
}

// Calls body(run, values, results) for each run of the block; values and results are in the kernel's arithmetic.
template <typename T, typename Body>
void BiasLeakyReluSweep::for_each_run(
    int64_t block, const void* source, const T* bias, void* target, const Body& body) const {
  alignas(64) T input[kRun], output[kRun];
  const int64_t size = size_of(dtype_), last = std::min((block + 1) * runs_per_block_, runs_);
  for (int64_t number = block * runs_per_block_; number < last; ++number) {
    const int64_t row = number / runs_per_row_ * rows_per_run_, begin = number % runs_per_row_ * kRun;
    Run<T> run;
    run.rows.rows = std::min(rows_per_run_, rows_ - row);
    run.rows.length = std::min(kRun, row_length_ - begin);
    run.rows.bias = bias;
    run.rows.channel = channels_last_ ? begin : row % layout_.channels;
    run.rows.channels = layout_.channels;
    run.rows.channel_per_element = channels_last_;
    run.offset = row * row_length_ + begin;
    run.count = run.rows.rows * run.rows.length;
    run.first_sum = row * runs_per_row_ + number % runs_per_row_;
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
  alignas(64) uint8_t discarded[kRun];
  const Constants<T> constants = constants_of<T>(options_);
  for_each_run(block, source, bias, target, [&](const Run<T>& run, const T* values, T* results) {
    activate_run(values, run.rows, constants, results, codes ? codes + run.offset : discarded);
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
  for_each_run(block, source, bias, target, [&](const Run<T>& run, const T* values, T* results) {
    double* const row_sums = sums && !channels_last_ ? sums + run.first_sum : nullptr;
    multiply_run(values, run.rows, constants, codes + run.offset, results, row_sums);
    if (sums && channels_last_)
      add_rows(results, run.rows.rows, run.rows.length, sums + block * layout_.channels + run.rows.channel);
  });
}

std::vector<double> BiasLeakyReluSweep::new_sums() const {
  return std::vector<double>(channels_last_ ? blocks_ * layout_.channels : rows_ * runs_per_row_, 0.0);
}

std::vector<double> BiasLeakyReluSweep::channel_sums(const std::vector<double>& sums) const {
  std::vector<double> totals(layout_.channels, 0.0);
  const int64_t sums_per_row = channels_last_ ? 1 : runs_per_row_;
  for (size_t i = 0; i < sums.size(); ++i) totals[static_cast<int64_t>(i) / sums_per_row % layout_.channels] += sums[i];
  return totals;
}

}  // namespace fastgan
