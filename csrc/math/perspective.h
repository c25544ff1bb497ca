#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

// The position to which a homography maps a pixel, and the four pixels around it with their bilinear weights.
// Coordinates are in pixels; the centre of the first pixel is 0.
namespace fastgan {

struct Homography {
  double m[9];  // row by row; maps (x, y, 1) of the output to (x', y', 1) times a scale

  FASTGAN_HOST_DEVICE bool is_nan() const {
    bool any = false;
    for (double value : m) any |= value != value;
    return any;
  }
  FASTGAN_HOST_DEVICE double scale(double x, double y) const { return m[6] * x + m[7] * y + m[8]; }
  FASTGAN_HOST_DEVICE double column(double x, double y) const { return (m[0] * x + m[1] * y + m[2]) / scale(x, y); }
  FASTGAN_HOST_DEVICE double row(double x, double y) const { return (m[3] * x + m[4] * y + m[5]) / scale(x, y); }
};

// Two neighbouring pixels along one axis and their weights. A pixel outside [begin, end) gets weight zero and an index
// inside, so that it can be read.
template <typename T, typename Index>
struct AxisTaps {
  Index first, second;
  T first_weight, second_weight;
};

// If the coordinate is NaN or infinite, both pixels count as outside.
template <typename T, typename Index>
FASTGAN_HOST_DEVICE AxisTaps<T, Index> axis_taps(double coordinate, Index begin, Index end) {
  // Clamped so that it fits in an integer: at two pixels beyond either end, both pixels are outside.
  const double low = static_cast<double>(begin) - 2, high = static_cast<double>(end) + 1;
  coordinate = coordinate > low ? coordinate : low;
  coordinate = coordinate < high ? coordinate : high;
  const double floored = std::floor(coordinate);
  const T fraction = static_cast<T>(coordinate - floored);
  const Index first = static_cast<Index>(floored), second = first + 1;
  const bool first_inside = (first >= begin) & (first < end), second_inside = (second >= begin) & (second < end);
  return {
      first_inside ? first : begin,
      second_inside ? second : begin,
      first_inside ? 1 - fraction : T(0),
      second_inside ? fraction : T(0),
  };
}

}  // namespace fastgan
