#pragma once

#include <cstdint>

#include "../math/ssim.h"

// The inner loops of ssim_sweep.cpp, over rows of a strip. Buffers have room for `count` rounded up to kLanes, and for
// kTogether rows where fewer are wanted: the loops compute these too, and nobody reads them.
namespace fastgan {

// A multiple of every vector's length, so that no loop has a remainder.
constexpr int64_t kLanes = 16;
// Rows that are filtered together, since they share most of the rows that they read.
constexpr int kTogether = 4;
// The radius of the usual window, 11 pixels, which has loops of its own, and the distance of its buffers' rows.
constexpr int kUsualRadius = 5;
constexpr int64_t kUsualStride = 304;

template <typename T>
struct Window {
  int64_t radius;
  const T* taps;  // [radius + 1], from the centre outwards; the window's sum is 1
};

// Filters down the columns: row j of the kTogether rows of `result` is the mean of rows j to j + 2 radius of `rows`.
void filter_down(const Window<float>& window, const float* rows, int64_t stride, int64_t count, float* result);
void filter_down(const Window<double>& window, const double* rows, int64_t stride, int64_t count, double* result);

// Means and variances in these windows, means less the offset. A variance comes from differences from the mean, or from
// a pixel with much of the window's weight: the mean square less the square of the mean loses digits where the mean is
// large against the standard deviation, as beside an edge.
void moments_down(
    const Window<float>& window, const float* rows, float offset, int64_t stride, int64_t count, float* means,
    float* variances);
void moments_down(
    const Window<double>& window, const double* rows, double offset, int64_t stride, int64_t count, double* means,
    double* variances);

// Mean and variance in the window along a row of such means and variances: its variance is the mean of their
// variances plus the variance of their means.
void moments_along(
    const Window<float>& window, const float* means, const float* variances, int64_t count, float* mean,
    float* variance);
void moments_along(
    const Window<double>& window, const double* means, const double* variances, int64_t count, double* mean,
    double* variance);

// Filters along a row: result[i] is the mean of row[i] to row[i + 2 radius].
void filter_along(const Window<float>& window, const float* row, int64_t count, float* result);
void filter_along(const Window<double>& window, const double* row, int64_t count, double* result);

// What is written of a pixel's derivatives. kOfX and kOfY: half of slope_m plus or minus slope_d, slope_mm, slope_dd,
// which is all that the gradient of one image needs; kOfBoth: half of slope_m, half of slope_d, slope_mm, slope_dd.
enum class Slopes { kNone, kOfX, kOfY, kOfBoth };

constexpr int maps_of(Slopes slopes) { return slopes == Slopes::kNone ? 0 : slopes == Slopes::kOfBoth ? 4 : 3; }

template <typename T>
struct Moments {
  const T *mean_m, *variance_m, *mean_d, *variance_d;
};

void write_pixels(
    const Moments<float>& moments, const SsimConstants<float>& constants, Slopes slopes, int64_t count, float* losses,
    float* const (&maps)[4]);
void write_pixels(
    const Moments<double>& moments, const SsimConstants<double>& constants, Slopes slopes, int64_t count,
    double* losses, double* const (&maps)[4]);

// A row of m and d and of the filtered maps, and the factors of the gradient that they give.
template <typename T>
struct GradientRow {
  const T *m, *d;
  const T* maps[4];
  T offset_m, offset_d;
  T factor;           // of what SSIM's part gives
  T absolute_factor;  // of the sign of d, the derivative of |x - y|
};

// `x` and `y` are written where `slopes` has them.
void write_gradients(const GradientRow<float>& row, Slopes slopes, int64_t count, float* x, float* y);
void write_gradients(const GradientRow<double>& row, Slopes slopes, int64_t count, double* x, double* y);

// m = (x + y) / 2, d = (x - y) / 2
void halve(const float* x, const float* y, int64_t count, float* m, float* d);
void halve(const double* x, const double* y, int64_t count, double* m, double* d);

// target += factor * source
void add_scaled(const float* source, float factor, int64_t count, float* target);
void add_scaled(const double* source, double factor, int64_t count, double* target);

double sum_of(const float* values, int64_t count);
double sum_of(const double* values, int64_t count);
double absolute_sum_of(const float* values, int64_t count);
double absolute_sum_of(const double* values, int64_t count);

}  // namespace fastgan
