#include "pixels.h"

#include <algorithm>

#include "../math/half.h"
#include "clones.h"

namespace fastgan {
namespace {

FASTGAN_CLONES void convert(const BFloat16* source, float* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = to_float(source[i]);
}

FASTGAN_CLONES void convert(const Float16* source, float* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = to_float(source[i]);
}

FASTGAN_CLONES void convert(const float* source, BFloat16* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = to_bfloat16(source[i]);
}

FASTGAN_CLONES void convert(const float* source, Float16* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = to_float16(source[i]);
}

// Three interleaved channels: the constant stride lets the compiler shuffle instead of gather.
FASTGAN_CLONES void gather_interleaved(const float* source, float* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = source[3 * i];
}

FASTGAN_CLONES void scatter_interleaved(const float* source, float* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[3 * i] = source[i];
}

double to_number(float value) { return value; }
double to_number(double value) { return value; }
double to_number(BFloat16 value) { return to_float(value); }
double to_number(Float16 value) { return to_float(value); }

void assign(float& target, double value) { target = static_cast<float>(value); }
void assign(double& target, double value) { target = value; }
void assign(BFloat16& target, double value) { target = to_bfloat16(static_cast<float>(value)); }
void assign(Float16& target, double value) { target = to_float16(static_cast<float>(value)); }

template <typename S, typename T>
void load_strided(const void* source, int64_t stride, int64_t count, T* target) {
  const S* values = static_cast<const S*>(source);
  for (int64_t i = 0; i < count; ++i) target[i] = static_cast<T>(to_number(values[i * stride]));
}

template <typename S, typename T>
void store_strided(const T* values, void* target, int64_t stride, int64_t count) {
  S* elements = static_cast<S*>(target);
  for (int64_t i = 0; i < count; ++i) assign(elements[i * stride], values[i]);
}

template <typename T>
void load_any(const void* source, Dtype dtype, int64_t stride, int64_t count, T* target) {
  switch (dtype) {
    case Dtype::kFloat16: return load_strided<Float16>(source, stride, count, target);
    case Dtype::kBFloat16: return load_strided<BFloat16>(source, stride, count, target);
    case Dtype::kFloat32: return load_strided<float>(source, stride, count, target);
    case Dtype::kFloat64: return load_strided<double>(source, stride, count, target);
  }
}

template <typename T>
void store_any(const T* values, void* target, Dtype dtype, int64_t stride, int64_t count) {
  switch (dtype) {
    case Dtype::kFloat16: return store_strided<Float16>(values, target, stride, count);
    case Dtype::kBFloat16: return store_strided<BFloat16>(values, target, stride, count);
    case Dtype::kFloat32: return store_strided<float>(values, target, stride, count);
    case Dtype::kFloat64: return store_strided<double>(values, target, stride, count);
  }
}

}  // namespace

const float* load(const void* source, Dtype dtype, int64_t stride, int64_t count, float* buffer) {
  if (dtype == Dtype::kFloat32 && stride == 1) return static_cast<const float*>(source);
  if (dtype == Dtype::kFloat32 && stride == 3) {
    gather_interleaved(static_cast<const float*>(source), buffer, count);
  } else if (dtype == Dtype::kBFloat16 && stride == 1) {
    convert(static_cast<const BFloat16*>(source), buffer, count);
  } else if (dtype == Dtype::kFloat16 && stride == 1) {
    convert(static_cast<const Float16*>(source), buffer, count);
  } else {
    load_any(source, dtype, stride, count, buffer);
  }
  return buffer;
}

const double* load(const void* source, Dtype dtype, int64_t stride, int64_t count, double* buffer) {
  if (dtype == Dtype::kFloat64 && stride == 1) return static_cast<const double*>(source);
  load_any(source, dtype, stride, count, buffer);
  return buffer;
}

float* target_of(void* target, Dtype dtype, int64_t stride, float* buffer) {
  return dtype == Dtype::kFloat32 && stride == 1 ? static_cast<float*>(target) : buffer;
}

double* target_of(void* target, Dtype dtype, int64_t stride, double* buffer) {
  return dtype == Dtype::kFloat64 && stride == 1 ? static_cast<double*>(target) : buffer;
}

void store(const float* values, void* target, Dtype dtype, int64_t stride, int64_t count) {
  if (values == target) return;
  if (dtype == Dtype::kFloat32 && stride == 1) {
    std::copy_n(values, count, static_cast<float*>(target));
  } else if (dtype == Dtype::kFloat32 && stride == 3) {
    scatter_interleaved(values, static_cast<float*>(target), count);
  } else if (dtype == Dtype::kBFloat16 && stride == 1) {
    convert(values, static_cast<BFloat16*>(target), count);
  } else if (dtype == Dtype::kFloat16 && stride == 1) {
    convert(values, static_cast<Float16*>(target), count);
  } else {
    store_any(values, target, dtype, stride, count);
  }
}

void store(const double* values, void* target, Dtype dtype, int64_t stride, int64_t count) {
  if (values == target) return;
  store_any(values, target, dtype, stride, count);
}

}  // namespace fastgan
