// Tests of the static library's sweeps around a discriminator: squared norms, bias + leaky ReLU, adversarial losses.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/adversarial_sweep.h"
#include "cpu/bias_leaky_relu_sweep.h"
#include "cpu/squared_norm_sweep.h"
#include "math/philox.h"

using namespace fastgan;

namespace {

std::vector<float> noise(uint64_t seed, int64_t count) {
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = 4 * uniform(philox(seed, i).words[0]) - 2;
  return values;
}

void squared_norms_are_sums_of_squares() {
  constexpr int64_t kSamples = 3, kElements = 40001;
  const std::vector<float> x = noise(1, kSamples * kElements);
  SquaredNormSweep sweep(x.data(), Dtype::kFloat32, kSamples, kElements);
  for (int64_t block = sweep.blocks() - 1; block >= 0; --block) sweep.run(block);
  for (int64_t n = 0; n < kSamples; ++n) {
    double expected = 0;
    for (int64_t i = 0; i < kElements; ++i) expected += double(x[n * kElements + i]) * x[n * kElements + i];
    CHECK_CLOSE(sweep.norm(n), expected, 1e-6 * expected);
  }
  std::vector<float> scaled(x.size());
  for (int64_t block = 0; block < sweep.blocks(); ++block) sweep.scale_block(block, {1, 2, -3}, scaled.data());
  for (int64_t i = 0; i < kElements; ++i) CHECK(scaled[2 * kElements + i] == -3 * x[2 * kElements + i]);
}

// In both memory orders: the values one by one, and backward as their slopes, with the bias' sums.
void leaky_relu_is_the_element_by_element() {
  constexpr int64_t kOuter = 2, kChannels = 5, kLength = 1030;
  const std::vector<float> x = noise(2, kOuter * kChannels * kLength), bias = {0.5f, -0.25f, 0, 1, -1};
  for (const ChannelLayout layout : {ChannelLayout{kOuter, kChannels, kLength}, {kOuter * kLength, kChannels, 1}}) {
    const BiasLeakyReluSweep sweep(layout, Dtype::kFloat32, {0.2, 1.5, 2.0});
    std::vector<float> y(x.size()), grad(x.size());
    std::vector<uint8_t> codes(x.size());
    std::vector<double> sums = sweep.new_sums();
    for (int64_t block = 0; block < sweep.blocks(); ++block) {
      sweep.activate(block, x.data(), bias.data(), y.data(), codes.data());
      sweep.multiply(block, x.data(), nullptr, codes.data(), grad.data(), sums.data());
    }
    std::vector<double> expected_sums(kChannels, 0.0);
    for (size_t i = 0; i < x.size(); ++i) {
      const int64_t channel = int64_t(i) / layout.length % kChannels;
      const float t = x[i] + bias[channel], slope = t > 0 ? 1.5f : 0.3f, expected = slope * t;
      const bool clamped = std::fabs(expected) > 2;
      CHECK_CLOSE(y[i], clamped ? std::copysign(2.0, expected) : expected, 1e-6);
      CHECK_CLOSE(grad[i], clamped ? 0 : slope * x[i], 1e-6);
      expected_sums[channel] += grad[i];
    }
    const std::vector<double> totals = sweep.channel_sums(sums);
    for (int64_t c = 0; c < kChannels; ++c) CHECK_CLOSE(totals[c], expected_sums[c], 1e-3);
  }
}

void softplus_is_exact_to_float() {
  for (const float x : {-80.0f, -20.0f, -1.5f, -1e-4f, 0.0f, 1e-4f, 0.7f, 3.0f, 20.0f, 80.0f}) {
    const Softplus<float> soft = softplus(x);
    const double value = x > 0 ? x + std::log1p(std::exp(-double(x))) : std::log1p(std::exp(double(x)));
    CHECK_CLOSE(soft.value(), value, 3e-7 * value);
    CHECK_CLOSE(soft.slope, 1 / (1 + std::exp(-double(x))), 3e-7 / (1 + std::exp(-double(x))));
    CHECK_CLOSE(soft.complement, 1 / (1 + std::exp(double(x))), 3e-7 / (1 + std::exp(double(x))));
  }
  CHECK(std::isnan(softplus(std::numeric_limits<float>::quiet_NaN()).value()));
}

void the_hinge_loss_has_its_slopes_and_statistics() {
  const std::vector<float> real = {0.5f, 2.0f, -1.0f, 4.0f}, fake = {-2.0f, 0.5f};
  float real_slopes[4], fake_slopes[2];
  AdversarialSweep sweep(
      {Game::kHinge, false, 1.0, 1.0, 0.0}, {real.data(), Dtype::kFloat32, 4, real_slopes},
      {fake.data(), Dtype::kFloat32, 2, fake_slopes});
  for (int64_t block = 0; block < sweep.blocks(); ++block) sweep.run(block);
  CHECK_CLOSE(sweep.loss(), (0.5 + 2) / 4 + 1.5 / 2, 1e-6);
  CHECK(real_slopes[0] == -0.25f && real_slopes[1] == 0 && fake_slopes[0] == 0 && fake_slopes[1] == 0.5f);
  double statistics[8];
  sweep.statistics(statistics);
  CHECK_CLOSE(statistics[0], 1.375, 1e-6);
  CHECK(statistics[2] == 0.75 && statistics[3] == 0.5 && statistics[6] == 0.5 && statistics[7] == 0.5);
}

}  // namespace

int main() {
  squared_norms_are_sums_of_squares();
  leaky_relu_is_the_element_by_element();
  softplus_is_exact_to_float();
  the_hinge_loss_has_its_slopes_and_statistics();
  std::puts("4 passed, 0 failed");
}
