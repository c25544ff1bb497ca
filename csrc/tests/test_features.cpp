// Tests of the static library's feature distances: both memory orders against the formula in double.
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "cpu/feature_distance_sweep.h"
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

}  // namespace

int main() {
  for (const bool channels_last : {false, true}) {
    for (const int power : {1, 2}) {
      for (const bool normalize : {false, true}) distances_follow_their_formula(power, normalize, channels_last);
    }
    equal_features_have_no_distance(channels_last);
  }
  std::puts("10 passed, 0 failed");
}
