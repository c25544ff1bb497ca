#include "pixel_loss_rows.h"

#include "../math/yuv_l2.h"
#include "clones.h"

namespace fastgan {
namespace {

// Calls the loop's `run` with the kind as a template argument.
template <typename Loop, typename... Arguments>
FASTGAN_HOST_DEVICE auto run_kind(PixelKind kind, const Arguments&... arguments) {
  switch (kind) {
    case PixelKind::kL1: return Loop::template run<PixelKind::kL1>(arguments...);
    case PixelKind::kL2: return Loop::template run<PixelKind::kL2>(arguments...);
    case PixelKind::kCharbonnier: return Loop::template run<PixelKind::kCharbonnier>(arguments...);
    case PixelKind::kHuber: break;
  }
  return Loop::template run<PixelKind::kHuber>(arguments...);
}

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

struct Penalties {
  template <PixelKind kKind, typename T>
  FASTGAN_HOST_DEVICE static double run(const PenaltyRow<T>& row) {
    if (row.weights) return row.slopes ? penalize_row<kKind, true, true>(row) : penalize_row<kKind, true, false>(row);
    return row.slopes ? penalize_row<kKind, false, true>(row) : penalize_row<kKind, false, false>(row);
  }
};

template <PixelKind kKind, PixelColour kColour, bool kGradient, typename T>
FASTGAN_HOST_DEVICE double pixels_row(const PixelRow<T>& row) {
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

struct Pixels {
  template <PixelKind kKind, typename T>
  FASTGAN_HOST_DEVICE static double run(PixelColour colour, const PixelRow<T>& row) {
    const bool wanted = row.gradient[0] != nullptr;
    if (colour == PixelColour::kRgb)
      return wanted ? pixels_row<kKind, PixelColour::kRgb, true>(row)
                    : pixels_row<kKind, PixelColour::kRgb, false>(row);
    if (colour == PixelColour::kLuma)
      return wanted ? pixels_row<kKind, PixelColour::kLuma, true>(row)
                    : pixels_row<kKind, PixelColour::kLuma, false>(row);
    return wanted ? pixels_row<kKind, PixelColour::kYuv, true>(row) : pixels_row<kKind, PixelColour::kYuv, false>(row);
  }
};

template <typename T>
FASTGAN_HOST_DEVICE void differences_of(const T* a, const T* b, int64_t count, T* difference) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) difference[i] = a[i] - b[i];
}

template <typename T>
FASTGAN_HOST_DEVICE void gain_of(T edge_gain, T row_ramp, const T* column_ramp, int64_t count, T* values) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) values[i] *= 1 + edge_gain * (1 - row_ramp * column_ramp[i]);
}

// Not a product, since the value may be NaN.
template <typename T>
FASTGAN_HOST_DEVICE T if_any(T count, T value) {
  return count > 0 ? value : T(0);
}

// Each slope is computed for both pixels of a pair, which takes less time than storing it.
template <PixelKind kKind, bool kWeights, bool kGradient, typename T>
FASTGAN_HOST_DEVICE PairSums<T> pairs_row(const PairRow<T>& row) {
  const T *above = row.above, *at = row.at, *below = row.below;
  const T *weights_above = row.weights_above, *weights = row.weights;
  T* gradient = row.gradient;
  const T threshold = row.threshold, down_factor = row.down_factor, right_factor = row.right_factor;
  const T above_count = row.above_count, below_count = row.below_count;
  const T *left_counts = row.left_counts, *right_counts = row.right_counts;
  const int64_t count = row.count;
  T down_sum = 0, right_sum = 0;
#pragma omp simd reduction(+ : down_sum, right_sum)
  for (int64_t i = 0; i < count; ++i) {
    const T value = at[i], weight = kWeights ? weights[i] : T(1);
    const auto down = pixel_penalty<kKind>(below[i] - value, threshold);
    const auto right = pixel_penalty<kKind>(at[i + 1] - value, threshold);
    down_sum += if_any(below_count, weight * down.value);
    right_sum += if_any(right_counts[i], weight * right.value);
    if (kGradient) {
      const T weight_above = kWeights ? weights_above[i] : T(1), weight_left = kWeights ? weights[i - 1] : T(1);
      const T up = weight_above * pixel_penalty<kKind>(value - above[i], threshold).slope;
      const T left = weight_left * pixel_penalty<kKind>(value - at[i - 1], threshold).slope;
      gradient[i] += down_factor * (if_any(above_count, up) - if_any(below_count, weight * down.slope)) +
                     right_factor * (if_any(left_counts[i], left) - if_any(right_counts[i], weight * right.slope));
    }
  }
  return {down_sum, right_sum};
}

struct Pairs {
  template <PixelKind kKind, typename T>
  FASTGAN_HOST_DEVICE static PairSums<T> run(const PairRow<T>& row) {
    if (row.weights) return row.gradient ? pairs_row<kKind, true, true>(row) : pairs_row<kKind, true, false>(row);
    return row.gradient ? pairs_row<kKind, false, true>(row) : pairs_row<kKind, false, false>(row);
  }
};

template <typename T>
FASTGAN_HOST_DEVICE void pairs_of(
    const T* above, const T* below, const T* left, const T* right, int64_t count, T* sums) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) sums[i] += (above[i] - below[i]) + (left[i] - right[i]);
}

template <bool kYuv, typename T>
FASTGAN_HOST_DEVICE void colours_of(T* red, T* green, T* blue, int64_t count) {
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

template <bool kYuv, typename T>
FASTGAN_HOST_DEVICE void from_colours(const T* y, const T* u, const T* v, int64_t count, T* red, T* green, T* blue) {
  using M = YuvMatrix<T>;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T luma = y[i], chroma_u = kYuv ? u[i] : T(0), chroma_v = kYuv ? v[i] : T(0);
    red[i] = M::y_r * luma + M::u_r * chroma_u + M::v_r * chroma_v;
    green[i] = M::y_g * luma + M::u_g * chroma_u + M::v_g * chroma_v;
    blue[i] = M::y_b * luma + M::u_b * chroma_u + M::v_b * chroma_v;
  }
}

template <PixelKind kKind, bool kWeights, bool kSlopes, typename T>
FASTGAN_HOST_DEVICE double sobel_row(const SobelRow<T>& row) {
  constexpr T kEighth = T(0.125);
  const T *above = row.above, *at = row.at, *below = row.below, *weights = row.weights;
  T *down_slopes = row.down, *right_slopes = row.right;
  const T threshold = row.threshold, factor = row.factor;
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < row.count; ++i) {
    const auto down = pixel_penalty<kKind>(
        kEighth * ((below[i - 1] - above[i - 1]) + 2 * (below[i] - above[i]) + (below[i + 1] - above[i + 1])),
        threshold);
    const auto right = pixel_penalty<kKind>(
        kEighth * ((above[i + 1] - above[i - 1]) + 2 * (at[i + 1] - at[i - 1]) + (below[i + 1] - below[i - 1])),
        threshold);
    const T weight = kWeights ? weights[i] : T(1), sloped = factor * weight;
    sum += weight * (down.value + right.value);
    if (kSlopes) down_slopes[i] = sloped * down.slope, right_slopes[i] = sloped * right.slope;
  }
  return sum;
}

struct Sobel {
  template <PixelKind kKind, typename T>
  FASTGAN_HOST_DEVICE static double run(const SobelRow<T>& row) {
    if (row.weights) return row.down ? sobel_row<kKind, true, true>(row) : sobel_row<kKind, true, false>(row);
    return row.down ? sobel_row<kKind, false, true>(row) : sobel_row<kKind, false, false>(row);
  }
};

template <typename T>
FASTGAN_HOST_DEVICE void sobel_adjoint(const SobelSlopes<T>& slopes, int64_t count, T* sums) {
  constexpr T kEighth = T(0.125);
  const T *down_above = slopes.down_above, *down_below = slopes.down_below;
  const T *right_above = slopes.right_above, *right_at = slopes.right_at, *right_below = slopes.right_below;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T down = (down_above[i - 1] - down_below[i - 1]) + 2 * (down_above[i] - down_below[i]) +
                   (down_above[i + 1] - down_below[i + 1]);
    const T right = (right_above[i - 1] - right_above[i + 1]) + 2 * (right_at[i - 1] - right_at[i + 1]) +
                    (right_below[i - 1] - right_below[i + 1]);
    sums[i] += kEighth * (down + right);
  }
}

}  // namespace

FASTGAN_CLONES double penalize(PixelKind kind, const PenaltyRow<float>& row) { return run_kind<Penalties>(kind, row); }
FASTGAN_CLONES double penalize(PixelKind kind, const PenaltyRow<double>& row) { return run_kind<Penalties>(kind, row); }
FASTGAN_CLONES double sweep_pixels(PixelKind kind, PixelColour colour, const PixelRow<float>& row) {
  return run_kind<Pixels>(kind, colour, row);
}
FASTGAN_CLONES double sweep_pixels(PixelKind kind, PixelColour colour, const PixelRow<double>& row) {
  return run_kind<Pixels>(kind, colour, row);
}
FASTGAN_CLONES double sweep_sobel(PixelKind kind, const SobelRow<float>& row) { return run_kind<Sobel>(kind, row); }
FASTGAN_CLONES double sweep_sobel(PixelKind kind, const SobelRow<double>& row) { return run_kind<Sobel>(kind, row); }
FASTGAN_CLONES PairSums<float> sweep_pairs(PixelKind kind, const PairRow<float>& row) {
  return run_kind<Pairs>(kind, row);
}
FASTGAN_CLONES PairSums<double> sweep_pairs(PixelKind kind, const PairRow<double>& row) {
  return run_kind<Pairs>(kind, row);
}
FASTGAN_CLONES void subtract(const float* a, const float* b, int64_t count, float* difference) {
  differences_of(a, b, count, difference);
}
FASTGAN_CLONES void subtract(const double* a, const double* b, int64_t count, double* difference) {
  differences_of(a, b, count, difference);
}
FASTGAN_CLONES void apply_gain(
    float edge_gain, float row_ramp, const float* column_ramp, int64_t count, float* values) {
  gain_of(edge_gain, row_ramp, column_ramp, count, values);
}
FASTGAN_CLONES void apply_gain(
    double edge_gain, double row_ramp, const double* column_ramp, int64_t count, double* values) {
  gain_of(edge_gain, row_ramp, column_ramp, count, values);
}
FASTGAN_CLONES void to_colour(PixelColour colour, float* const (&rows)[3], int64_t count) {
  if (colour == PixelColour::kYuv) return colours_of<true>(rows[0], rows[1], rows[2], count);
  if (colour == PixelColour::kLuma) colours_of<false>(rows[0], rows[1], rows[2], count);
}
FASTGAN_CLONES void to_colour(PixelColour colour, double* const (&rows)[3], int64_t count) {
  if (colour == PixelColour::kYuv) return colours_of<true>(rows[0], rows[1], rows[2], count);
  if (colour == PixelColour::kLuma) colours_of<false>(rows[0], rows[1], rows[2], count);
}
FASTGAN_CLONES void from_colour(
    PixelColour colour, const float* const (&rows)[3], int64_t count, float* const (&rgb)[3]) {
  if (colour == PixelColour::kYuv) return from_colours<true>(rows[0], rows[1], rows[2], count, rgb[0], rgb[1], rgb[2]);
  from_colours<false>(rows[0], rows[1], rows[2], count, rgb[0], rgb[1], rgb[2]);
}
FASTGAN_CLONES void from_colour(
    PixelColour colour, const double* const (&rows)[3], int64_t count, double* const (&rgb)[3]) {
  if (colour == PixelColour::kYuv) return from_colours<true>(rows[0], rows[1], rows[2], count, rgb[0], rgb[1], rgb[2]);
  from_colours<false>(rows[0], rows[1], rows[2], count, rgb[0], rgb[1], rgb[2]);
}
FASTGAN_CLONES void add_pairs(
    const float* above, const float* below, const float* left, const float* right, int64_t count, float* sums) {
  pairs_of(above, below, left, right, count, sums);
}
FASTGAN_CLONES void add_pairs(
    const double* above, const double* below, const double* left, const double* right, int64_t count, double* sums) {
  pairs_of(above, below, left, right, count, sums);
}
FASTGAN_CLONES void add_sobel_adjoint(const SobelSlopes<float>& slopes, int64_t count, float* sums) {
  sobel_adjoint(slopes, count, sums);
}
FASTGAN_CLONES void add_sobel_adjoint(const SobelSlopes<double>& slopes, int64_t count, double* sums) {
  sobel_adjoint(slopes, count, sums);
}

}  // namespace fastgan
