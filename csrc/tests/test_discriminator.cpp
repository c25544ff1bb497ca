// Tests of the static library's sweeps around a discriminator: squared norms, inner products of gradients, bias and
// activation, adversarial losses.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/adversarial_sweep.h"
#include "cpu/bias_act_sweep.h"
#include "cpu/bias_leaky_relu_sweep.h"
#include "cpu/gradient_budget_sweep.h"
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

// Numbers of gradients that fill groups of rows partly, and of elements that fill blocks and chunks partly.
void gradients_have_their_inner_products_and_weighted_sum() {
  for (const int64_t count : {1, 2, 3, 4, 5, 7, 10, 17}) {
    for (const int64_t elements : {1, 1023, 1025, 40001}) {
      std::vector<std::vector<float>> gradients(count);
      std::vector<const void*> data(count);
      std::vector<double> weights(count);
      for (int64_t t = 0; t < count; ++t) {
        gradients[t] = noise(5 + t, elements);
        data[t] = gradients[t].data();
        weights[t] = 0.5 * double(t) - 1;
      }
      std::vector<float> total(elements);
      GradientBudgetSweep sweep(data, weights, Dtype::kFloat32, elements, total.data());
      for (int64_t block = sweep.blocks() - 1; block >= 0; --block) sweep.run(block);
      const std::vector<double> gram = sweep.gram();
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t j = 0; j < count; ++j) {
          double expected = 0;
          for (int64_t e = 0; e < elements; ++e) expected += double(gradients[i][e]) * gradients[j][e];
          CHECK_CLOSE(gram[i * count + j], expected, 2e-6 * double(elements));
          CHECK(gram[i * count + j] == gram[j * count + i]);
        }
      }
      for (int64_t e = 0; e < elements; ++e) {
        double expected = 0;
        for (int64_t t = 0; t < count; ++t) expected += weights[t] * gradients[t][e];
        CHECK_CLOSE(total[e], expected, 2e-5);
      }
    }
  }
}

// In both memory orders, compares values, gradients and the sums for the bias with a computation element by element.
void leaky_relu_matches_element_by_element() {
  constexpr int64_t kOuter = 2, kChannels = 5, kLength = 1030;
  const std::vector<float> x = noise(2, kOuter * kChannels * kLength), bias = {0.5f, -0.25f, 0, 1, -1};
  for (const ChannelLayout layout : {ChannelLayout{kOuter, kChannels, kLength}, {kOuter * kLength, kChannels, 1}}) {
    const BiasLeakyReluSweep sweep(layout, Dtype::kFloat32, {0.2, 1.5, 2.0});
    std::vector<float> y(x.size()), grad(x.size());
    std::vector<uint8_t> codes(x.size());
    std::vector<double> sums = sweep.runs().new_sums();
    for (int64_t block = 0; block < sweep.runs().blocks(); ++block) {
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
    const std::vector<double> totals = sweep.runs().channel_sums(sums);
    for (int64_t c = 0; c < kChannels; ++c) CHECK_CLOSE(totals[c], expected_sums[c], 1e-3);
  }
}

template <Activation kAct>
void activation_is_exact_to_float(double (*exact)(double)) {
  const auto check = [exact](float x) {
    const double value = exact(x);
    CHECK_CLOSE(activation<kAct>(x), value, 6e-7 * std::fabs(value) + 1e-37);
    const Derivatives<float> slopes = derivatives<kAct>(x);
    const Derivatives<double> expected = derivatives<kAct>(double(x));
    // Beside rounding, near where a derivative changes its sign, and where floats end.
    const double least = std::fabs(x) < 4 ? 4e-7 : 1e-37;
    CHECK_CLOSE(slopes.first, expected.first, 1e-6 * std::fabs(expected.first) + least);
    CHECK_CLOSE(slopes.second, expected.second, 1e-6 * std::fabs(expected.second) + least);
    // The derivatives in double are those of the function.
    const double step = 1e-5;
    if (std::fabs(x) < 2 * step || std::fabs(x) > 30) return;
    CHECK_CLOSE(expected.first, (exact(x + step) - exact(x - step)) / (2 * step), 1e-8);
    const double rise = derivatives<kAct>(x + step).first - derivatives<kAct>(x - step).first;
    CHECK_CLOSE(expected.second, rise / (2 * step), 1e-8);
  };
  for (const float x : {0.0f, 1e-4f, 1e-7f, 1e-30f, 0.34f, 0.35f, 40.0f, 80.0f}) {
    check(x);
    check(-x);
  }
  for (int i = -8000; i <= 8000; ++i) check(i * 1.25e-3f);
}

void activations_and_their_derivatives_are_exact_to_float() {
  activation_is_exact_to_float<Activation::kTanh>([](double x) { return std::tanh(x); });
  activation_is_exact_to_float<Activation::kSigmoid>([](double x) { return 1 / (1 + std::exp(-x)); });
  activation_is_exact_to_float<Activation::kElu>([](double x) { return x > 0 ? x : std::expm1(x); });
  activation_is_exact_to_float<Activation::kSelu>(
      [](double x) { return kSeluScale * (x > 0 ? x : kSeluAlpha * std::expm1(x)); });
  activation_is_exact_to_float<Activation::kSoftplus>(
      [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); });
  activation_is_exact_to_float<Activation::kSwish>([](double x) { return x / (1 + std::exp(-x)); });
}

// In both memory orders, compares double backward and its sums for the bias with a computation element by element.
void bias_act_matches_element_by_element() {
  constexpr int64_t kOuter = 2, kChannels = 5, kLength = 1030;
  const size_t count = kOuter * kChannels * kLength;
  const std::vector<float> x = noise(5, count), grad = noise(6, count), tangent = noise(7, count);
  const std::vector<float> bias = {0.5f, -0.25f, 0, 1, -1}, tangent_bias = {1, 2, -1, 0.5f, 0};
  for (const ChannelLayout layout : {ChannelLayout{kOuter, kChannels, kLength}, {kOuter * kLength, kChannels, 1}}) {
    const BiasActSweep sweep(layout, Dtype::kFloat32, {Activation::kSwish, 1.5, 2.0});
    std::vector<float> y(count), grad_grad(count), grad_x(count);
    std::vector<double> sums = sweep.runs().new_sums();
    for (int64_t block = 0; block < sweep.runs().blocks(); ++block) {
      sweep.activate(block, x.data(), bias.data(), y.data());
      sweep.double_backward(
          block, {grad.data(), tangent.data(), tangent_bias.data(), x.data(), bias.data(), grad_grad.data(),
                  grad_x.data(), sums.data()});
    }
    std::vector<double> expected_sums(kChannels, 0.0);
    for (size_t i = 0; i < count; ++i) {
      const int64_t channel = int64_t(i) / layout.length % kChannels;
      const double z = double(x[i]) + bias[channel], value = 1.5 * activation<Activation::kSwish>(z);
      const bool clamped = std::fabs(value) > 2;
      const Derivatives<double> slopes = derivatives<Activation::kSwish>(z);
      const double along = double(tangent[i]) + tangent_bias[channel];
      CHECK_CLOSE(y[i], clamped ? std::copysign(2.0, value) : value, 2e-6);
      CHECK_CLOSE(grad_grad[i], clamped ? 0 : 1.5 * slopes.first * along, 4e-6);
      CHECK_CLOSE(grad_x[i], clamped ? 0 : 1.5 * slopes.second * along * grad[i], 8e-6);
      expected_sums[channel] += grad_x[i];
    }
    const std::vector<double> totals = sweep.runs().channel_sums(sums);
    for (int64_t c = 0; c < kChannels; ++c) CHECK_CLOSE(totals[c], expected_sums[c], 1e-3);
  }
}

// Within four units in the last place, even where the result is tiny.
void softplus_is_exact_to_float() {
  const auto check = [](float x) {
    const Softplus<float> soft = softplus(x);
    const double rest = std::log1p(std::exp(-std::fabs(double(x))));
    const double slope = 1 / (1 + std::exp(-double(x))), complement = 1 / (1 + std::exp(double(x)));
    CHECK(soft.positive == std::max(x, 0.0f));
    CHECK_CLOSE(soft.rest, rest, 4e-7 * rest);
    CHECK_CLOSE(soft.slope, slope, 4e-7 * slope);
    CHECK_CLOSE(soft.complement, complement, 4e-7 * complement);
  };
  for (const float x : {0.0f, 1e-4f, 1e-30f, 1e-45f, 87.3f}) {
    check(x);
    check(-x);
  }
  for (int i = -87300; i <= 87300; ++i) check(i * 1e-3f);
}

void softplus_of_large_and_infinite_numbers_is_the_limit() {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const float x : {87.4f, 87.6f, 87.7f, 88.0f, 88.1f, 1e4f, 1e30f, 3e38f, infinity}) {
    const Softplus<float> above = softplus(x), below = softplus(-x);
    CHECK(above.positive == x && above.slope == 1 && below.positive == 0 && below.complement == 1);
    const double tiny = std::exp(-double(x));
    for (const float part : {above.rest, above.complement, below.rest, below.slope}) {
      CHECK(part >= 0);
      CHECK_CLOSE(part, tiny, x < 87.68f ? 1e-6 * tiny : 9e-39);
      CHECK(x < 87.68f || part == 0);
    }
  }
  for (const float x : {nan, -nan}) {
    const Softplus<float> soft = softplus(x);
    CHECK(std::isnan(soft.rest) && std::isnan(soft.slope) && std::isnan(soft.complement));
  }
}

void the_hinge_loss_has_its_slopes_and_statistics() {
  const std::vector<float> real = {0.5f, 2.0f, -1.0f, 4.0f}, fake = {-2.0f, 0.5f};
  float real_slopes[4], fake_slopes[2];
  AdversarialSweep sweep(
      {Game::kHinge, 1.0, 1.0, 0.0},
      {{real.data(), Dtype::kFloat32, 4, true, real_slopes}, {fake.data(), Dtype::kFloat32, 2, false, fake_slopes}});
  for (int64_t block = 0; block < sweep.blocks(); ++block) sweep.run(block);
  CHECK_CLOSE(sweep.loss(), (0.5 + 2) / 4 + 1.5 / 2, 1e-6);
  CHECK(real_slopes[0] == -0.25f && real_slopes[1] == 0 && fake_slopes[0] == 0 && fake_slopes[1] == 0.5f);
  double statistics[8];
  sweep.statistics(statistics);
  CHECK_CLOSE(statistics[0], 1.375, 1e-6);
  CHECK(statistics[2] == 0.75 && statistics[3] == 0.5 && statistics[6] == 0.5 && statistics[7] == 0.5);
}

// Includes counts that leave blocks, chunks and vectors partly filled.
void pairs_have_their_loss_and_slopes() {
  for (const int64_t count : {1, 7, 17, 1023, 4097, 10001}) {
    const std::vector<float> real = noise(3, count), fake = noise(4, count);
    for (const bool generator : {false, true}) {
      std::vector<float> real_slopes(count), fake_slopes(count);
      AdversarialSweep sweep(
          {Game::kRelativistic, -1.0, 1.0, 0.0, generator},
          {{real.data(), Dtype::kFloat32, count, true, real_slopes.data()},
           {fake.data(), Dtype::kFloat32, count, false, fake_slopes.data()}});
      for (int64_t block = 0; block < sweep.blocks(); ++block) sweep.run(block);
      double loss = 0;
      for (int64_t i = 0; i < count; ++i) {
        const double difference = generator ? double(fake[i]) - real[i] : double(real[i]) - fake[i];
        loss += std::log1p(std::exp(difference)) / double(count);
        const double slope = 1 / (1 + std::exp(-difference)) / double(count);
        CHECK_CLOSE((generator ? fake_slopes : real_slopes)[i], slope, 6e-7 * slope);
        CHECK(real_slopes[i] == -fake_slopes[i]);
      }
      CHECK_CLOSE(sweep.loss(), loss, 2e-7 * loss);
    }
  }
}

}  // namespace

int main() {
  squared_norms_are_sums_of_squares();
  gradients_have_their_inner_products_and_weighted_sum();
  leaky_relu_matches_element_by_element();
  activations_and_their_derivatives_are_exact_to_float();
  bias_act_matches_element_by_element();
  softplus_is_exact_to_float();
  softplus_of_large_and_infinite_numbers_is_the_limit();
  the_hinge_loss_has_its_slopes_and_statistics();
  pairs_have_their_loss_and_slopes();
  std::puts("9 passed, 0 failed");
}
