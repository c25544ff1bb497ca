#include "gradient_budget_sweep.h"

#include <algorithm>
#include <cmath>

#include "../math/host_device.h"
#include "clones.h"
#include "scratch.h"

namespace fastgan {
namespace {

// Few enough terms to sum in float32 without losing precision; 16 rows of a chunk stay in the second-level cache while
// groups of them are combined.
constexpr int64_t kChunk = 1024;
// Elements per block: some microseconds of work.
constexpr int64_t kBlock = 16384;
// Rows whose products with each other are summed in one loop: 10 sums and 4 rows fit in the 16 registers of AVX2.
constexpr int64_t kGroup = 4;

// Where the sums of products go: a part of a matrix with rows `stride` apart.
template <typename S>
struct Sums {
  S* sums;
  int64_t stride;

  FASTGAN_HOST_DEVICE S& at(int64_t i, int64_t j) const { return sums[i * stride + j]; }
};

// The products of up to four rows with each other, and their weighted sum, which is added to `total` unless `is_first`.
template <int N, bool is_first, typename S>
FASTGAN_HOST_DEVICE void square(const S* const* rows, const S* weights, S* total, int64_t length, Sums<S> sums) {
  const S *const a = rows[0], *const b = rows[N > 1 ? 1 : 0], *const c = rows[N > 2 ? 2 : 0],
                 *const d = rows[N > 3 ? 3 : 0];
  const S weight_a = weights[0], weight_b = N > 1 ? weights[1] : S(0), weight_c = N > 2 ? weights[2] : S(0),
          weight_d = N > 3 ? weights[3] : S(0);
  S aa = 0, ab = 0, ac = 0, ad = 0, bb = 0, bc = 0, bd = 0, cc = 0, cd = 0, dd = 0;
#pragma omp simd reduction(+ : aa, ab, ac, ad, bb, bc, bd, cc, cd, dd)
  for (int64_t i = 0; i < length; ++i) {
    S sum = weight_a * a[i];
    aa += a[i] * a[i];
    if constexpr (N > 1) {
      sum += weight_b * b[i];
      ab += a[i] * b[i];
      bb += b[i] * b[i];
    }
    if constexpr (N > 2) {
      sum += weight_c * c[i];
      ac += a[i] * c[i];
      bc += b[i] * c[i];
      cc += c[i] * c[i];
    }
    if constexpr (N > 3) {
      sum += weight_d * d[i];
      ad += a[i] * d[i];
      bd += b[i] * d[i];
      cd += c[i] * d[i];
      dd += d[i] * d[i];
    }
    total[i] = is_first ? sum : total[i] + sum;
  }
  const S upper[4][4] = {{aa, ab, ac, ad}, {0, bb, bc, bd}, {0, 0, cc, cd}, {0, 0, 0, dd}};
  for (int i = 0; i < N; ++i)
    for (int j = i; j < N; ++j) sums.at(i, j) = upper[i][j];
}

// The products of one or two rows with up to four others.
template <int M, int N, typename S>
FASTGAN_HOST_DEVICE void cross(const S* const* rows, const S* const* others, int64_t length, Sums<S> sums) {
  const S *const x = rows[0], *const y = rows[M > 1 ? 1 : 0];
  const S *const a = others[0], *const b = others[N > 1 ? 1 : 0], *const c = others[N > 2 ? 2 : 0],
                 *const d = others[N > 3 ? 3 : 0];
  S xa = 0, xb = 0, xc = 0, xd = 0, ya = 0, yb = 0, yc = 0, yd = 0;
#pragma omp simd reduction(+ : xa, xb, xc, xd, ya, yb, yc, yd)
  for (int64_t i = 0; i < length; ++i) {
    xa += x[i] * a[i];
    if constexpr (N > 1) xb += x[i] * b[i];
    if constexpr (N > 2) xc += x[i] * c[i];
    if constexpr (N > 3) xd += x[i] * d[i];
    if constexpr (M > 1) {
      ya += y[i] * a[i];
      if constexpr (N > 1) yb += y[i] * b[i];
      if constexpr (N > 2) yc += y[i] * c[i];
      if constexpr (N > 3) yd += y[i] * d[i];
    }
  }
  const S products[2][4] = {{xa, xb, xc, xd}, {ya, yb, yc, yd}};
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) sums.at(i, j) = products[i][j];
}

template <bool is_first, typename S>
FASTGAN_HOST_DEVICE void square_of(
    const S* const* rows, int64_t count, const S* weights, S* total, int64_t length, Sums<S> sums) {
  switch (count) {
    case 1: return square<1, is_first>(rows, weights, total, length, sums);
    case 2: return square<2, is_first>(rows, weights, total, length, sums);
    case 3: return square<3, is_first>(rows, weights, total, length, sums);
    default: return square<4, is_first>(rows, weights, total, length, sums);
  }
}

template <int M, typename S>
FASTGAN_HOST_DEVICE void cross_of(
    const S* const* rows, const S* const* others, int64_t count, int64_t length, Sums<S> sums) {
  switch (count) {
    case 1: return cross<M, 1>(rows, others, length, sums);
    case 2: return cross<M, 2>(rows, others, length, sums);
    case 3: return cross<M, 3>(rows, others, length, sums);
    default: return cross<M, 4>(rows, others, length, sums);
  }
}

// All products of `count` rows in groups of `group`, and the weighted sum.
template <typename S>
FASTGAN_HOST_DEVICE void chunk_products(
    const S* const* rows, int64_t count, int64_t group, const S* weights, S* total, int64_t length, S* all) {
  for (int64_t first = 0; first < count; first += group) {
    const int64_t size = std::min(group, count - first);
    const Sums<S> own{all + first * count + first, count};
    if (first == 0) {
      square_of<true>(rows, size, weights, total, length, own);
    } else {
      square_of<false>(rows + first, size, weights + first, total, length, own);
    }
    // Two rows at a time: 8 sums and 6 rows fit in the 16 registers of AVX2.
    for (int64_t row = 0; row < first; row += 2) {
      const Sums<S> sums{all + row * count + first, count};
      if (row + 1 < first) {
        cross_of<2>(rows + row, rows + first, size, length, sums);
      } else {
        cross_of<1>(rows + row, rows + first, size, length, sums);
      }
    }
  }
}

FASTGAN_CLONES void products_of(
    const float* const* rows, int64_t count, int64_t group, const float* weights, float* total, int64_t length,
    float* all) {
  chunk_products(rows, count, group, weights, total, length, all);
}
FASTGAN_CLONES void products_of(
    const double* const* rows, int64_t count, int64_t group, const double* weights, double* total, int64_t length,
    double* all) {
  chunk_products(rows, count, group, weights, total, length, all);
}

// For values whose products overflow float32.
template <typename S>
double wide_product(const S* a, const S* b, int64_t length) {
  double sum = 0;
  for (int64_t i = 0; i < length; ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

}  // namespace

GradientBudgetSweep::GradientBudgetSweep(
    std::vector<const void*> gradients, std::vector<double> weights, Dtype dtype, int64_t elements, void* total)
    : gradients_(std::move(gradients)),
      weights_(std::move(weights)),
      dtype_(dtype),
      elements_(elements),
      total_(total),
      count_(static_cast<int64_t>(gradients_.size())),
      blocks_((elements + kBlock - 1) / kBlock),
      partial_sums_(blocks_ * count_ * count_, 0.0) {
  // Groups of nearly the same size: 3 and 3 rather than 4 and 2.
  const int64_t groups = (count_ + kGroup - 1) / kGroup;
  group_ = (count_ + groups - 1) / groups;
}

void GradientBudgetSweep::run(int64_t block) {
  dtype_ == Dtype::kFloat64 ? run_typed<double>(block) : run_typed<float>(block);
}

template <typename S>
void GradientBudgetSweep::run_typed(int64_t block) {
  const int64_t size = size_of(dtype_), end = std::min((block + 1) * kBlock, elements_);
  const bool converts = dtype_ == Dtype::kFloat16 || dtype_ == Dtype::kBFloat16;
  const Scratch<S> inputs = scratch<S>(converts ? count_ * kChunk : 0), sums = scratch<S>(count_ * count_);
  alignas(64) S output[kChunk];
  std::vector<const S*> rows(count_);
  const std::vector<S> weights(weights_.begin(), weights_.end());
  double* const partial_sums = partial_sums_.data() + block * count_ * count_;
  for (int64_t begin = block * kBlock; begin < end; begin += kChunk) {
    const int64_t length = std::min(kChunk, end - begin);
    for (int64_t t = 0; t < count_; ++t) {
      const char* row = static_cast<const char*>(gradients_[t]) + begin * size;
      rows[t] = load(row, dtype_, 1, length, converts ? inputs.get() + t * kChunk : nullptr);
    }
    void* const place = static_cast<char*>(total_) + begin * size;
    S* const results = target_of(place, dtype_, 1, output);
    products_of(rows.data(), count_, group_, weights.data(), results, length, sums.get());
    store(results, place, dtype_, 1, length);
    for (int64_t i = 0; i < count_; ++i) {
      for (int64_t j = i; j < count_; ++j) {
        const double sum = sums[i * count_ + j];
        partial_sums[i * count_ + j] += std::isfinite(sum) ? sum : wide_product(rows[i], rows[j], length);
      }
    }
  }
}

std::vector<double> GradientBudgetSweep::gram() const {
  std::vector<double> products(count_ * count_, 0.0);
  for (int64_t i = 0; i < count_; ++i) {
    for (int64_t j = i; j < count_; ++j) {
      double sum = 0;
      for (int64_t block = 0; block < blocks_; ++block) sum += partial_sums_[(block * count_ + i) * count_ + j];
      products[i * count_ + j] = products[j * count_ + i] = sum;
    }
  }
  return products;
}

}  // namespace fastgan
