#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

// Where a homography takes a pixel, and the four pixels around that place with their bilinear weights. Coordinates
// count pixels from the centre of the first one.
namespace fastgan {

struct Homography {
  double m[9];  // row by row; takes (x, y, 1) of the output to (x', y', 1) times a scale

  FASTGAN_HOST_DEVICE bool is_nan() const {
    bool found = false;
    for (double value : m) found |= value != value;
    return found;
  }
  FASTGAN_HOST_DEVICE double scale(double x, double y) const { return m[6] * x + m[7] * y + m[8]; }
  FASTGAN_HOST_DEVICE double column(double x, double y) const { return (m[0] * x + m[1] * y + m[2]) / scale(x, y); }
  FASTGAN_HOST_DEVICE double row(double x, double y) const { return (m[3] * x + m[4] * y + m[5]) / scale(x, y); }
};

// Along one axis: the first of two neighbouring pixels, and how much of each. A pixel outside [begin, end) weighs
// nothing and is named as one inside.
template <typename T, typename Index>
struct AxisTaps {
  Index first, second;
  T first_weight, second_weight;
};

// Of a coordinate that is undefined or infinite, both lie outside.
template <typename T, typename Index>
FASTGAN_HOST_DEVICE AxisTaps<T, Index> axis_taps(double coordinate, Index begin, Index end) {
  // Kept where an integer can hold it; two pixels beyond either end, nothing is left inside.
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
