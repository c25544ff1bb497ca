#include "channel_runs.h"

#include "clones.h"

namespace fastgan {
namespace {

// Elements per block: a few microseconds of work, so that threads share the load evenly.
constexpr int64_t kBlock = 16384;

template <typename T>
FASTGAN_HOST_DEVICE T sum_of(const T* values, int64_t count) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += values[i];
  return sum;
}

template <typename T>
FASTGAN_HOST_DEVICE void sum_each(const T* values, int64_t rows, int64_t length, double* sums) {
  for (int64_t row = 0; row < rows; ++row) sums[row] = sum_of(values + row * length, length);
}

FASTGAN_CLONES void sum_rows(const float* values, int64_t rows, int64_t length, double* sums) {
  sum_each(values, rows, length, sums);
}
FASTGAN_CLONES void sum_rows(const double* values, int64_t rows, int64_t length, double* sums) {
  sum_each(values, rows, length, sums);
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

}  // namespace

ChannelRuns::ChannelRuns(ChannelLayout layout) : layout_(layout), channels_last_(layout.length == 1) {
  row_length_ = std::max<int64_t>(1, channels_last_ ? layout.channels : layout.length);
  rows_ = layout.outer * (channels_last_ ? 1 : layout.channels);
  runs_per_row_ = (row_length_ + kRun - 1) / kRun;
  // Short rows share a run: one call per row would cost more than the work on its elements.
  rows_per_run_ = std::max<int64_t>(1, kRun / row_length_);
  runs_ = (rows_ + rows_per_run_ - 1) / rows_per_run_ * runs_per_row_;
  runs_per_block_ = std::max<int64_t>(1, kBlock / (std::min(row_length_, kRun) * rows_per_run_));
  blocks_ = (runs_ + runs_per_block_ - 1) / runs_per_block_;
}

std::vector<double> ChannelRuns::new_sums() const {
  return std::vector<double>(channels_last_ ? blocks_ * layout_.channels : rows_ * runs_per_row_, 0.0);
}

template <typename T>
void ChannelRuns::add_typed(int64_t block, const Run& run, const T* values, double* sums) const {
  if (channels_last_) {
    add_rows(values, run.rows, run.length, sums + block * layout_.channels + run.channel);
  } else {
    sum_rows(values, run.rows, run.length, sums + run.first_sum);
  }
}

void ChannelRuns::add(int64_t block, const Run& run, const float* values, double* sums) const {
  add_typed(block, run, values, sums);
}

void ChannelRuns::add(int64_t block, const Run& run, const double* values, double* sums) const {
  add_typed(block, run, values, sums);
}

std::vector<double> ChannelRuns::channel_sums(const std::vector<double>& sums) const {
  std::vector<double> totals(layout_.channels, 0.0);
  const int64_t sums_per_row = channels_last_ ? 1 : runs_per_row_;
  for (size_t i = 0; i < sums.size(); ++i) totals[static_cast<int64_t>(i) / sums_per_row % layout_.channels] += sums[i];
  return totals;
}

}  // namespace fastgan
