#pragma once

#include <torch/csrc/stable/c/shim.h>

#include <cstdint>

#include "device.h"

// Replaces torch's header: tensors are on the CPU, whose device has no index. The kernels are registered for any
// device, so that arguments on another one (meta) reach the host code, too.
#define FASTGAN_CUDA_OPERATORS(library) STABLE_TORCH_LIBRARY_IMPL(fastgan_emulated, CompositeExplicitAutograd, library)

namespace torch::stable::accelerator {

using DeviceIndex = int32_t;

struct DeviceGuard {
  explicit DeviceGuard(DeviceIndex) { ++emulation::device().guards; }
  ~DeviceGuard() { --emulation::device().guards; }
  DeviceGuard(const DeviceGuard&) = delete;
};

}  // namespace torch::stable::accelerator

inline AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = emulation::device().stream();
  return 0;
}
