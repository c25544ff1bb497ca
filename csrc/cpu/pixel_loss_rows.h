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

// A row without neighbours: x and y, the weights of the channels that are compared, and where the gradient goes.
template <typename T>
struct PixelRow {
  const T *x[3], *y[3], *weights[3], *column_ramp;
  T* gradient[3];
  T row_ramp, edge_gain, threshold, scales[3], factor;
  int64_t count;
};

template <PixelKind kKind, PixelColour kColour, bool kGradient, typename T>
FASTGAN_HOST_DEVICE double sweep_row(const PixelRow<T>& row) {
  using M = YuvMatrix<T>;
  const T *xr = row.x[0], *xg = row.x[1], *xb = row.x[2];
  const T *yr = row.y[0], *yg = row.y[1], *yb = row.y[2];
  const T *weights0 = row.weights[0], *weights1 = row.weights[1], *weights2 = row.weights[2];
  T *red = row.gradient[0], *green = row.gradient[1], *blue = row.gradient[2];
  const T* column_ramp = row.column_ramp;
  const T row_ramp = row.row_ramp, edge_gain = row.edge_gain, threshold = row.threshold, factor = row.factor;
  const T scale0 = row.scales[0], scale1 = row.scales[1], scale2 = row.scales[2];
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < row.count; ++i) {
    const T gain = 1 + edge_gain * (1 - row_ramp * column_ramp[i]);
    const T weight0 = scale0 * weights0[i], r = xr[i] - yr[i];
    if (kColour == PixelColour::kRgb) {
      const auto penalty = pixel_penalty<kKind>(gain * r, threshold);
      sum += weight0 * penalty.value;
      if (kGradient) red[i] = factor * weight0 * gain * penalty.slope;
      continue;
    }
    const T g = xg[i] - yg[i], b = xb[i] - yb[i];
    const auto luma = pixel_penalty<kKind>(gain * (M::y_r * r + M::y_g * g + M::y_b * b), threshold);
    sum += weight0 * luma.value;
    const T slope_y = factor * weight0 * gain * luma.slope;
    T slope_u = 0, slope_v = 0;
    if (kColour == PixelColour::kYuv) {
      const T weight1 = scale1 * weights1[i], weight2 = scale2 * weights2[i];
      const auto chroma_u = pixel_penalty<kKind>(gain * (M::u_r * r + M::u_g * g + M::u_b * b), threshold);
      const auto chroma_v = pixel_penalty<kKind>(gain * (M::v_r * r + M::v_g * g + M::v_b * b), threshold);
      sum += weight1 * chroma_u.value + weight2 * chroma_v.value;
      slope_u = factor * weight1 * gain * chroma_u.slope;
      slope_v = factor * weight2 * gain * chroma_v.slope;
    }
    if (kGradient) {
      red[i] = M::y_r * slope_y + M::u_r * slope_u + M::v_r * slope_v;
      green[i] = M::y_g * slope_y + M::u_g * slope_u + M::v_g * slope_v;
      blue[i] = M::y_b * slope_y + M::u_b * slope_u + M::v_b * slope_v;
    }
  }
  return sum;
}

template <PixelKind kKind, typename T>
FASTGAN_HOST_DEVICE double sweep_kind(PixelColour colour, const PixelRow<T>& row) {
  const bool wanted = row.gradient[0] != nullptr;
  if (colour == PixelColour::kRgb)
    return wanted ? sweep_row<kKind, PixelColour::kRgb, true>(row) : sweep_row<kKind, PixelColour::kRgb, false>(row);
  if (colour == PixelColour::kLuma)
    return wanted ? sweep_row<kKind, PixelColour::kLuma, true>(row) : sweep_row<kKind, PixelColour::kLuma, false>(row);
  return wanted ? sweep_row<kKind, PixelColour::kYuv, true>(row) : sweep_row<kKind, PixelColour::kYuv, false>(row);
}

// The sum of the weighed penalties.
template <typename T>
FASTGAN_HOST_DEVICE double sweep_any(PixelKind kind, PixelColour colour, const PixelRow<T>& row) {
  switch (kind) {
    case PixelKind::kL1: return sweep_kind<PixelKind::kL1>(colour, row);
    case PixelKind::kL2: return sweep_kind<PixelKind::kL2>(colour, row);
    case PixelKind::kCharbonnier: return sweep_kind<PixelKind::kCharbonnier>(colour, row);
    default: return sweep_kind<PixelKind::kHuber>(colour, row);
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void subtract(const T* a, const T* b, T* difference, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) difference[i] = a[i] - b[i];
}

// Adds the derivatives by a pixel of its pairs with four neighbours.
template <typename T>
FASTGAN_HOST_DEVICE void add_pairs(
    const T* above, const T* below, const T* left, const T* right, T* sums, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) sums[i] += (above[i] - below[i]) + (left[i] - right[i]);
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
