// Tests of the static library's sweeps over feature maps, in both memory orders: distances, moments, and matching of
// lists, against the formulas in double.
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "cpu/feature_distance_sweep.h"
#include "cpu/feature_matching_sweep.h"
#include "cpu/feature_moments_sweep.h"
#include "math/philox.h"

using namespace fastgan;

namespace {

constexpr int64_t kSamples = 2, kChannels = 37, kPixels = 1201;

// Values in [-1, 1]. Element (sample, channel, pixel) has the same value in both memory orders.
std::vector<float> features(uint64_t seed, bool channels_last) {
  std::vector<float> values(kSamples * kChannels * kPixels);
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t sample = i / (kChannels * kPixels), rest = i % (kChannels * kPixels);
    const int64_t channel = channels_last ? rest % kChannels : rest / kPixels;
    const int64_t pixel = channels_last ? rest / kChannels : rest % kPixels;
    values[i] = 2 * uniform(philox(seed, (sample * kChannels + channel) * kPixels + pixel).words[0]) - 1;
  }
  return values;
}

void distances_follow_their_formula(int power, bool normalize, bool channels_last) {
  const std::vector<float> x = features(1, channels_last), y = features(2, channels_last);
  std::vector<double> weights;
  for (int64_t c = 0; c < kChannels; ++c) weights.push_back(0.5 + 0.01 * double(c));
  std::vector<float> direction_x(x.size()), direction_y(y.size());
  FeatureOptions options;
  options.power = power;
  options.normalize = normalize;
  FeatureDistanceSweep sweep(
      {kSamples, kChannels, kPixels, channels_last}, options, weights, x.data(), Dtype::kFloat32, y.data(),
      Dtype::kFloat32, direction_x.data(), direction_y.data());
  for (int64_t block = sweep.blocks() - 1; block >= 0; --block) sweep.run(block);

  for (int64_t n = 0; n < kSamples; ++n) {
    double expected = 0;
    for (int64_t p = 0; p < kPixels; ++p) {
      const auto index = [&](int64_t c) {
        return n * kChannels * kPixels + (channels_last ? p * kChannels + c : c * kPixels + p);
      };
      double norm_x = 1, norm_y = 1, along_x = 0, along_y = 0;
      if (normalize) {
        norm_x = norm_y = 0;
        for (int64_t c = 0; c < kChannels; ++c) {
          norm_x += std::pow(double(x[index(c)]), 2);
          norm_y += std::pow(double(y[index(c)]), 2);
        }
        norm_x = std::sqrt(norm_x);
        norm_y = std::sqrt(norm_y);
      }
      std::vector<double> slopes(kChannels);
      for (int64_t c = 0; c < kChannels; ++c) {
        const double difference = x[index(c)] / norm_x - y[index(c)] / norm_y;
        expected += weights[c] * std::pow(std::fabs(difference), power);
        slopes[c] = weights[c] * (power == 2 ? 2 * difference : difference > 0 ? 1 : -1);
        along_x += slopes[c] * x[index(c)];
        along_y += slopes[c] * y[index(c)];
      }
      for (int64_t c = 0; c < kChannels; ++c) {
        const double part_x = normalize ? along_x / std::pow(norm_x, 3) * x[index(c)] : 0;
        const double part_y = normalize ? along_y / std::pow(norm_y, 3) * y[index(c)] : 0;
        CHECK_CLOSE(direction_x[index(c)], slopes[c] / norm_x - part_x, 2e-6);
        CHECK_CLOSE(direction_y[index(c)], part_y - slopes[c] / norm_y, 2e-6);
      }
    }
    CHECK_CLOSE(sweep.distance(n), expected / kPixels, 1e-6 * expected / kPixels);
  }
}

void equal_features_have_no_distance(bool channels_last) {
  const std::vector<float> x = features(1, channels_last);
  FeatureOptions options;
  options.normalize = true;
  FeatureDistanceSweep sweep(
      {kSamples, kChannels, kPixels, channels_last}, options, std::vector<double>(kChannels, 1.0), x.data(),
      Dtype::kFloat32, x.data(), Dtype::kFloat32, nullptr, nullptr);
  for (int64_t block = 0; block < sweep.blocks(); ++block) sweep.run(block);
  CHECK(sweep.distance(0) == 0 && sweep.distance(1) == 0);
}

// Of maps whose mean is large beside their deviations.
void moments_and_their_gradients_follow_their_formula(bool channels_last) {
  std::vector<float> x = features(1, channels_last), y = features(2, channels_last);
  for (size_t i = 0; i < x.size(); ++i) y[i] = 0.5f * (x[i] + y[i]) - 20, x[i] += 30;
  FeatureMomentsSweep sweep(
      {kSamples, kChannels, kPixels, channels_last}, x.data(), Dtype::kFloat32, y.data(), Dtype::kFloat32);
  for (int64_t block = sweep.blocks() - 1; block >= 0; --block) sweep.run(block);
  const auto index = [&](int64_t plane, int64_t p) {
    const int64_t n = plane / kChannels, c = plane % kChannels;
    return n * kChannels * kPixels + (channels_last ? p * kChannels + c : c * kPixels + p);
  };
  std::vector<PlaneSlopes> slopes;
  for (int64_t plane = 0; plane < kSamples * kChannels; ++plane) {
    double mean_x = 0, mean_y = 0, xx = 0, yy = 0, xy = 0;
    for (int64_t p = 0; p < kPixels; ++p) {
      mean_x += x[index(plane, p)] / double(kPixels);
      mean_y += y[index(plane, p)] / double(kPixels);
    }
    for (int64_t p = 0; p < kPixels; ++p) {
      const double a = x[index(plane, p)] - mean_x, b = y[index(plane, p)] - mean_y;
      xx += a * a;
      yy += b * b;
      xy += a * b;
    }
    const PairMoments moments = sweep.moments(plane);
    CHECK(moments.count == kPixels);
    CHECK_CLOSE(moments.x / kPixels, mean_x, 1e-6);
    CHECK_CLOSE(moments.y / kPixels, mean_y, 1e-6);
    CHECK_CLOSE(moments.xx, xx, 1e-6 * xx);
    CHECK_CLOSE(moments.yy, yy, 1e-6 * yy);
    CHECK_CLOSE(moments.xy, xy, 1e-6 * xx);
    slopes.push_back({mean_x, mean_y, mean_x - double(float(mean_x)), mean_y - double(float(mean_y)), 1, 2, 3, 4, 5});
  }
  std::vector<float> grad_x(x.size()), grad_y(y.size());
  for (int64_t block = 0; block < sweep.blocks(); ++block) {
    sweep.write_gradients(block, slopes, grad_x.data(), nullptr);
    sweep.write_gradients(block, slopes, nullptr, grad_y.data());
  }
  for (int64_t plane = 0; plane < kSamples * kChannels; ++plane) {
    for (int64_t p = 0; p < kPixels; ++p) {
      const int64_t i = index(plane, p);
      const double a = x[i] - slopes[plane].mean_x, b = y[i] - slopes[plane].mean_y;
      CHECK_CLOSE(grad_x[i], 1 + 3 * a + 5 * b, 2e-6);
      CHECK_CLOSE(grad_y[i], 2 + 4 * b + 5 * a, 2e-6);
    }
  }
}

void lists_of_features_have_a_weighted_distance() {
  const std::vector<float> x = features(1, false), y = features(2, false);
  const int64_t counts[3] = {1, 1000, 4097}, length = 1000;
  std::vector<FeaturePair> pairs;
  double expected = 0;
  for (int64_t i = 0; i < 3; ++i) {
    const double slope = 0.5 * double(i) - 0.3;
    pairs.push_back({x.data() + i, y.data(), Dtype::kFloat32, Dtype::kFloat32, counts[i], slope});
    for (int64_t j = 0; j < counts[i]; ++j) expected += slope * std::fabs(double(x[i + j]) - y[j]);
  }
  FeatureMatchingSweep sweep(pairs, length);
  CHECK(sweep.segments() == 7);
  std::vector<int8_t> signs(7 * length, 9);
  for (int64_t segment = 6; segment >= 0; --segment) sweep.run(segment, signs.data() + segment * length);
  CHECK_CLOSE(sweep.loss(), expected, 1e-3);
  for (int64_t j = 0; j < length; ++j) {
    const float difference = x[2 + j] - y[j];
    CHECK(signs[2 * length + j] == (difference > 0) - (difference < 0));
    CHECK(j == 0 || signs[j] == 0);  // beyond the end of the first pair
  }
  const int8_t some[4] = {1, -1, 0, 2};
  float applied[4];
  apply_signs(some, 0.5, applied, Dtype::kFloat32, 4);
  CHECK(applied[0] == 0.5f && applied[1] == -0.5f && applied[2] == 0 && std::isnan(applied[3]));
}

}  // namespace

int main() {
  for (const bool channels_last : {false, true}) {
    for (const int power : {1, 2}) {
      for (const bool normalize : {false, true}) distances_follow_their_formula(power, normalize, channels_last);
    }
    equal_features_have_no_distance(channels_last);
    moments_and_their_gradients_follow_their_formula(channels_last);
  }
  lists_of_features_have_a_weighted_distance();
  std::puts("13 passed, 0 failed");
}
