// Tests of the static library's structural similarity: gradients against differences, and equal images.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "check.h"
#include "cpu/ssim_sweep.h"
#include "math/philox.h"

using namespace fastgan;

namespace {

constexpr int64_t kHeight = 150, kWidth = 270, kPlane = kHeight * kWidth;

std::vector<double> noise(uint64_t seed) {
  std::vector<double> values(kPlane);
  for (int64_t i = 0; i < kPlane; ++i) values[i] = uniform(philox(seed, i).words[0]);
  return values;
}

ImageView view(std::vector<double>& data) {
  ImageView view;
  view.data = data.data();
  view.dtype = Dtype::kFloat64;
  const int64_t sizes[4] = {1, 1, kHeight, kWidth}, strides[4] = {kPlane, kPlane, kWidth, 1};
  for (int i = 0; i < 4; ++i) {
    view.sizes[i] = sizes[i];
    view.strides[i] = strides[i];
  }
  return view;
}

std::vector<double> gaussian(int radius, double sigma) {
  std::vector<double> taps;
  double sum = 0;
  for (int k = 0; k <= radius; ++k) {
    taps.push_back(std::exp(-k * k / (2 * sigma * sigma)));
    sum += k ? 2 * taps[k] : taps[k];
  }
  for (double& tap : taps) tap /= sum;
  return taps;
}

// Blocks in any order.
double loss_of(
    ImageView x, ImageView y, ImageView grad_x, ImageView grad_y, SsimPadding padding,
    const std::vector<double>& taps) {
  SsimOptions options;
  options.taps = taps;
  options.c1 = 1e-4;
  options.c2 = 9e-4;
  options.padding = padding;
  options.l1_weight = 0.3;
  SsimSweep sweep(x, y, grad_x, grad_y, options);
  for (int64_t block = sweep.blocks(); block-- > 0;) sweep.run(block);
  return sweep.losses()[0];
}

void gradients_follow_differences(SsimPadding padding, const std::vector<double>& taps) {
  std::vector<double> x = noise(1), y = noise(2), step = noise(3), grad_x(kPlane, NAN), grad_y(kPlane, NAN);
  loss_of(view(x), view(y), view(grad_x), view(grad_y), padding, taps);
  double expected_x = 0, expected_y = 0;
  for (int64_t i = 0; i < kPlane; ++i) {
    expected_x += grad_x[i] * step[i];
    expected_y += grad_y[i] * step[i];
  }
  constexpr double kSmall = 1e-7;
  const auto slope = [&](bool of_x) {
    double losses[2];
    for (int side = 0; side < 2; ++side) {
      std::vector<double> moved = of_x ? x : y;
      for (int64_t i = 0; i < kPlane; ++i) moved[i] += (side ? kSmall : -kSmall) * step[i];
      losses[side] = of_x ? loss_of(view(moved), view(y), {}, {}, padding, taps)
                          : loss_of(view(x), view(moved), {}, {}, padding, taps);
    }
    return (losses[1] - losses[0]) / (2 * kSmall);
  };
  CHECK_CLOSE(slope(true), expected_x, 1e-5 * std::fabs(expected_x));
  CHECK_CLOSE(slope(false), expected_y, 1e-5 * std::fabs(expected_y));
}

void equal_images_lose_nothing(const std::vector<double>& taps) {
  std::vector<double> x = noise(4), y = x, grad(kPlane, NAN);
  CHECK(loss_of(view(x), view(y), view(grad), {}, SsimPadding::kNone, taps) == 0);
  bool zero = true;
  for (const double value : grad) zero = zero && value == 0;
  CHECK(zero);
}

}  // namespace

int main() {
  // Five pixels, and the usual window, which has loops of its own.
  for (const std::vector<double>& taps : {std::vector<double>{0.4, 0.2, 0.1}, gaussian(5, 1.5)}) {
    for (const SsimPadding padding : {SsimPadding::kNone, SsimPadding::kZeros, SsimPadding::kReflect})
      gradients_follow_differences(padding, taps);
    equal_images_lose_nothing(taps);
  }
  std::puts("2 passed, 0 failed");
}
