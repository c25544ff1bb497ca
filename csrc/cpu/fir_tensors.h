#pragma once

#include "fir_rows.h"
#include "outputs.h"

// Tensors of the ops of FIR filters: checks of direct calls, filters and results.
namespace fastgan {

inline void check_planes(const char* name, const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4, name, " must have shape (N, C, H, W), got ", x.dim(), " dimensions");
  STD_TORCH_CHECK(x.is_contiguous(), name, " must be contiguous");
}

// The taps of a filter as they meet pixels, `turned` for a convolution. Splits filters of two axes to the rounding of
// the arithmetic of `like`.
inline FirFilter fir_filter(const char* name, const Tensor& f, bool turned, double gain, const Tensor& like) {
  STD_TORCH_CHECK((f.dim() == 1 || f.dim() == 2) && f.numel() > 0, name, " must have taps along one or two axes");
  const double epsilon = like.scalar_type() == ScalarType::Double ? 2.220446049250313e-16 : 1.1920928955078125e-7;
  return FirFilter(
      numbers_in(name, f, f.numel()), f.dim() == 2 ? f.size(0) : 0, f.size(f.dim() - 1), turned, gain, epsilon);
}

inline FirAxis fir_axis(const char* name, int64_t in, int64_t out, int64_t up, int64_t down, int64_t pad) {
  STD_TORCH_CHECK(up > 0 && down > 0 && out >= 0, name, " must have positive factors and sizes");
  // Factors that move no pixel may be larger than any memory, of which the kernels take more for larger factors.
  return {in, out, in > 1 ? up : 1, out > 1 ? down : 1, pad};
}

// Planes of another size, of x's samples and channels.
inline Tensor new_planes(const Tensor& x, int64_t height, int64_t width, ScalarType dtype) {
  const int64_t element = dtype == ScalarType::Byte ? 1 : size_of(dtype_of(dtype));
  const int64_t bytes = x.size(0) * x.size(1) * height * width * element;
  keep_freed_images(bytes);
  Tensor result = torch::stable::new_empty(x, {x.size(0), x.size(1), height, width}, dtype);
  advise_huge_pages(result.data_ptr(), bytes);
  return result;
}

}  // namespace fastgan
