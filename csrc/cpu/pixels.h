#pragma once

#include <cstdint>

// Reads and writes rows of N C H W images of any dtype and strides as plain float or double.
namespace fastgan {

enum class Dtype { kFloat16, kBFloat16, kFloat32, kFloat64 };

inline int64_t size_of(Dtype dtype) { return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2; }

// A strided N 3 H W image; strides in elements.
struct ImageView {
  void* data = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int64_t sizes[4] = {0, 0, 0, 0};
  int64_t strides[4] = {0, 0, 0, 0};

  void* at(int64_t image, int64_t channel, int64_t row, int64_t column) const {
    const int64_t offset = image * strides[0] + channel * strides[1] + row * strides[2] + column * strides[3];
    return static_cast<char*>(data) + offset * size_of(dtype);
  }
};

// Returns `count` elements from `source` on, `stride` apart: `source` itself if they already are contiguous and of the
// right type, otherwise `buffer`, to which they are converted.
const float* load(const void* source, Dtype dtype, int64_t stride, int64_t count, float* buffer);
const double* load(const void* source, Dtype dtype, int64_t stride, int64_t count, double* buffer);

// Returns where to write results: the target itself if no conversion is needed, otherwise `buffer`. Afterwards `store`
// converts the buffer to the target; for the target itself it does nothing.
float* target_of(void* target, Dtype dtype, int64_t stride, float* buffer);
double* target_of(void* target, Dtype dtype, int64_t stride, double* buffer);
void store(const float* values, void* target, Dtype dtype, int64_t stride, int64_t count);
void store(const double* values, void* target, Dtype dtype, int64_t stride, int64_t count);

}  // namespace fastgan
