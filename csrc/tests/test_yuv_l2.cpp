#include <random>
#include <vector>

#include "../cpu/yuv_l2_sweep.h"
#include "../math/yuv_l2.h"
#include "check.h"

using namespace fastgan;

ImageView view(std::vector<float>& data, int64_t images, int64_t height, int64_t width) {
  ImageView view;
  view.data = data.data();
  const int64_t sizes[4] = {images, 3, height, width};
  for (int i = 3, stride = 1; i >= 0; stride *= sizes[i--]) {
    view.sizes[i] = sizes[i];
    view.strides[i] = stride;
  }
  return view;
}

// The sweep against a computation pixel by pixel in double, at a size that is no multiple of a vector's.
int main() {
  constexpr int64_t kImages = 2, kHeight = 19, kWidth = 301, kPlane = kHeight * kWidth;
  std::mt19937 random(0);
  std::uniform_real_distribution<float> uniform(0, 1);
  std::vector<float> x(kImages * 3 * kPlane), y(x.size()), direction(x.size(), NAN);
  for (float& value : x) value = uniform(random);
  for (float& value : y) value = uniform(random);
  const double scales[3] = {1, 100, 50}, edge_gain = 10;

  YuvL2Sweep sweep(
      view(x, kImages, kHeight, kWidth), view(y, kImages, kHeight, kWidth), view(direction, kImages, kHeight, kWidth),
      edge_gain, scales);
  for (int64_t block = sweep.blocks(); block-- > 0;) sweep.run(block);  // in any order
  double means[3];
  sweep.channel_means(means);

  double expected[3] = {0, 0, 0};
  for (int64_t image = 0; image < kImages; ++image) {
    for (int64_t i = 0; i < kPlane; ++i) {
      double difference[3];
      for (int c = 0; c < 3; ++c) {
        const int64_t at = (image * 3 + c) * kPlane + i;
        difference[c] = double(x[at]) - double(y[at]);
      }
      const double ramps = border_ramp(i / kWidth, kHeight) * border_ramp(i % kWidth, kWidth);
      const auto pixel = yuv_l2_pixel<double>(
          difference[0], difference[1], difference[2], 1 + edge_gain * (1 - ramps), scales[0], scales[1], scales[2]);
      expected[0] += pixel.squared_y;
      expected[1] += pixel.squared_u;
      expected[2] += pixel.squared_v;
      const double directions[3] = {pixel.direction_r, pixel.direction_g, pixel.direction_b};
      for (int c = 0; c < 3; ++c) CHECK_CLOSE(direction[(image * 3 + c) * kPlane + i], directions[c], 2e-3);
    }
  }
  for (int c = 0; c < 3; ++c) CHECK_CLOSE(means[c] / (expected[c] / (kImages * kPlane)), 1.0, 1e-6);
  std::puts("1 passed, 0 failed");
}
