#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../math/host_device.h"
#include "pixels.h"

// Tensors with a bias for each channel, in runs of consecutive elements that fit in the first-level cache. Block bounds
// do not depend on the number of threads, so sums over channels are bit-identical for any number.
namespace fastgan {

// A tensor's shape in memory: (N, C, H W) if it is contiguous, (N H W, C, 1) in channels last.
struct ChannelLayout {
  int64_t outer, channels, length;
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

// Consecutive elements, whole rows or a part of one; `first_sum` is the index of their first row's sum.
struct Run {
  int64_t offset, count, rows, length, channel, first_sum;
};

class ChannelRuns {
 public:
  // A row's part is short enough to sum in float32.
  static constexpr int64_t kRun = 1024;

  explicit ChannelRuns(ChannelLayout layout);

  int64_t blocks() const { return blocks_; }

  // Calls body(run) for each run of the block.
  template <typename Body>
  void for_each(int64_t block, const Body& body) const {
    const int64_t last = std::min((block + 1) * runs_per_block_, runs_);
    for (int64_t number = block * runs_per_block_; number < last; ++number) {
      const int64_t row = number / runs_per_row_ * rows_per_run_, begin = number % runs_per_row_ * kRun;
      Run run;
      run.rows = std::min(rows_per_run_, rows_ - row);
      run.length = std::min(kRun, row_length_ - begin);
      run.channel = channels_last_ ? begin : row % layout_.channels;
      run.offset = row * row_length_ + begin;
      run.count = run.rows * run.length;
      run.first_sum = row * runs_per_row_ + number % runs_per_row_;
      body(run);
    }
  }

  // A run with biases, null or one value per channel.
  template <typename T>
  RunRows<T> with_bias(const Run& run, const T* bias) const {
    return {run.rows, run.length, bias, run.channel, layout_.channels, channels_last_};
  }

  // Room for partial sums per channel, to which `add` adds those of a run's values.
  std::vector<double> new_sums() const;
  void add(int64_t block, const Run& run, const float* values, double* sums) const;
  void add(int64_t block, const Run& run, const double* values, double* sums) const;
  // Returns one total per channel, once all blocks have run.
  std::vector<double> channel_sums(const std::vector<double>& sums) const;

 private:
  template <typename T>
  void add_typed(int64_t block, const Run& run, const T* values, double* sums) const;

  ChannelLayout layout_;
  bool channels_last_;
  int64_t row_length_, rows_, runs_per_row_, rows_per_run_, runs_, runs_per_block_, blocks_;
};

}  // namespace fastgan
