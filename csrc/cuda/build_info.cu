// The facts about the CUDA library that `fastgan info` prints: the architectures it was built for, and the one that the
// current device actually runs (so that "no kernel image is available" shows here, not in the middle of a training
// run).
#include <cuda_runtime.h>

#include <string>

#include "../stable_cuda.h"

namespace fastgan {
namespace {

__global__ void write_architecture(int* result) {
#ifdef __CUDA_ARCH__
  *result = __CUDA_ARCH__ / 10;
#endif
}

std::string cuda_architectures() { return FASTGAN_CUDA_ARCHITECTURES; }

// The architecture, as in sm_90 -> 90, of the machine code that runs on this tensor's device.
Tensor cuda_running_architecture(const Tensor& on_device) {
  const torch::stable::accelerator::DeviceGuard guard(on_device.get_device_index());
  const std::vector<int64_t> scalar;
  Tensor result = torch::stable::new_empty(on_device, scalar, ScalarType::Int);
  launch(
      "write_architecture", write_architecture, 1, 1, current_cuda_stream(on_device),
      static_cast<int*>(result.data_ptr()));
  return result;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_FRAGMENT(fastgan, library) {
  library.def("cuda_architectures() -> str");
  library.def("cuda_running_architecture(Tensor on_device) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(fastgan, CompositeExplicitAutograd, library) {
  library.impl("cuda_architectures", TORCH_BOX(&fastgan::cuda_architectures));
}

FASTGAN_CUDA_OPERATORS(library) {
  library.impl("cuda_running_architecture", TORCH_BOX(&fastgan::cuda_running_architecture));
}
