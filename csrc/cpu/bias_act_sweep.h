#pragma once

#include "../math/activations.h"
#include "channel_runs.h"

// The CPU kernels of bias + smooth activation without torch. All tensors have one memory layout and dtype; biases, null
// or one value per channel, are double for kFloat64 and float otherwise.
namespace fastgan {

struct BiasActOptions {
  Activation activation;
  double gain, limit;
};

class BiasActSweep {
 public:
  BiasActSweep(ChannelLayout layout, Dtype dtype, BiasActOptions options)
      : runs_(layout), dtype_(dtype), options_(options) {}

  const ChannelRuns& runs() const { return runs_; }

  // target = clamp(gain activation(source + bias))
  void activate(int64_t block, const void* source, const void* bias, void* target) const;

  // target = grad d1, with the first derivative at saved + bias of what `activate` computes. `saved` is not read by
  // kLinear. `sums`, null or `runs().new_sums()`, collects partial sums of the target per channel.
  void backward(int64_t block, const void* grad, const void* saved, const void* bias, void* target, double* sums) const;

  // With d2, the second derivative: grad_grad = (tangent + tangent_bias) d1, and, unless it is null,
  // grad_saved = grad (tangent + tangent_bias) d2, whose partial sums `sums` collects.
  struct DoubleBackward {
    const void *grad, *tangent, *tangent_bias, *saved, *bias;
    void *grad_grad, *grad_saved;
    double* sums;
  };
  void double_backward(int64_t block, const DoubleBackward& tensors) const;

 private:
  template <typename T>
  void activate_typed(int64_t block, const void* source, const void* bias, void* target) const;
  template <typename T>
  void backward_typed(
      int64_t block, const void* grad, const void* saved, const void* bias, void* target, double* sums) const;
  template <typename T>
  void double_backward_typed(int64_t block, const DoubleBackward& tensors) const;

  template <typename T>
  struct RunDerivatives;
  template <typename T>
  void differentiate(
      const Run& run, const void* saved, const void* bias, bool with_second, RunDerivatives<T>& derivatives) const;

  ChannelRuns runs_;
  Dtype dtype_;
  BiasActOptions options_;
};

}  // namespace fastgan
