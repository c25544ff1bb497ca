#pragma once

#include "../stable.h"
#include "channel_runs.h"

namespace fastgan {

// A block takes a few microseconds; waking a thread pays off from two blocks on.
constexpr int64_t kGrainBlocks = 2;

// Whether the elements lie next to each other, in the order of the dimensions or with dimension 1 last.
inline bool is_dense(const Tensor& x) {
  if (x.is_contiguous()) return true;
  int64_t stride = 1;
  for (int64_t i = 0; i < x.dim(); ++i) {
    const int64_t dim = i == 0 ? 1 : i == x.dim() - 1 ? 0 : x.dim() - i;
    if (x.size(dim) != 1 && x.stride(dim) != stride) return false;
    stride *= x.size(dim);
  }
  return true;
}

// How the channels of a contiguous or channels-last tensor lie in memory; see fastgan/ops/_channels.py.
inline ChannelLayout layout_of(const char* name, const Tensor& x) {
  STD_TORCH_CHECK(x.dim() > 1, name, " must have shape (N, C, ...), got ", x.dim(), " dimensions");
  STD_TORCH_CHECK(is_dense(x), name, " must be contiguous or channels last");
  const int64_t channels = x.size(1), length = channels > 1 ? x.stride(1) : x.numel();
  if (x.numel() == 0) return {0, channels, 1};
  return {x.numel() / (channels * length), channels, length};
}

// Checks that a tensor has as many elements as another one, in the same places.
inline void check_laid_out_like(const char* name, const Tensor& tensor, const Tensor& like) {
  check_count(name, tensor, like.numel());
  const ChannelLayout layout = layout_of(name, tensor), wanted = layout_of(name, like);
  STD_TORCH_CHECK(
      layout.channels == wanted.channels && layout.length == wanted.length, name,
      " must have the memory format of the gradient");
}

// A bias, if there is one, in the arithmetic of the kernels for x: double for double tensors, else float. `name` is the
// operator's and the argument's, as in "bias_act: bias".
class Bias {
 public:
  Bias(const char* name, const std::optional<Tensor>& bias, const Tensor& x) {
    if (!bias) return;
    STD_TORCH_CHECK(bias->dim() == 1, name, " must have one dimension, got ", bias->dim());
    check_count(name, *bias, x.size(1));
    const int64_t count = bias->numel(), stride = count > 1 ? bias->stride(0) : 1;
    const Dtype dtype = dtype_of(bias->scalar_type());
    if (x.scalar_type() == ScalarType::Double) {
      doubles_.resize(count);
      values_ = load(bias->data_ptr(), dtype, stride, count, doubles_.data());
    } else {
      floats_.resize(count);
      values_ = load(bias->data_ptr(), dtype, stride, count, floats_.data());
    }
  }
  // One value per channel, or null.
  const void* values() const { return values_; }

 private:
  std::vector<float> floats_;
  std::vector<double> doubles_;
  const void* values_ = nullptr;
};

// Partial sums of a gradient, for the gradient of a bias of the given dtype; none without a dtype.
class BiasGradient {
 public:
  BiasGradient(const ChannelRuns& runs, std::optional<ScalarType> dtype) : runs_(runs), dtype_(dtype) {
    if (dtype) sums_ = runs.new_sums();
  }
  double* sums() { return dtype_ ? sums_.data() : nullptr; }
  // Returns the gradient, one value per channel of x, or an empty tensor.
  Tensor total(const Tensor& x) const {
    if (!dtype_) return torch::stable::new_empty(x, {0}, ScalarType::Float);
    Tensor gradient = torch::stable::new_empty(x, {x.size(1)}, *dtype_);
    const std::vector<double> totals = runs_.channel_sums(sums_);
    store(totals.data(), gradient.data_ptr(), dtype_of(*dtype_), 1, x.size(1));
    return gradient;
  }

 private:
  const ChannelRuns& runs_;
  std::optional<ScalarType> dtype_;
  std::vector<double> sums_;
};

}  // namespace fastgan
