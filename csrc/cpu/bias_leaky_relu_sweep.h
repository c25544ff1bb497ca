#pragma once

#include <vector>

#include "pixels.h"

// The CPU kernels of bias + leaky ReLU without torch. A tensor is `outer` times C channels of `length` elements side by
// side: (N, C, H W) where it is contiguous, (N H W, C, 1) in channels last. Blocks are the same for any number of
// threads, and so are the bias gradient's bits.
namespace fastgan {

struct ChannelLayout {
  int64_t outer, channels, length;
};

struct LeakyReluOptions {
  double slope, gain, limit;
};

class BiasLeakyReluSweep {
 public:
  BiasLeakyReluSweep(ChannelLayout layout, Dtype dtype, LeakyReluOptions options);

  int64_t blocks() const { return blocks_; }

  // target = clamp(gain leaky_relu(source + bias)), and the codes of csrc/math/bias_leaky_relu.h; `codes` may be null.
  // `bias`, null or one value per channel, is double for kFloat64 and float otherwise.
  void activate(int64_t block, const void* source, const void* bias, void* target, uint8_t* codes) const;

  // target = (source + bias) times what the codes say. `sums`, null or `new_sums()`, gathers the channels' totals.
  void multiply(
      int64_t block, const void* source, const void* bias, const uint8_t* codes, void* target, double* sums) const;

  std::vector<double> new_sums() const;
  // After all blocks: one total per channel.
  std::vector<double> channel_sums(const std::vector<double>& sums) const;

 private:
  template <typename T, typename Body>
  void for_each_run(int64_t block, const void* source, const T* bias, void* target, const Body& body) const;

  template <typename T>
  void activate_typed(int64_t block, const void* source, const T* bias, void* target, uint8_t* codes) const;
  template <typename T>
  void multiply_typed(
      int64_t block, const void* source, const T* bias, const uint8_t* codes, void* target, double* sums) const;

  ChannelLayout layout_;
  Dtype dtype_;
  LeakyReluOptions options_;
  bool channels_last_;
  int64_t row_length_, rows_, runs_per_row_, rows_per_run_, runs_, runs_per_block_, blocks_;
};

}  // namespace fastgan
