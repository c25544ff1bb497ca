#pragma once

#include "channel_runs.h"

// The CPU kernels of bias + leaky ReLU without torch.
namespace fastgan {

struct LeakyReluOptions {
  double slope, gain, limit;
};

class BiasLeakyReluSweep {
 public:
  BiasLeakyReluSweep(ChannelLayout layout, Dtype dtype, LeakyReluOptions options)
      : runs_(layout), dtype_(dtype), options_(options) {}

  const ChannelRuns& runs() const { return runs_; }

  // target = clamp(gain leaky_relu(source + bias)); `codes`, if not null, receives the codes of
  // csrc/math/bias_leaky_relu.h. `bias`, null or one value per channel, is double for kFloat64 and float otherwise.
  void activate(int64_t block, const void* source, const void* bias, void* target, uint8_t* codes) const;

  // target = (source + bias) times the factors that the codes stand for. `sums`, null or `runs().new_sums()`, collects
  // partial sums per channel.
  void multiply(
      int64_t block, const void* source, const void* bias, const uint8_t* codes, void* target, double* sums) const;

 private:
  template <typename T, typename Body>
  void for_each_run(int64_t block, const void* source, const T* bias, void* target, const Body& body) const;

  template <typename T>
  void activate_typed(int64_t block, const void* source, const T* bias, void* target, uint8_t* codes) const;
  template <typename T>
  void multiply_typed(
      int64_t block, const void* source, const T* bias, const uint8_t* codes, void* target, double* sums) const;

  ChannelRuns runs_;
  Dtype dtype_;
  LeakyReluOptions options_;
};

}  // namespace fastgan
