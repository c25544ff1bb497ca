#pragma once

#include <vector>

#include "pixels.h"

// The CPU kernels of bias + leaky ReLU without torch. A tensor has the shape (outer, channels, length) in memory:
// (N, C, H W) if it is contiguous, (N H W, C, 1) in channels last. Block bounds do not depend on the number of threads,
// so the bias gradient is bit-identical for any number.
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

  // target = clamp(gain leaky_relu(source + bias)); `codes`, if not null, receives the codes of
  // csrc/math/bias_leaky_relu.h. `bias`, null or one value per channel, is double for kFloat64 and float otherwise.
  void activate(int64_t block, const void* source, const void* bias, void* target, uint8_t* codes) const;

  // target = (source + bias) times the factors that the codes stand for. `sums`, null or `new_sums()`, collects partial
  // sums per channel.
  void multiply(
      int64_t block, const void* source, const void* bias, const uint8_t* codes, void* target, double* sums) const;

  std::vector<double> new_sums() const;
  // Returns one total per channel, once all blocks have run.
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
