#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu/pixels.h"

// Helpers that the kernels need on top of torch/csrc/stable. Only the stable ABI is used, so that one binary serves
// every torch >= 2.10: never include torch/extension.h or ATen here.
namespace fastgan {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Dtype dtype_of(ScalarType type) {
  switch (type) {
    case ScalarType::Half: return Dtype::kFloat16;
    case ScalarType::BFloat16: return Dtype::kBFloat16;
    case ScalarType::Float: return Dtype::kFloat32;
    case ScalarType::Double: return Dtype::kFloat64;
    default: STD_TORCH_CHECK(false, "fastgan kernels take float16, bfloat16, float32 and float64 tensors");
  }
}

inline ImageView image_view(const Tensor& image) {
  ImageView view;
  view.data = image.data_ptr();
  view.dtype = dtype_of(image.scalar_type());
  for (int i = 0; i < 4; ++i) {
    view.sizes[i] = image.size(i);
    view.strides[i] = image.stride(i);
  }
  return view;
}

// The values of a small contiguous tensor of any floating-point dtype, as double.
inline std::vector<double> numbers_in(const Tensor& tensor) {
  std::vector<double> buffer(tensor.numel());
  const double* values = load(tensor.data_ptr(), dtype_of(tensor.scalar_type()), 1, tensor.numel(), buffer.data());
  if (values != buffer.data()) buffer.assign(values, values + tensor.numel());
  return buffer;
}

// aten::empty_like with a dtype, which torch::stable::empty_like does not take; keeps the strides of a dense tensor.
// This is the one place that calls the dispatcher by hand, with conversions from torch's `detail` namespace. They are
// part of the stable ABI since 2.10; without them a kernel could not create an output of another dtype with its input's
// strides.
inline Tensor empty_like(const Tensor& like, ScalarType dtype) {
  using torch::stable::detail::from;
  std::array<StableIValue, 6> stack{
      from(like),
      from(std::optional<ScalarType>(dtype)),
      from(std::optional<torch::headeronly::Layout>()),
      from(std::optional<torch::stable::Device>()),
      from(std::optional<bool>()),
      from(std::optional<torch::headeronly::MemoryFormat>())};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::empty_like", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace fastgan
