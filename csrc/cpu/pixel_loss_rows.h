#pragma once

#include <cstdint>

#include "../math/pixel_loss.h"

// The inner loops of pixel_loss over the pixels of a row.
namespace fastgan {

template <typename T>
struct PenaltyRow {
  const T *values, *weights;  // weights may be null
  T* slopes;                  // may be null
  T threshold, factor;
  int64_t count;
};

// The sum of the weighed penalties; the slopes are their derivatives times the factor.
double penalize(PixelKind kind, const PenaltyRow<float>& row);
double penalize(PixelKind kind, const PenaltyRow<double>& row);

// A row without neighbours: x and y, the weights of the channels that are compared, and where the gradient goes.
template <typename T>
struct PixelRow {
  const T *x[3], *y[3], *weights[3], *column_ramp;
  T* gradient[3];
  T row_ramp, edge_gain, threshold, scales[3], factor;
  int64_t count;
};

// The sum of the weighed penalties of x - y; its derivatives times the factor are the gradient.
double sweep_pixels(PixelKind kind, PixelColour colour, const PixelRow<float>& row);
double sweep_pixels(PixelKind kind, PixelColour colour, const PixelRow<double>& row);

// Rows of values above, at and below, which may be read one element beyond both ends, and the penalties of their
// derivatives.
template <typename T>
struct SobelRow {
  const T *above, *at, *below;
  const T* weights;  // may be null
  T *down, *right;   // the derivatives' slopes; may be null
  T threshold, factor;
  int64_t count;
};

// The sum of the weighed penalties of both derivatives.
double sweep_sobel(PixelKind kind, const SobelRow<float>& row);
double sweep_sobel(PixelKind kind, const SobelRow<double>& row);

// A row of an image and the rows around it, for the pairs of neighbours that a pixel is part of. `at` and its weights
// may be read one element beyond both ends. How many neighbours there are on a side is 1, or 0 at the image's border,
// where what is read in their place does not matter. The counts are numbers, since loops that choose by a bool are not
// vectorized.
template <typename T>
struct PairRow {
  const T *above, *at, *below;
  const T *weights_above, *weights;  // of the pairs that begin there; may be null
  const T *left_counts, *right_counts;
  T* gradient;  // added to; may be null
  T threshold, down_factor, right_factor, above_count, below_count;
  int64_t count;
};

template <typename T>
struct PairSums {
  T down, right;
};

// The sums of the weighed penalties of the pairs with the pixels below and on the right.
PairSums<float> sweep_pairs(PixelKind kind, const PairRow<float>& row);
PairSums<double> sweep_pairs(PixelKind kind, const PairRow<double>& row);

void subtract(const float* a, const float* b, int64_t count, float* difference);
void subtract(const double* a, const double* b, int64_t count, double* difference);

// Multiplies by the edge gain of a row.
void apply_gain(float edge_gain, float row_ramp, const float* column_ramp, int64_t count, float* values);
void apply_gain(double edge_gain, double row_ramp, const double* column_ramp, int64_t count, double* values);

// Red, green and blue, in place, become the channels that are compared; in luma the first one.
void to_colour(PixelColour colour, float* const (&rows)[3], int64_t count);
void to_colour(PixelColour colour, double* const (&rows)[3], int64_t count);

// The transpose, of luma or YUV. In luma only the first row is read.
void from_colour(PixelColour colour, const float* const (&rows)[3], int64_t count, float* const (&rgb)[3]);
void from_colour(PixelColour colour, const double* const (&rows)[3], int64_t count, double* const (&rgb)[3]);

// Adds the derivatives by a pixel of its pairs with four neighbours, from the pairs' slopes.
void add_pairs(
    const float* above, const float* below, const float* left, const float* right, int64_t count, float* sums);
void add_pairs(
    const double* above, const double* below, const double* left, const double* right, int64_t count, double* sums);

// Rows of the slopes of Sobel's derivatives, which may be read one element beyond both ends.
template <typename T>
struct SobelSlopes {
  const T *down_above, *down_below, *right_above, *right_at, *right_below;
};

// Adds the derivatives by the values.
void add_sobel_adjoint(const SobelSlopes<float>& slopes, int64_t count, float* sums);
void add_sobel_adjoint(const SobelSlopes<double>& slopes, int64_t count, double* sums);

}  // namespace fastgan
