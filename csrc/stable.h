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
  STD_TORCH_CHECK(image.dim() == 4, "images must have 4 dimensions, got ", image.dim());
  ImageView view;
  view.data = image.data_ptr();
  view.dtype = dtype_of(image.scalar_type());
  for (int i = 0; i < 4; ++i) {
    view.sizes[i] = image.size(i);
    view.strides[i] = image.stride(i);
  }
  return view;
}

// The checks below keep kernels from reading beyond the end of a tensor when an operator is called directly; the public
// functions refuse such arguments before. `name` is the operator's and the argument's, as in "blur: kernels".

inline void check_count(const char* name, const Tensor& tensor, int64_t count) {
  STD_TORCH_CHECK(tensor.numel() == count, name, " must have ", count, " elements, got ", tensor.numel());
}

// Checks that both are images N C H W of the same size.
inline void check_alike(const char* name, const Tensor& image, const Tensor& other) {
  for (int i = 0; i < 4; ++i) {
    STD_TORCH_CHECK(
        image.size(i) == other.size(i), name, " must have size ", other.size(i), " in dimension ", i, ", got ",
        image.size(i));
  }
}

// Whether elements fill their memory, in any order.
inline bool is_dense(const int64_t* sizes, const int64_t* strides, int64_t dimensions) {
  int64_t filled = 1, left = 0;
  for (int64_t i = 0; i < dimensions; ++i) {
    if (sizes[i] == 0) return true;
    if (sizes[i] != 1) ++left;
  }
  for (bool found = true; found;) {
    found = false;
    for (int64_t i = 0; i < dimensions; ++i) {
      if (sizes[i] == 1 || strides[i] != filled) continue;
      filled *= sizes[i];
      --left;
      found = true;
    }
  }
  return left == 0;
}

// For kernels that read a tensor's memory as one block.
inline void check_dense(const char* name, const Tensor& tensor) {
  const bool dense = is_dense(tensor.sizes().data(), tensor.strides().data(), tensor.dim());
  STD_TORCH_CHECK(dense, name, " must be dense in memory");
}

// For kernels that read two tensors in the order of their memory.
inline void check_same_layout(const char* name, const Tensor& tensor, const char* other_name, const Tensor& other) {
  bool same = tensor.dim() == other.dim();
  for (int64_t i = 0; same && i < tensor.dim(); ++i) {
    const int64_t size = other.size(i);
    same = tensor.size(i) == size && (size <= 1 || tensor.stride(i) == other.stride(i));
  }
  STD_TORCH_CHECK(
      same || (tensor.numel() == 0 && other.numel() == 0), name, " must have the shape and strides of ", other_name);
}

inline void check_colour(const char* name, const Tensor& image) {
  STD_TORCH_CHECK(image.size(1) == 3, name, " must have 3 channels, got ", image.size(1));
}

// The `count` values of a small tensor on the CPU, of any floating-point dtype, as double.
inline std::vector<double> numbers_in(const char* name, const Tensor& tensor, int64_t count) {
  check_count(name, tensor, count);
  STD_TORCH_CHECK(tensor.is_contiguous(), name, " must be contiguous");
  std::vector<double> buffer(count);
  const double* values = load(tensor.data_ptr(), dtype_of(tensor.scalar_type()), 1, count, buffer.data());
  if (values != buffer.data()) buffer.assign(values, values + count);
  return buffer;
}

inline void check_integer(const char* name, const Tensor& tensor) {
  check_count(name, tensor, 1);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Long, name, " must be int64");
}

// For tensors on the CPU.
inline int64_t integer_in(const char* name, const Tensor& tensor) {
  check_integer(name, tensor);
  return *static_cast<const int64_t*>(tensor.data_ptr());
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
