#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "stable.h"

// What CUDA kernels need around a launch: the caller's stream (never the default one: CUDA graphs and side streams give
// wrong results with it) and the launch's error.
namespace fastgan {

inline cudaStream_t current_cuda_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline void check_launch(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, kernel, ": ", cudaGetErrorString(error));
}

}  // namespace fastgan
