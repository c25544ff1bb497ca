#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include <utility>

#include "stable.h"

// Helpers around CUDA launches: the caller's stream (launching on the default stream instead gives wrong results under
// CUDA graphs and side streams), error checks, and the registration of operators.
#ifndef FASTGAN_CUDA_OPERATORS
#define FASTGAN_CUDA_OPERATORS(library) STABLE_TORCH_LIBRARY_IMPL(fastgan, CUDA, library)
#endif

namespace fastgan {

inline cudaStream_t current_cuda_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Avoids the syntax `<<<>>>`, so that csrc/tests/cuda_emulation can compile the kernels as C++, without nvcc.
template <typename... Parameters, typename... Arguments>
void launch(
    const char* what, void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream,
    Arguments&&... arguments) {
  if (blocks == 0) return;  // CUDA reports an empty grid as an error
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  STD_TORCH_CHECK(error == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

inline void set_zero(const char* what, void* data, int64_t bytes, cudaStream_t stream) {
  const cudaError_t error = cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), stream);
  STD_TORCH_CHECK(error == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

}  // namespace fastgan
