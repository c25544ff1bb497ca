#include "fir_tensors.h"
#include "parallel.h"
#include "upfirdn2d_sweep.h"

namespace fastgan {
namespace {

Tensor upfirdn2d_cpu(
    const Tensor& x, const Tensor& f, int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y, int64_t pad_x,
    int64_t pad_y, int64_t out_h, int64_t out_w, bool flip, double gain) {
  check_planes("upfirdn2d: x", x);
  const FirAxis along_x = fir_axis("upfirdn2d", x.size(3), out_w, up_x, down_x, pad_x);
  const FirAxis along_y = fir_axis("upfirdn2d", x.size(2), out_h, up_y, down_y, pad_y);
  Tensor y = new_planes(x, out_h, out_w, x.scalar_type());
  const Upfirdn2dSweep sweep(
      x.size(0) * x.size(1), along_x, along_y, fir_filter("upfirdn2d: f", f, !flip, gain, x),
      dtype_of(x.scalar_type()));
  for_all(sweep.blocks(), 1, [&](int64_t block) { sweep.run(block, x.data_ptr(), y.data_ptr()); });
  return y;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) { library.impl("upfirdn2d", TORCH_BOX(&fastgan::upfirdn2d_cpu)); }
