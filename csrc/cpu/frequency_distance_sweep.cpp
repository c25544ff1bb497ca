#include "frequency_distance_sweep.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "../math/frequency_distance.h"
#include "clones.h"

namespace fastgan {
namespace {

// Pairs per block, about: some microseconds of work.
constexpr int64_t kBlock = 8192;

enum class Kind { kRoot, kPower, kMatrix };

// Turns sums of products into the squares of an orthonormal transform.
template <typename T>
FASTGAN_HOST_DEVICE T squares_of(const T* pairs, int64_t i, T scale) {
  return scale * (pairs[2 * i] * pairs[2 * i] + pairs[2 * i + 1] * pairs[2 * i + 1]);
}

// Of all pairs, each counted once.
template <typename T>
struct Sums {
  double sum;
  T largest;
};

template <Kind kKind, bool kLog, typename T>
FASTGAN_HOST_DEVICE T weight_of(T squares, const T* matrix, int64_t i, SquareExponent<T> exponent) {
  if (kKind == Kind::kMatrix) return matrix[i];
  return frequency_weight<kKind == Kind::kRoot, kLog>(squares, exponent);
}

template <Kind kKind, bool kLog, typename T>
FASTGAN_CLONES Sums<T> sum_products(
    const T* pairs, const T* matrix, int64_t count, SquareExponent<T> exponent, T scale) {
  // In double, since the lowest frequencies are larger by orders of magnitude than all others, and products of large
  // powers would overflow.
  double sum = 0;
  T largest = 0;
#pragma omp simd reduction(+ : sum) reduction(max : largest)
  for (int64_t i = 0; i < count; ++i) {
    const T squares = squares_of(pairs, i, scale);
    const T weight = weight_of<kKind, kLog>(squares, matrix, i, exponent);
    sum += double(weight) * double(squares);
    largest = weight > largest ? weight : largest;
  }
  return {sum, largest};
}

// An infinite weight becomes 0, since its maximum is infinite, too.
template <typename T>
double product(T weight, T squares) {
  return (std::isinf(weight) ? 0.0 : double(weight)) * double(squares);
}

// For sums that are infinite or NaN.
template <Kind kKind, bool kLog, typename T>
Sums<T> sum_with_care(const T* pairs, const T* matrix, int64_t count, SquareExponent<T> exponent, T scale) {
  Sums<T> sums = {0, 0};
  for (int64_t i = 0; i < count; ++i) {
    const T squares = squares_of(pairs, i, scale);
    const T weight = weight_of<kKind, kLog>(squares, matrix, i, exponent);
    sums.sum += product(weight, squares);
    if (!(weight <= sums.largest)) sums.largest = std::isnan(sums.largest) ? sums.largest : weight;
  }
  return sums;
}

template <Kind kKind, bool kLog, typename T>
FASTGAN_CLONES void multiply(
    const T* pairs, const T* matrix, const T* vectors, T* target, int64_t count, SquareExponent<T> exponent, T scale,
    T maximum, T factor) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T squares = squares_of(pairs, i, scale);
    const T weight = weight_of<kKind, kLog>(squares, matrix, i, exponent) / maximum;
    const T slope = factor * (weight != weight && kKind != Kind::kMatrix ? T(0) : weight);
    target[2 * i] = slope * vectors[2 * i];
    target[2 * i + 1] = slope * vectors[2 * i + 1];
  }
}

// Calls body with compile-time kind and logarithm, and a zero of the type.
template <typename Body>
void specialized(const Spectra& spectra, const FrequencyWeights& weights, const Body& body) {
  const auto of_type = [&](auto zero) {
    using T = decltype(zero);
    const double half = weights.alpha / 2;
    const T zero_or_one = half == 0, infinity_or_one = half == 0 ? T(1) : std::numeric_limits<T>::infinity();
    const bool root = weights.alpha == 1, falls = half < 0;
    const SquareExponent<T> exponent{
        half, falls ? infinity_or_one : zero_or_one, falls ? zero_or_one : infinity_or_one};
    using Yes = std::true_type;
    using No = std::false_type;
    using Root = std::integral_constant<Kind, Kind::kRoot>;
    using Power = std::integral_constant<Kind, Kind::kPower>;
    using Matrix = std::integral_constant<Kind, Kind::kMatrix>;
    if (spectra.matrix) return body(Matrix{}, No{}, exponent);
    if (root) return weights.log ? body(Root{}, Yes{}, exponent) : body(Root{}, No{}, exponent);
    return weights.log ? body(Power{}, Yes{}, exponent) : body(Power{}, No{}, exponent);
  };
  spectra.dtype == Dtype::kFloat64 ? of_type(0.0) : of_type(0.0f);
}

}  // namespace

FrequencyDistanceSweep::FrequencyDistanceSweep(const Spectra& spectra, const FrequencyWeights& weights, bool of_batch)
    : spectra_(spectra),
      weights_(weights),
      of_batch_(of_batch),
      plane_count_(spectra.planes[0] * spectra.planes[1] * spectra.planes[2]),
      rows_per_block_(std::max<int64_t>(1, kBlock / std::max<int64_t>(1, spectra.columns))),
      blocks_per_plane_((spectra.rows + rows_per_block_ - 1) / rows_per_block_),
      parts_(plane_count_ * blocks_per_plane_) {}

FrequencyDistanceSweep::Range FrequencyDistanceSweep::range(int64_t block) const {
  const int64_t first = block % blocks_per_plane_ * rows_per_block_;
  const int64_t rows = std::min(rows_per_block_, spectra_.rows - first);
  return {block / blocks_per_plane_, first * spectra_.columns, rows * spectra_.columns};
}

const char* FrequencyDistanceSweep::matrix_of(int64_t plane) const {
  if (!spectra_.matrix) return nullptr;
  const int64_t channel = plane % spectra_.planes[2], patch = plane / spectra_.planes[2] % spectra_.planes[1];
  const int64_t sample = plane / spectra_.planes[2] / spectra_.planes[1];
  const int64_t* const strides = spectra_.matrix_strides;
  const int64_t offset = sample * strides[0] + patch * strides[1] + channel * strides[2];
  return static_cast<const char*>(spectra_.matrix) + offset * size_of(spectra_.dtype);
}

void FrequencyDistanceSweep::run(int64_t block) {
  const Range of = range(block);
  Part part;
  specialized(spectra_, weights_, [&](auto kind, auto log, auto exponent) {
    using T = decltype(exponent.at_zero);
    constexpr Kind kKind = decltype(kind)::value;
    constexpr bool kLog = decltype(log)::value;
    const int64_t columns = spectra_.columns;
    const T scale = T(1 / pixels());
    const T* const pairs = static_cast<const T*>(spectra_.data) + 2 * (of.plane * spectra_.rows * columns + of.begin);
    const char* const plane_matrix = matrix_of(of.plane);
    const T* const matrix = plane_matrix ? reinterpret_cast<const T*>(plane_matrix) + of.begin : nullptr;
    const auto add = [&](int64_t i, int64_t count, double times) {
      const T* const weights = matrix ? matrix + i : nullptr;
      Sums<T> sums = sum_products<kKind, kLog>(pairs + 2 * i, weights, count, exponent, scale);
      if (!std::isfinite(sums.sum)) sums = sum_with_care<kKind, kLog>(pairs + 2 * i, weights, count, exponent, scale);
      part.sum += times * sums.sum;
      const double largest = sums.largest;
      if (!(largest <= part.largest)) part.largest = std::isnan(part.largest) ? part.largest : largest;
    };
    add(0, of.count, 2);
    // Columns without a mirror image count once.
    if (std::isfinite(part.sum)) {
      for (int64_t row = 0; row < of.count; row += columns) {
        add(row, 1, -1);
        if (spectra_.width % 2 == 0) add(row + columns - 1, 1, -1);
      }
    }
  });
  if (spectra_.matrix) part.largest = 1;
  parts_[block] = part;
}

std::vector<double> FrequencyDistanceSweep::maxima() const {
  std::vector<double> maxima(of_batch_ ? 1 : plane_count_, 0.0);
  for (int64_t i = 0; i < blocks(); ++i) {
    double& maximum = maxima[of_batch_ ? 0 : i / blocks_per_plane_];
    if (!(parts_[i].largest <= maximum)) maximum = std::isnan(maximum) ? maximum : parts_[i].largest;
  }
  return maxima;
}

double FrequencyDistanceSweep::loss() const {
  const std::vector<double> maxima = this->maxima();
  double loss = 0;
  for (int64_t plane = 0; plane < plane_count_; ++plane) {
    double sum = 0;
    for (int64_t i = 0; i < blocks_per_plane_; ++i) sum += parts_[plane * blocks_per_plane_ + i].sum;
    const double maximum = maxima[of_batch_ ? 0 : plane];
    loss += maximum == 0 || std::isinf(maximum) ? 0 * sum : sum / maximum;
  }
  return loss / (static_cast<double>(plane_count_) * pixels());
}

void FrequencyDistanceSweep::differentiate(
    int64_t block, const std::vector<double>& maxima, double factor, const void* vectors, void* target) const {
  const Range of = range(block);
  const double maximum = maxima[of_batch_ ? 0 : of.plane];
  specialized(spectra_, weights_, [&](auto kind, auto log, auto exponent) {
    using T = decltype(exponent.at_zero);
    const int64_t offset = of.plane * spectra_.rows * spectra_.columns + of.begin;
    const char* const matrix = matrix_of(of.plane);
    multiply<decltype(kind)::value, decltype(log)::value>(
        static_cast<const T*>(spectra_.data) + 2 * offset,
        matrix ? reinterpret_cast<const T*>(matrix) + of.begin : nullptr, static_cast<const T*>(vectors) + 2 * offset,
        static_cast<T*>(target) + 2 * offset, of.count, exponent, T(1 / pixels()), T(maximum), T(factor / pixels()));
  });
}

}  // namespace fastgan
