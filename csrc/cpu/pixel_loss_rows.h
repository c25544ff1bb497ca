#pragma once

#include <cstdint>

#include "../math/pixel_loss.h"
#include "../math/yuv_l2.h"

// Loops of pixel_loss over the pixels of a row, which vectorize; to be inlined into functions with FASTGAN_CLONES.
namespace fastgan {

template <typename T>
struct PenaltyRow {
  const T *values, *weights;  // weights may be null
  T* slopes;                  // may be null
  T threshold, factor;
  int64_t count;
};

template <PixelKind kKind, bool kWeights, bool kSlopes, typename T>
FASTGAN_HOST_DEVICE double penalize_row(const PenaltyRow<T>& row) {
  const T *values = row.values, *weights = row.weights;
  T* slopes = row.slopes;
  const T threshold = row.threshold, factor = row.factor;
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < row.count; ++i) {
    const auto penalty = pixel_penalty<kKind>(values[i], threshold);
    sum += kWeights ? weights[i] * penalty.value : penalty.value;
    if (kSlopes) slopes[i] = (kWeights ? factor * weights[i] : factor) * penalty.slope;
  }
  return sum;
}

template <PixelKind kKind, typename T>
FASTGAN_HOST_DEVICE double penalize_kind(const PenaltyRow<T>& row) {
  if (row.weights) return row.slopes ? penalize_row<kKind, true, true>(row) : penalize_row<kKind, true, false>(row);
  return row.slopes ? penalize_row<kKind, false, true>(row) : penalize_row<kKind, false, false>(row);
}

// The sum of the weighed penalties; the slopes are their derivatives times the factor.
template <typename T>
FASTGAN_HOST_DEVICE double penalize_any(PixelKind kind, const PenaltyRow<T>& row) {
  switch (kind) {
    case PixelKind::kL1: return penalize_kind<PixelKind::kL1>(row);
    case PixelKind::kL2: return penalize_kind<PixelKind::kL2>(row);
    case PixelKind::kCharbonnier: return penalize_kind<PixelKind::kCharbonnier>(row);
    default: return penalize_kind<PixelKind::kHuber>(row);
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void subtract(const T* a, const T* b, T* difference, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) difference[i] = a[i] - b[i];
}

template <typename T>
FASTGAN_HOST_DEVICE void add(const T* values, T* sums, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) sums[i] += values[i];
}

// Red, green and blue, in place, become the channels that are compared; in luma the first one.
template <bool kYuv, typename T>
FASTGAN_HOST_DEVICE void to_colour(T* red, T* green, T* blue, int64_t count) {
  using M = YuvMatrix<T>;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T r = red[i], g = green[i], b = blue[i];
    red[i] = M::y_r * r + M::y_g * g + M::y_b * b;
    if (kYuv) {
      green[i] = M::u_r * r + M::u_g * g + M::u_b * b;
      blue[i] = M::v_r * r + M::v_g * g + M::v_b * b;
    }
  }
}

// The transpose. In luma u and v are not read.
template <bool kYuv, typename T>
FASTGAN_HOST_DEVICE void from_colour(const T* y, const T* u, const T* v, T* red, T* green, T* blue, int64_t count) {
  using M = YuvMatrix<T>;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T luma = y[i], chroma_u = kYuv ? u[i] : T(0), chroma_v = kYuv ? v[i] : T(0);
    red[i] = M::y_r * luma + M::u_r * chroma_u + M::v_r * chroma_v;
    green[i] = M::y_g * luma + M::u_g * chroma_u + M::v_g * chroma_v;
    blue[i] = M::y_b * luma + M::u_b * chroma_u + M::v_b * chroma_v;
  }
}

// Rows above, at and below a pixel, which may be read one element beyond both ends.
template <typename T>
FASTGAN_HOST_DEVICE void sobel(const T* above, const T* at, const T* below, T* down, T* right, int64_t count) {
  constexpr T kEighth = T(0.125);
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    down[i] = kEighth * ((below[i - 1] - above[i - 1]) + 2 * (below[i] - above[i]) + (below[i + 1] - above[i + 1]));
    right[i] = kEighth * ((above[i + 1] - above[i - 1]) + 2 * (at[i + 1] - at[i - 1]) + (below[i + 1] - below[i - 1]));
  }
}

// The transpose, added: each derivative's slopes above, at and below the pixels.
template <typename T>
FASTGAN_HOST_DEVICE void add_sobel_adjoint(
    const T* down_above, const T* down_below, const T* right_above, const T* right_at, const T* right_below, T* sums,
    int64_t count) {
  constexpr T kEighth = T(0.125);
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T down = (down_above[i - 1] - down_below[i - 1]) + 2 * (down_above[i] - down_below[i]) +
                   (down_above[i + 1] - down_below[i + 1]);
    const T right = (right_above[i - 1] - right_above[i + 1]) + 2 * (right_at[i - 1] - right_at[i + 1]) +
                    (right_below[i - 1] - right_below[i + 1]);
    sums[i] += kEighth * (down + right);
  }
}

}  // namespace fastgan
