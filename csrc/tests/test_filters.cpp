// Tests of the static library's FIR filters: against the formula tap by tap, and against their transposes.
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "cpu/filtered_lrelu_sweep.h"
#include "cpu/upfirdn2d_sweep.h"

using namespace fastgan;

namespace {

constexpr int64_t kPlanes = 3;

std::vector<double> numbers(int64_t count, double seed) {
  std::vector<double> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = std::sin(seed + 1.7 * double(i));
  return values;
}

struct Case {
  FirAxis x, y;
  int64_t height, width;  // taps; height 0: separable
};

// Factors, paddings and sizes that differ between axes; some of the last output's taps lie outside.
const Case kCases[] = {
    {{9, 17, 2, 1, 2}, {7, 14, 2, 1, 3}, 0, 4},   {{20, 9, 1, 2, 3}, {21, 8, 1, 2, -2}, 0, 6},
    {{8, 11, 3, 2, 4}, {5, 6, 4, 3, 1}, 3, 5},    {{6, 30, 4, 1, 11}, {9, 4, 1, 3, 5}, 0, 13},
    {{10, 10, 1, 1, 1}, {12, 12, 1, 1, 2}, 4, 3}, {{5, 3, 1, 5, 0}, {1, 2, 2, 1, 0}, 1, 1},
    {{4, 6, 1, 1, 40}, {4, 6, 1, 1, -40}, 2, 3},
};

double tap_at(const std::vector<double>& taps, const Case& c, int64_t row, int64_t column) {
  return c.height ? taps[row * c.width + column] : taps[row] * taps[column];
}

std::vector<double> tap_by_tap(const std::vector<double>& source, const std::vector<double>& taps, const Case& c) {
  std::vector<double> target(kPlanes * c.y.out * c.x.out, 0.0);
  const int64_t height = c.height ? c.height : c.width;
  for (int64_t plane = 0; plane < kPlanes; ++plane)
    for (int64_t row = 0; row < c.y.out; ++row)
      for (int64_t column = 0; column < c.x.out; ++column)
        for (int64_t i = 0; i < height; ++i)
          for (int64_t j = 0; j < c.width; ++j) {
            const int64_t y = row * c.y.down - c.y.pad + i, x = column * c.x.down - c.x.pad + j;
            if (y < 0 || x < 0 || y % c.y.up || x % c.x.up || y / c.y.up >= c.y.in || x / c.x.up >= c.x.in) continue;
            target[(plane * c.y.out + row) * c.x.out + column] +=
                tap_at(taps, c, i, j) * source[(plane * c.y.in + y / c.y.up) * c.x.in + x / c.x.up];
          }
  return target;
}

FirFilter filter_of(const std::vector<double>& taps, const Case& c, bool turned = false) {
  return FirFilter(taps, c.height, c.width, turned, 1.0, 2e-16);
}

std::vector<double> swept(const std::vector<double>& source, FirAxis x, FirAxis y, const FirFilter& filter) {
  std::vector<double> target(kPlanes * y.out * x.out);
  const Upfirdn2dSweep sweep(kPlanes, x, y, filter, Dtype::kFloat64);
  for (int64_t block = 0; block < sweep.blocks(); ++block) sweep.run(block, source.data(), target.data());
  return target;
}

double inner(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

FirAxis transposed(FirAxis axis, int64_t taps) { return {axis.out, axis.in, axis.down, axis.up, taps - 1 - axis.pad}; }

void rows_match_the_formula_tap_by_tap() {
  for (const Case& c : kCases) {
    const std::vector<double> source = numbers(kPlanes * c.y.in * c.x.in, 0.3);
    const std::vector<double> taps = numbers(c.height ? c.height * c.width : c.width, 2.0);
    const std::vector<double> expected = tap_by_tap(source, taps, c);
    const std::vector<double> actual = swept(source, c.x, c.y, filter_of(taps, c));
    for (size_t i = 0; i < expected.size(); ++i) CHECK_CLOSE(actual[i], expected[i], 1e-12);
  }
}

void exchanged_factors_and_the_turned_filter_are_the_transpose() {
  for (const Case& c : kCases) {
    const int64_t height = c.height ? c.height : c.width;
    const std::vector<double> source = numbers(kPlanes * c.y.in * c.x.in, 0.3);
    const std::vector<double> other = numbers(kPlanes * c.y.out * c.x.out, 5.0);
    const std::vector<double> taps = numbers(c.height ? c.height * c.width : c.width, 2.0);
    const double forward = inner(swept(source, c.x, c.y, filter_of(taps, c)), other);
    const std::vector<double> back =
        swept(other, transposed(c.x, c.width), transposed(c.y, height), filter_of(taps, c, true));
    CHECK_CLOSE(forward, inner(source, back), 1e-10);
  }
}

void products_of_two_filters_are_split_and_others_are_not() {
  const std::vector<double> rows = numbers(4, 1.0), columns = numbers(3, 3.0);
  std::vector<double> product;
  for (double row : rows)
    for (double column : columns) product.push_back(row * column);
  CHECK(FirFilter(product, 4, 3, false, 1.0, 4e-16).is_separable());
  product[5] *= 1.001;
  CHECK(!FirFilter(product, 4, 3, false, 1.0, 4e-16).is_separable());
  CHECK(!FirFilter(std::vector<double>(12, NAN), 4, 3, false, 1.0, 4e-16).is_separable());
}

void the_upsampled_image_is_activated_between_the_filters() {
  const Case first = kCases[0], second = {{17, 6, 1, 2, 0}, {14, 5, 1, 2, 0}, 0, 6};
  const std::vector<double> up = numbers(4, 2.0), down = numbers(6, 4.0);
  const std::vector<double> source = numbers(kPlanes * 7 * 9, 0.3);
  std::vector<double> expected = tap_by_tap(source, up, first);
  for (double& value : expected) value = std::fmax(-0.9, std::fmin(1.5 * (value > 0 ? value : 0.2 * value), 0.9));
  expected = tap_by_tap(expected, down, second);
  const FilteredLreluSweep sweep(
      kPlanes, 1, first.x, first.y, filter_of(up, first), second.x, second.y, filter_of(down, second), {0.2, 1.5, 0.9},
      Dtype::kFloat64);
  std::vector<double> actual(expected.size());
  std::vector<uint8_t> codes(kPlanes * 14 * 17, 9);
  for (int64_t block = 0; block < sweep.blocks(); ++block)
    sweep.activate(block, source.data(), nullptr, actual.data(), codes.data());
  for (size_t i = 0; i < expected.size(); ++i) CHECK_CLOSE(actual[i], expected[i], 1e-12);
  bool all_written = true;
  for (uint8_t code : codes) all_written = all_written && code <= 3;
  CHECK(all_written);
}

}  // namespace

int main() {
  rows_match_the_formula_tap_by_tap();
  exchanged_factors_and_the_turned_filter_are_the_transpose();
  products_of_two_filters_are_split_and_others_are_not();
  the_upsampled_image_is_activated_between_the_filters();
  std::puts("4 passed, 0 failed");
}
