#include "squared_norm_sweep.h"

#include <algorithm>
#include <cmath>

#include "../math/host_device.h"
#include "clones.h"
#include "scale.h"

namespace fastgan {
namespace {

// Few enough terms to sum in float32 without losing precision.
constexpr int64_t kChunk = 1024;
// Elements per block: a few microseconds of work.
constexpr int64_t kBlock = 16384;

template <typename T>
FASTGAN_HOST_DEVICE T sum_of_products(const T* values, int64_t count) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += values[i] * values[i];
  return sum;
}

FASTGAN_CLONES float chunk_squares(const float* values, int64_t count) { return sum_of_products(values, count); }
FASTGAN_CLONES double chunk_squares(const double* values, int64_t count) { return sum_of_products(values, count); }

// For values whose squares overflow float32.
template <typename T>
double wide_squares(const T* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double(values[i]) * double(values[i]);
  return sum;
}

}  // namespace

double sum_of_squares(const void* data, Dtype dtype, int64_t count) {
  const char* values = static_cast<const char*>(data);
  double sum = 0;
  const auto add = [&](auto zero) {
    using T = decltype(zero);
    alignas(64) T buffer[kChunk];
    for (int64_t i = 0; i < count; i += kChunk) {
      const int64_t length = std::min(kChunk, count - i);
      const T* chunk = load(values + i * size_of(dtype), dtype, 1, length, buffer);
      const double squares = chunk_squares(chunk, length);
      sum += std::isfinite(squares) ? squares : wide_squares(chunk, length);
    }
  };
  dtype == Dtype::kFloat64 ? add(0.0) : add(0.0f);
  return sum;
}

SquaredNormSweep::SquaredNormSweep(const void* data, Dtype dtype, int64_t samples, int64_t elements)
    : data_(static_cast<const char*>(data)),
      dtype_(dtype),
      elements_(elements),
      blocks_per_sample_((elements + kBlock - 1) / kBlock),
      blocks_(samples * blocks_per_sample_),
      partial_sums_(blocks_, 0.0) {}

SquaredNormSweep::Part SquaredNormSweep::part(int64_t block) const {
  const int64_t sample = block / blocks_per_sample_, begin = block % blocks_per_sample_ * kBlock;
  return {sample, begin, std::min(kBlock, elements_ - begin)};
}

void SquaredNormSweep::run(int64_t block) {
  const Part range = part(block);
  const char* values = data_ + (range.sample * elements_ + range.begin) * size_of(dtype_);
  partial_sums_[block] = sum_of_squares(values, dtype_, range.count);
}

double SquaredNormSweep::norm(int64_t sample) const {
  double sum = 0;
  for (int64_t i = 0; i < blocks_per_sample_; ++i) sum += partial_sums_[sample * blocks_per_sample_ + i];
  return sum;
}

void SquaredNormSweep::scale_block(int64_t block, const std::vector<double>& factors, void* target) const {
  const Part range = part(block);
  const int64_t offset = (range.sample * elements_ + range.begin) * size_of(dtype_);
  scale(data_ + offset, dtype_, factors[range.sample], static_cast<char*>(target) + offset, dtype_, range.count);
}

}  // namespace fastgan
