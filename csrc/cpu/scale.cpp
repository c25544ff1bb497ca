#include "scale.h"

#include <algorithm>

#include "clones.h"

namespace fastgan {
namespace {

constexpr int64_t kChunk = 1024;

FASTGAN_CLONES void multiply(const float* source, float factor, float* target, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) target[i] = factor * source[i];
}

FASTGAN_CLONES void multiply(const double* source, double factor, double* target, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) target[i] = factor * source[i];
}

template <typename T>
void scale_typed(const char* source, Dtype source_dtype, T factor, char* target, Dtype target_dtype, int64_t count) {
  alignas(64) T input[kChunk], output[kChunk];
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t length = std::min(kChunk, count - begin);
    const T* values = load(source + begin * size_of(source_dtype), source_dtype, 1, length, input);
    void* place = target + begin * size_of(target_dtype);
    T* results = target_of(place, target_dtype, 1, output);
    multiply(values, factor, results, length);
    store(results, place, target_dtype, 1, length);
  }
}

}  // namespace

void scale(const void* source, Dtype source_dtype, double factor, void* target, Dtype target_dtype, int64_t count) {
  const char* from = static_cast<const char*>(source);
  char* to = static_cast<char*>(target);
  if (source_dtype == Dtype::kFloat64 || target_dtype == Dtype::kFloat64) {
    scale_typed<double>(from, source_dtype, factor, to, target_dtype, count);
  } else {
    scale_typed<float>(from, source_dtype, static_cast<float>(factor), to, target_dtype, count);
  }
}

}  // namespace fastgan
