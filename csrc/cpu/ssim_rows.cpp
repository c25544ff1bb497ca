#include "ssim_rows.h"

#include <algorithm>

#include "clones.h"

namespace fastgan {
namespace {

// --- filters --------------------------------------------------------------------------------------------------------

// The usual window's loops name each of the values: compilers do not vectorize loops over small arrays of them.
template <typename T>
struct UsualTaps {
  T centre, first, second, third, fourth, fifth;
  explicit UsualTaps(const T* taps)
      : centre(taps[0]), first(taps[1]), second(taps[2]), third(taps[3]), fourth(taps[4]), fifth(taps[5]) {}
};

template <typename T>
FASTGAN_HOST_DEVICE T weighed(const UsualTaps<T>& w, T a, T b, T c, T d, T e, T f, T g, T h, T i, T j, T k) {
  return (w.centre * f + w.first * (e + g)) + (w.second * (d + h) + w.third * (c + i)) +
         (w.fourth * (b + j) + w.fifth * (a + k));
}

template <typename T>
FASTGAN_HOST_DEVICE void usual_down(const T* taps_of_window, const T* rows, int64_t count, T* result) {
  const UsualTaps<T> w(taps_of_window);
  constexpr int64_t kRow = kUsualStride;
#pragma omp simd
  for (int64_t x = 0; x < count; ++x) {
    const T a = rows[x], b = rows[x + kRow], c = rows[x + 2 * kRow], d = rows[x + 3 * kRow], e = rows[x + 4 * kRow];
    const T f = rows[x + 5 * kRow], g = rows[x + 6 * kRow], h = rows[x + 7 * kRow], i = rows[x + 8 * kRow];
    const T j = rows[x + 9 * kRow], k = rows[x + 10 * kRow], l = rows[x + 11 * kRow], m = rows[x + 12 * kRow];
    const T n = rows[x + 13 * kRow];
    result[x] = weighed(w, a, b, c, d, e, f, g, h, i, j, k);
    result[x + kRow] = weighed(w, b, c, d, e, f, g, h, i, j, k, l);
    result[x + 2 * kRow] = weighed(w, c, d, e, f, g, h, i, j, k, l, m);
    result[x + 3 * kRow] = weighed(w, d, e, f, g, h, i, j, k, l, m, n);
  }
}

// Moments by differences from row 6, which all four windows contain.
template <typename T>
FASTGAN_HOST_DEVICE void usual_moments_down(
    const T* taps_of_window, const T* rows, T offset, int64_t count, T* means, T* variances) {
  const UsualTaps<T> w(taps_of_window);
  constexpr int64_t kRow = kUsualStride;
#pragma omp simd
  for (int64_t x = 0; x < count; ++x) {
    const T near = rows[x + 6 * kRow], shifted = near - offset;
    const T a = rows[x] - near, b = rows[x + kRow] - near, c = rows[x + 2 * kRow] - near;
    const T d = rows[x + 3 * kRow] - near, e = rows[x + 4 * kRow] - near, f = rows[x + 5 * kRow] - near;
    const T g = 0, h = rows[x + 7 * kRow] - near, i = rows[x + 8 * kRow] - near;
    const T j = rows[x + 9 * kRow] - near, k = rows[x + 10 * kRow] - near, l = rows[x + 11 * kRow] - near;
    const T m = rows[x + 12 * kRow] - near, n = rows[x + 13 * kRow] - near;
    const T first = weighed(w, a, b, c, d, e, f, g, h, i, j, k), second = weighed(w, b, c, d, e, f, g, h, i, j, k, l);
    const T third = weighed(w, c, d, e, f, g, h, i, j, k, l, m), fourth = weighed(w, d, e, f, g, h, i, j, k, l, m, n);
    means[x] = shifted + first;
    means[x + kRow] = shifted + second;
    means[x + 2 * kRow] = shifted + third;
    means[x + 3 * kRow] = shifted + fourth;
    const T aa = a * a, bb = b * b, cc = c * c, dd = d * d, ee = e * e, ff = f * f, gg = 0;
    const T hh = h * h, ii = i * i, jj = j * j, kk = k * k, ll = l * l, mm = m * m, nn = n * n;
    variances[x] = weighed(w, aa, bb, cc, dd, ee, ff, gg, hh, ii, jj, kk) - first * first;
    variances[x + kRow] = weighed(w, bb, cc, dd, ee, ff, gg, hh, ii, jj, kk, ll) - second * second;
    variances[x + 2 * kRow] = weighed(w, cc, dd, ee, ff, gg, hh, ii, jj, kk, ll, mm) - third * third;
    variances[x + 3 * kRow] = weighed(w, dd, ee, ff, gg, hh, ii, jj, kk, ll, mm, nn) - fourth * fourth;
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void usual_along(const T* taps_of_window, const T* row, int64_t count, T* result) {
  const UsualTaps<T> w(taps_of_window);
#pragma omp simd
  for (int64_t x = 0; x < count; ++x) {
    result[x] = weighed(
        w, row[x], row[x + 1], row[x + 2], row[x + 3], row[x + 4], row[x + 5], row[x + 6], row[x + 7], row[x + 8],
        row[x + 9], row[x + 10]);
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void usual_moments_along(
    const T* taps_of_window, const T* means, const T* variances, int64_t count, T* mean, T* variance) {
  const UsualTaps<T> w(taps_of_window);
#pragma omp simd
  for (int64_t x = 0; x < count; ++x) {
    const T centre = means[x + 5];
    const T a = means[x] - centre, b = means[x + 1] - centre, c = means[x + 2] - centre, d = means[x + 3] - centre;
    const T e = means[x + 4] - centre, g = means[x + 6] - centre, h = means[x + 7] - centre;
    const T i = means[x + 8] - centre, j = means[x + 9] - centre, k = means[x + 10] - centre;
    const T difference = weighed(w, a, b, c, d, e, T(0), g, h, i, j, k);
    const T square = weighed(
        w, variances[x] + a * a, variances[x + 1] + b * b, variances[x + 2] + c * c, variances[x + 3] + d * d,
        variances[x + 4] + e * e, variances[x + 5], variances[x + 6] + g * g, variances[x + 7] + h * h,
        variances[x + 8] + i * i, variances[x + 9] + j * j, variances[x + 10] + k * k);
    mean[x] = centre + difference;
    variance[x] = square - difference * difference;
  }
}

// Any window, tap by tap.
template <typename T>
FASTGAN_HOST_DEVICE void any_down(const Window<T>& window, const T* rows, int64_t stride, int64_t count, T* result) {
  const int64_t radius = window.radius;
  for (int j = 0; j < kTogether; ++j) {
    const T* centre = rows + (j + radius) * stride;
    T* sum = result + j * stride;
    const T first = window.taps[0];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) sum[i] = first * centre[i];
    for (int64_t k = 1; k <= radius; ++k) {
      const T *above = centre - k * stride, *below = centre + k * stride;
      const T tap = window.taps[k];
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) sum[i] += tap * (above[i] + below[i]);
    }
  }
}

// Moments of windows whose values lie `step` apart, means less the offset. Each value is itself a mean with a variance,
// if there are variances. The mean comes first, by differences from the centre, and then the squares of differences
// from it: the centre of a large window has hardly any weight, and may lie far from the mean.
template <bool kHasVariances, typename T>
FASTGAN_HOST_DEVICE void any_moments(
    const Window<T>& window, const T* centre, const T* centre_variance, int64_t step, T offset, int64_t count, T* mean,
    T* variance) {
  const int64_t radius = window.radius;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) mean[i] = 0;
  for (int64_t k = 1; k <= radius; ++k) {
    const T *before = centre - k * step, *after = centre + k * step;
    const T tap = window.taps[k];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) mean[i] += tap * ((before[i] - centre[i]) + (after[i] - centre[i]));
  }
  const T first = window.taps[0];
#pragma omp simd
  for (int64_t i = 0; i < count; ++i)
    variance[i] = first * (mean[i] * mean[i] + (kHasVariances ? centre_variance[i] : T(0)));
  for (int64_t k = 1; k <= radius; ++k) {
    const T *before = centre - k * step, *after = centre + k * step;
    const T* variance_before = kHasVariances ? centre_variance - k * step : nullptr;
    const T* variance_after = kHasVariances ? centre_variance + k * step : nullptr;
    const T tap = window.taps[k];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const T middle = centre[i] + mean[i], a = before[i] - middle, b = after[i] - middle;
      if (kHasVariances)
        variance[i] += tap * ((variance_before[i] + a * a) + (variance_after[i] + b * b));
      else
        variance[i] += tap * (a * a + b * b);
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) mean[i] += centre[i] - offset;
}

template <typename T>
FASTGAN_HOST_DEVICE void any_along(const Window<T>& window, const T* row, int64_t count, T* result) {
  const T* centre = row + window.radius;
  const T first = window.taps[0];
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) result[i] = first * centre[i];
  for (int64_t k = 1; k <= window.radius; ++k) {
    const T *left = centre - k, *right = centre + k;
    const T tap = window.taps[k];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) result[i] += tap * (left[i] + right[i]);
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void down(const Window<T>& window, const T* rows, int64_t stride, int64_t count, T* result) {
  if (window.radius == kUsualRadius && stride == kUsualStride) return usual_down(window.taps, rows, count, result);
  any_down(window, rows, stride, count, result);
}

// Whether the row that four windows share has weight enough in each. Where it has weight w, the mean square of the
// differences from it is at most 1 / w times the variance, so that subtracting the mean's square loses at most log2(1 /
// w) bits: 3.2 for the usual sigma of 1.5, 4.3 at this bound, which a sigma below 1 falls short of.
template <typename T>
FASTGAN_HOST_DEVICE bool shares_a_row(const Window<T>& window) {
  return window.taps[2] > T(0.05);
}

template <typename T>
FASTGAN_HOST_DEVICE void moments_down_of(
    const Window<T>& window, const T* rows, T offset, int64_t stride, int64_t count, T* means, T* variances) {
  if (window.radius == kUsualRadius && stride == kUsualStride && shares_a_row(window))
    return usual_moments_down(window.taps, rows, offset, count, means, variances);
  for (int j = 0; j < kTogether; ++j) {
    const T* centre = rows + (j + window.radius) * stride;
    any_moments<false, T>(window, centre, nullptr, stride, offset, count, means + j * stride, variances + j * stride);
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void moments_along_of(
    const Window<T>& window, const T* means, const T* variances, int64_t count, T* mean, T* variance) {
  if (window.radius == kUsualRadius) return usual_moments_along(window.taps, means, variances, count, mean, variance);
  const int64_t radius = window.radius;
  any_moments<true>(window, means + radius, variances + radius, 1, T(0), count, mean, variance);
}

template <typename T>
FASTGAN_HOST_DEVICE void along(const Window<T>& window, const T* row, int64_t count, T* result) {
  if (window.radius == kUsualRadius) return usual_along(window.taps, row, count, result);
  any_along(window, row, count, result);
}

// --- pixels ---------------------------------------------------------------------------------------------------------

template <Slopes kSlopes, typename T>
FASTGAN_HOST_DEVICE void pixels(
    const Moments<T>& moments, const SsimConstants<T>& given, int64_t count, T* losses, T* const (&maps)[4]) {
  const SsimConstants<T> constants = given;
  const T *mean_m = moments.mean_m, *mean_d = moments.mean_d;
  const T *variance_m = moments.variance_m, *variance_d = moments.variance_d;
  T *first = maps[0], *second = maps[1], *third = maps[2], *fourth = maps[3];
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const SsimPixel<T> pixel = ssim_pixel(mean_m[i], mean_d[i], variance_m[i], variance_d[i], constants);
    losses[i] = pixel.loss;
    if (kSlopes == Slopes::kOfBoth) {
      first[i] = T(0.5) * pixel.slope_m;
      second[i] = T(0.5) * pixel.slope_d;
      third[i] = pixel.slope_mm;
      fourth[i] = pixel.slope_dd;
    } else if (kSlopes != Slopes::kNone) {
      first[i] = T(0.5) * (kSlopes == Slopes::kOfX ? pixel.slope_m + pixel.slope_d : pixel.slope_m - pixel.slope_d);
      second[i] = pixel.slope_mm;
      third[i] = pixel.slope_dd;
    }
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void pixels_of(
    const Moments<T>& moments, const SsimConstants<T>& constants, Slopes slopes, int64_t count, T* losses,
    T* const (&maps)[4]) {
  switch (slopes) {
    case Slopes::kNone: return pixels<Slopes::kNone>(moments, constants, count, losses, maps);
    case Slopes::kOfX: return pixels<Slopes::kOfX>(moments, constants, count, losses, maps);
    case Slopes::kOfY: return pixels<Slopes::kOfY>(moments, constants, count, losses, maps);
    case Slopes::kOfBoth: return pixels<Slopes::kOfBoth>(moments, constants, count, losses, maps);
  }
}

template <typename T>
FASTGAN_HOST_DEVICE T sign_of(T value) {
  return static_cast<T>(value > 0) - static_cast<T>(value < 0);
}

template <Slopes kSlopes, typename T>
FASTGAN_HOST_DEVICE void gradients(const GradientRow<T>& row, int64_t count, T* x, T* y) {
  const T *m = row.m, *d = row.d;
  const T *first = row.maps[0], *second = row.maps[1], *third = row.maps[2], *fourth = row.maps[3];
  const T offset_m = row.offset_m, offset_d = row.offset_d;
  const T factor = row.factor, absolute_factor = row.absolute_factor;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T absolute = absolute_factor * sign_of(d[i]);
    if (kSlopes == Slopes::kOfBoth) {
      const T of_m = first[i] + (m[i] - offset_m) * third[i], of_d = second[i] + (d[i] - offset_d) * fourth[i];
      x[i] = factor * (of_m + of_d) + absolute;
      y[i] = factor * (of_m - of_d) - absolute;
    } else if (kSlopes == Slopes::kOfX) {
      x[i] = factor * (first[i] + (m[i] - offset_m) * second[i] + (d[i] - offset_d) * third[i]) + absolute;
    } else {
      y[i] = factor * (first[i] + (m[i] - offset_m) * second[i] - (d[i] - offset_d) * third[i]) - absolute;
    }
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void gradients_of(const GradientRow<T>& row, Slopes slopes, int64_t count, T* x, T* y) {
  switch (slopes) {
    case Slopes::kNone: return;
    case Slopes::kOfX: return gradients<Slopes::kOfX>(row, count, x, y);
    case Slopes::kOfY: return gradients<Slopes::kOfY>(row, count, x, y);
    case Slopes::kOfBoth: return gradients<Slopes::kOfBoth>(row, count, x, y);
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void halves(const T* x, const T* y, int64_t count, T* m, T* d) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T a = T(0.5) * x[i], b = T(0.5) * y[i];
    m[i] = a + b;
    d[i] = a - b;
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void scaled_sum(const T* source, T factor, int64_t count, T* target) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) target[i] += factor * source[i];
}

template <bool kAbsolute, typename T>
FASTGAN_HOST_DEVICE double sum(const T* values, int64_t count) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < count; ++i) total += kAbsolute && values[i] < 0 ? -values[i] : values[i];
  return static_cast<double>(total);
}

}  // namespace

// --- one version for each instruction set
// -----------------------------------------------------------------------------

FASTGAN_CLONES void filter_down(
    const Window<float>& window, const float* rows, int64_t stride, int64_t count, float* result) {
  down(window, rows, stride, count, result);
}
FASTGAN_CLONES void filter_down(
    const Window<double>& window, const double* rows, int64_t stride, int64_t count, double* result) {
  down(window, rows, stride, count, result);
}
FASTGAN_CLONES void moments_down(
    const Window<float>& window, const float* rows, float offset, int64_t stride, int64_t count, float* means,
    float* variances) {
  moments_down_of(window, rows, offset, stride, count, means, variances);
}
FASTGAN_CLONES void moments_down(
    const Window<double>& window, const double* rows, double offset, int64_t stride, int64_t count, double* means,
    double* variances) {
  moments_down_of(window, rows, offset, stride, count, means, variances);
}
FASTGAN_CLONES void moments_along(
    const Window<float>& window, const float* means, const float* variances, int64_t count, float* mean,
    float* variance) {
  moments_along_of(window, means, variances, count, mean, variance);
}
FASTGAN_CLONES void moments_along(
    const Window<double>& window, const double* means, const double* variances, int64_t count, double* mean,
    double* variance) {
  moments_along_of(window, means, variances, count, mean, variance);
}
FASTGAN_CLONES void filter_along(const Window<float>& window, const float* row, int64_t count, float* result) {
  along(window, row, count, result);
}
FASTGAN_CLONES void filter_along(const Window<double>& window, const double* row, int64_t count, double* result) {
  along(window, row, count, result);
}
FASTGAN_CLONES void write_pixels(
    const Moments<float>& moments, const SsimConstants<float>& constants, Slopes slopes, int64_t count, float* losses,
    float* const (&maps)[4]) {
  pixels_of(moments, constants, slopes, count, losses, maps);
}
FASTGAN_CLONES void write_pixels(
    const Moments<double>& moments, const SsimConstants<double>& constants, Slopes slopes, int64_t count,
    double* losses, double* const (&maps)[4]) {
  pixels_of(moments, constants, slopes, count, losses, maps);
}
FASTGAN_CLONES void write_gradients(const GradientRow<float>& row, Slopes slopes, int64_t count, float* x, float* y) {
  gradients_of(row, slopes, count, x, y);
}
FASTGAN_CLONES void write_gradients(
    const GradientRow<double>& row, Slopes slopes, int64_t count, double* x, double* y) {
  gradients_of(row, slopes, count, x, y);
}
FASTGAN_CLONES void halve(const float* x, const float* y, int64_t count, float* m, float* d) {
  halves(x, y, count, m, d);
}
FASTGAN_CLONES void halve(const double* x, const double* y, int64_t count, double* m, double* d) {
  halves(x, y, count, m, d);
}
FASTGAN_CLONES void add_scaled(const float* source, float factor, int64_t count, float* target) {
  scaled_sum(source, factor, count, target);
}
FASTGAN_CLONES void add_scaled(const double* source, double factor, int64_t count, double* target) {
  scaled_sum(source, factor, count, target);
}
FASTGAN_CLONES double sum_of(const float* values, int64_t count) { return sum<false>(values, count); }
FASTGAN_CLONES double sum_of(const double* values, int64_t count) { return sum<false>(values, count); }
FASTGAN_CLONES double absolute_sum_of(const float* values, int64_t count) { return sum<true>(values, count); }
FASTGAN_CLONES double absolute_sum_of(const double* values, int64_t count) { return sum<true>(values, count); }

}  // namespace fastgan
