#include "feature_matching_sweep.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "clones.h"

namespace fastgan {
namespace {

// Few enough terms to sum in float32 without losing precision.
constexpr int64_t kChunk = 1024;
// As in fastgan/ops/feature_matching.py.
constexpr int8_t kNan = 2;

template <bool kWithSigns, typename T>
FASTGAN_CLONES double sum_distances(const T* fake, const T* real, int64_t count, int8_t* signs) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    const T difference = fake[i] - real[i];
    sum += std::fabs(difference);
    if (kWithSigns) {
      const int sign = (difference > 0) - (difference < 0);
      signs[i] = static_cast<int8_t>(difference != difference ? kNan : sign);
    }
  }
  return sum;
}

template <typename T>
double wide_distances(const T* fake, const T* real, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += std::fabs(double(fake[i]) - double(real[i]));
  return sum;
}

template <typename T>
FASTGAN_CLONES void multiply_signs(const int8_t* signs, T factor, T* target, int64_t count) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) target[i] = signs[i] == kNan ? nan : factor * T(signs[i]);
}

template <typename T>
void apply_typed(const int8_t* signs, T factor, char* target, Dtype dtype, int64_t count) {
  alignas(64) T buffer[kChunk];
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t length = std::min(kChunk, count - begin);
    void* const place = target + begin * size_of(dtype);
    T* const results = target_of(place, dtype, 1, buffer);
    multiply_signs(signs + begin, factor, results, length);
    store(results, place, dtype, 1, length);
  }
}

}  // namespace

FeatureMatchingSweep::FeatureMatchingSweep(std::vector<FeaturePair> pairs, int64_t length)
    : pairs_(std::move(pairs)), length_(length) {
  for (int64_t pair = 0; pair < static_cast<int64_t>(pairs_.size()); ++pair) {
    const int64_t count = pairs_[pair].count;
    for (int64_t begin = 0; begin < count; begin += length) {
      parts_.push_back({pair, begin, std::min(length, count - begin)});
    }
  }
  sums_.assign(parts_.size(), 0.0);
}

void FeatureMatchingSweep::run(int64_t segment, int8_t* signs) {
  const Part& part = parts_[segment];
  const FeaturePair& pair = pairs_[part.pair];
  const bool is_double = pair.fake_dtype == Dtype::kFloat64 || pair.real_dtype == Dtype::kFloat64;
  sums_[segment] = is_double ? run_typed<double>(pair, part, signs) : run_typed<float>(pair, part, signs);
  if (signs) std::memset(signs + part.count, 0, length_ - part.count);
}

template <typename T>
double FeatureMatchingSweep::run_typed(const FeaturePair& pair, const Part& part, int8_t* signs) const {
  alignas(64) T buffer_fake[kChunk], buffer_real[kChunk];
  double sum = 0;
  for (int64_t i = 0; i < part.count; i += kChunk) {
    const int64_t count = std::min(kChunk, part.count - i), at = part.begin + i;
    const char* const fake_place = static_cast<const char*>(pair.fake) + at * size_of(pair.fake_dtype);
    const char* const real_place = static_cast<const char*>(pair.real) + at * size_of(pair.real_dtype);
    const T* fake = load(fake_place, pair.fake_dtype, 1, count, buffer_fake);
    const T* real = load(real_place, pair.real_dtype, 1, count, buffer_real);
    const double distances =
        signs ? sum_distances<true>(fake, real, count, signs + i) : sum_distances<false>(fake, real, count, signs);
    sum += std::isfinite(distances) ? distances : wide_distances(fake, real, count);
  }
  return sum;
}

double FeatureMatchingSweep::loss() const {
  double loss = 0;
  for (int64_t i = 0; i < segments(); ++i) loss += slope(i) * sums_[i];
  return loss;
}

void apply_signs(const int8_t* signs, double factor, void* target, Dtype dtype, int64_t count) {
  char* const to = static_cast<char*>(target);
  if (dtype == Dtype::kFloat64) {
    apply_typed<double>(signs, factor, to, dtype, count);
  } else {
    apply_typed<float>(signs, static_cast<float>(factor), to, dtype, count);
  }
}

}  // namespace fastgan
