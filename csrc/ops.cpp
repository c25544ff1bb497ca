#include "ops.h"

#include "cpu/clones.h"
#include "cpu/outputs.h"

// Schemas stand in fastgan/ops/<name>.py beside the op's fake and its gradient formulas, so that a pure-Python install
// and the Triton kernels have them too; here the CPU kernels are attached to them.
STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("yuv_l2", TORCH_BOX(&fastgan::yuv_l2_cpu));
  library.impl("yuv_l2_backward", TORCH_BOX(&fastgan::yuv_l2_backward_cpu));
  library.impl("yuv_l2_backward_", TORCH_BOX(&fastgan::yuv_l2_backward_cpu_));
  library.impl("jpeg", TORCH_BOX(&fastgan::jpeg_cpu));
  library.impl("jpeg_backward", TORCH_BOX(&fastgan::jpeg_backward_cpu));
  library.impl("photometric", TORCH_BOX(&fastgan::photometric_cpu));
  library.impl("photometric_backward", TORCH_BOX(&fastgan::photometric_backward_cpu));
  library.impl("blur", TORCH_BOX(&fastgan::blur_cpu));
  library.impl("perspective_warp", TORCH_BOX(&fastgan::perspective_warp_cpu));
  library.impl("perspective_warp_backward", TORCH_BOX(&fastgan::perspective_warp_backward_cpu));
  library.impl("adversarial", TORCH_BOX(&fastgan::adversarial_cpu));
  library.impl("squared_norm", TORCH_BOX(&fastgan::squared_norm_cpu));
  library.impl("squared_norm_backward", TORCH_BOX(&fastgan::squared_norm_backward_cpu));
  library.impl("bias_leaky_relu", TORCH_BOX(&fastgan::bias_leaky_relu_cpu));
  library.impl("bias_leaky_relu_backward", TORCH_BOX(&fastgan::bias_leaky_relu_backward_cpu));
  library.impl("bias_leaky_relu_tangent", TORCH_BOX(&fastgan::bias_leaky_relu_tangent_cpu));
  library.impl("feature_distance", TORCH_BOX(&fastgan::feature_distance_cpu));
  library.impl("feature_distance_backward", TORCH_BOX(&fastgan::feature_distance_backward_cpu));
  library.impl("feature_distance_backward_", TORCH_BOX(&fastgan::feature_distance_backward_cpu_));
  library.impl("optimizer_step_", TORCH_BOX(&fastgan::optimizer_step_cpu_));
  library.impl("gradient_norm", TORCH_BOX(&fastgan::gradient_norm_cpu));
}

STABLE_TORCH_LIBRARY_FRAGMENT(fastgan, library) {
  library.def("cpu_capability() -> str");
  library.def("keep_freed_memory() -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(fastgan, CompositeExplicitAutograd, library) {
  library.impl("cpu_capability", TORCH_BOX(&fastgan::cpu_capability_name));
  library.impl("keep_freed_memory", TORCH_BOX(&fastgan::keep_freed_memory));
}

namespace fastgan {

std::string cpu_capability_name() { return cpu_capability(); }

}  // namespace fastgan
