// Tests of the static library's distortions: the vectorized sweeps against the arithmetic of single pixels, and
// gradients against the transposes of the forward passes.
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "cpu/blur_sweep.h"
#include "cpu/perspective_sweep.h"
#include "cpu/philox_words.h"
#include "cpu/photometric_sweep.h"

using namespace fastgan;

namespace {

constexpr int64_t kImages = 2, kHeight = 23, kWidth = 37, kPlane = kHeight * kWidth, kSize = kImages * 3 * kPlane;

ImageView view(std::vector<float>& values) {
  ImageView result;
  result.data = values.data();
  const int64_t sizes[4] = {kImages, 3, kHeight, kWidth}, strides[4] = {3 * kPlane, kPlane, kWidth, 1};
  for (int i = 0; i < 4; ++i) {
    result.sizes[i] = sizes[i];
    result.strides[i] = strides[i];
  }
  return result;
}

std::vector<float> noise(uint64_t seed) {
  std::vector<float> values(kSize);
  for (int64_t i = 0; i < kSize; ++i) values[i] = uniform(philox(seed, i).words[0]);
  return values;
}

double inner(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

void words_match_philox() {
  // The last counter crosses into the upper word.
  for (const uint64_t counter : {uint64_t(0), uint64_t(123456789), (uint64_t(1) << 32) - 40}) {
    constexpr int64_t kCount = 3 * kPhiloxBatch;
    std::vector<uint32_t> r[12];
    for (auto& row : r) row.resize(kCount);
    const StreamWords words = {
        {r[0].data(), r[1].data(), r[2].data(), r[3].data()},
        {r[4].data(), r[5].data(), r[6].data(), r[7].data()},
        {r[8].data(), r[9].data(), r[10].data(), r[11].data()}};
    philox_words(0xfedcba9876543210, counter, kCount - 5, words);
    bool same = true;
    for (int64_t i = 0; i < kCount; ++i) {
      for (int stream = 0; stream < kStreams; ++stream) {
        const Philox expected = philox(0xfedcba9876543210, counter + i, stream);
        for (int k = 0; k < 4; ++k) same = same && words[stream][k][i] == expected.words[k];
      }
    }
    CHECK(same);
  }
}

void logarithm_and_direction_are_exact_to_float() {
  double worst_logarithm = 0, worst_direction = 0;
  for (uint32_t k = 0; k < (1u << 24); k += 97) {
    const float t = static_cast<float>(k) * 5.9604644775390625e-8f, x = t + 5.9604644775390625e-8f;
    const double logarithm = std::log(double(x));
    const double error = std::fabs(natural_logarithm(x) - logarithm);
    worst_logarithm = std::fmax(worst_logarithm, error / std::fmax(std::fabs(logarithm), 1e-7));
    const Direction<float> d = direction(t);
    const Direction<double> exact = direction(double(t));
    worst_direction = std::fmax(worst_direction, std::fabs(d.cosine - exact.cosine) + std::fabs(d.sine - exact.sine));
  }
  CHECK(worst_logarithm <= 4e-7);
  CHECK(worst_direction <= 3e-7);
}

void photometric_sweep_matches_pixel_by_pixel() {
  std::vector<float> x = noise(1), z(kSize), gradient = noise(2), result(kSize);
  std::vector<uint8_t> masks(kImages * kPlane);
  const std::vector<Photometric<double>> parameters = {
      {0.1, 1.4, {0.1, -0.2, 0.0}, 0.3}, {0.0, 0.6, {0.0, 0.3, 0.1}, 1.0}};
  const PhotometricSweep forward(view(x), view(z), parameters, masks.data());
  for (int64_t block = 0; block < forward.blocks(); ++block) forward.forward(block, 99);
  const PhotometricSweep backward(view(gradient), view(result), parameters, masks.data());
  for (int64_t block = 0; block < backward.blocks(); ++block) backward.backward(block);
  double worst = 0;
  bool same_masks = true;
  for (int64_t n = 0; n < kImages; ++n) {
    for (int64_t i = 0; i < kPlane; ++i) {
      const auto at = [&](std::vector<float>& v, int c) { return double(v[(n * 3 + c) * kPlane + i]); };
      const int64_t number = n * kPlane + i;
      const auto normal_of = [&](int c) {
        const Philox random = philox(99, number / kQuad, c);
        return normal_quad<double>(random.words[0], random.words[1], random.words[2], random.words[3])
            .normal[number % kQuad];
      };
      const Pixel<double> normal = {normal_of(0), normal_of(1), normal_of(2)};
      int32_t mask = 0;
      const Pixel<double> pixel = {at(x, 0), at(x, 1), at(x, 2)},
                          grad = {at(gradient, 0), at(gradient, 1), at(gradient, 2)};
      const auto expected = photometric_pixel(pixel, normal, parameters[n], mask);
      same_masks = same_masks && mask == masks[n * kPlane + i];
      const auto expected_grad = photometric_gradient(grad, parameters[n], mask);
      worst = std::fmax(worst, std::fabs(expected.red - at(z, 0)) + std::fabs(expected_grad.red - at(result, 0)));
      worst = std::fmax(worst, std::fabs(expected.blue - at(z, 2)) + std::fabs(expected_grad.blue - at(result, 2)));
    }
  }
  CHECK(same_masks);
  CHECK(worst <= 2e-6);
}

void blurring_with_the_turned_kernel_is_the_transpose() {
  std::vector<double> kernels(kImages * 49), turned(kernels.size());
  for (int64_t n = 0; n < kImages; ++n) {
    for (int i = 0; i < 49; ++i) kernels[n * 49 + i] = i % 5 ? uniform(philox(3, n * 49 + i).words[0]) : 0.0;
    for (int i = 0; i < 49; ++i) turned[n * 49 + i] = kernels[n * 49 + 48 - i];
  }
  std::vector<float> x = noise(4), y = noise(5), blurred(kSize), transposed(kSize);
  const BlurSweep forward(view(x), view(blurred), kernels, 7), backward(view(y), view(transposed), turned, 7);
  for (int64_t block = 0; block < forward.blocks(); ++block) forward.run(block);
  for (int64_t block = 0; block < backward.blocks(); ++block) backward.run(block);
  CHECK_CLOSE(inner(blurred, y) / inner(x, transposed), 1.0, 1e-6);
  double corner = 0;  // taps (3, 3) .. (6, 6) read the image's first pixels
  for (int i = 3; i < 7; ++i) {
    for (int j = 3; j < 7; ++j) corner += kernels[i * 7 + j] * x[(i - 3) * kWidth + j - 3];
  }
  CHECK_CLOSE(blurred[0], corner, 1e-5);
}

void warping_back_is_the_transpose() {
  const std::vector<Homography> homographies = {
      {{0.9, 0.1, 1.3, -0.05, 1.1, -0.7, 0.001, -0.002, 1.0}}, {{0.0, 1.2, 2.0, -1.1, 0.0, 22.0, 0.0, 0.0, 1.0}}};
  std::vector<float> x = noise(6), y = noise(7), warped(kSize), transposed(kSize);
  const WarpForward forward(view(x), view(warped), ImageView(), homographies);
  const WarpBackward backward(view(y), view(transposed), homographies);
  for (int64_t block = 0; block < forward.blocks(); ++block) forward.run(block);
  for (int64_t block = 0; block < backward.blocks(); ++block) backward.run(block);
  CHECK_CLOSE(inner(warped, y) / inner(x, transposed), 1.0, 1e-6);
}

void the_identity_copies_and_the_fill_is_seen_outside() {
  const Homography identity = {{1, 0, 0, 0, 1, 0, 0, 0, 1}}, away = {{1, 0, 1000, 0, 1, 0, 0, 0, 1}};
  std::vector<float> x = noise(8), fill = noise(9), warped(kSize);
  const WarpForward forward(view(x), view(warped), view(fill), {identity, away});
  for (int64_t block = 0; block < forward.blocks(); ++block) forward.run(block);
  bool copied = true, filled = true;
  for (int64_t i = 0; i < 3 * kPlane; ++i) {
    copied = copied && warped[i] == x[i];
    filled = filled && warped[3 * kPlane + i] == fill[3 * kPlane + i];
  }
  CHECK(copied);
  CHECK(filled);
}

}  // namespace

int main() {
  words_match_philox();
  logarithm_and_direction_are_exact_to_float();
  photometric_sweep_matches_pixel_by_pixel();
  blurring_with_the_turned_kernel_is_the_transpose();
  warping_back_is_the_transpose();
  the_identity_copies_and_the_fill_is_seen_outside();
  std::puts("6 passed, 0 failed");
}
