#include "fir_rows.h"

#include <cmath>
#include <numeric>
#include <utility>

#include "../math/host_device.h"
#include "clones.h"

namespace fastgan {
namespace {

// Taps added in one pass over a row: as many sources as fit in registers, and as StyleGAN3's filters have.
constexpr int64_t kTapsPerPass = 12;

int64_t modulo(int64_t value, int64_t divisor) { return (value % divisor + divisor) % divisor; }

template <bool kAdd, typename T, size_t... tap>
FASTGAN_HOST_DEVICE void sum_of_rows(
    const T* base, const int64_t* offsets, const T* weights, T* target, int64_t count, std::index_sequence<tap...>) {
  const T* const sources[] = {(base + offsets[tap])...};
  const T factors[] = {weights[tap]...};
  T* const results = target;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i)
    results[i] = ((kAdd ? results[i] : T(0)) + ... + (factors[tap] * sources[tap][i]));
}

template <bool kAdd, typename T>
FASTGAN_HOST_DEVICE void sum_pass(
    const T* base, const int64_t* offsets, const T* weights, int64_t taps, T* target, int64_t count) {
#define FASTGAN_TAPS(number) \
  case number: return sum_of_rows<kAdd>(base, offsets, weights, target, count, std::make_index_sequence<number>())
  switch (taps) {
    FASTGAN_TAPS(1);
    FASTGAN_TAPS(2);
    FASTGAN_TAPS(3);
    FASTGAN_TAPS(4);
    FASTGAN_TAPS(5);
    FASTGAN_TAPS(6);
    FASTGAN_TAPS(7);
    FASTGAN_TAPS(8);
    FASTGAN_TAPS(9);
    FASTGAN_TAPS(10);
    FASTGAN_TAPS(11);
    FASTGAN_TAPS(12);
  }
#undef FASTGAN_TAPS
}

template <typename T>
FASTGAN_HOST_DEVICE void sum_all(
    const T* base, const int64_t* offsets, const T* weights, int64_t taps, T* target, int64_t count) {
  sum_pass<false>(base, offsets, weights, std::min(taps, kTapsPerPass), target, count);
  for (int64_t tap = kTapsPerPass; tap < taps; tap += kTapsPerPass)
    sum_pass<true>(base, offsets + tap, weights + tap, std::min(taps - tap, kTapsPerPass), target, count);
}

FASTGAN_CLONES void weighted(
    const float* base, const int64_t* offsets, const float* weights, int64_t taps, float* target, int64_t count) {
  sum_all(base, offsets, weights, taps, target, count);
}
FASTGAN_CLONES void weighted(
    const double* base, const int64_t* offsets, const double* weights, int64_t taps, double* target, int64_t count) {
  sum_all(base, offsets, weights, taps, target, count);
}

// target[i] = the sum over taps of weights[tap] * (base + offsets[tap])[i]
template <typename T>
void weighted_sum(const T* base, const int64_t* offsets, const T* weights, int64_t taps, T* target, int64_t count) {
  if (taps > 0) {
    weighted(base, offsets, weights, taps, target, count);
  } else {
    std::fill_n(target, count, T(0));
  }
}

// Constant strides let the compiler shuffle instead of gather.
template <int64_t kStride, typename T>
FASTGAN_HOST_DEVICE void take(const T* source, T* target, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) target[i] = source[kStride * i];
}

template <typename T>
FASTGAN_HOST_DEVICE void take_every(const T* source, int64_t stride, T* target, int64_t count) {
  if (stride == 1) return take<1>(source, target, count);
  if (stride == 2) return take<2>(source, target, count);
  if (stride == 4) return take<4>(source, target, count);
  for (int64_t i = 0; i < count; ++i) target[i] = source[stride * i];
}

FASTGAN_CLONES void take_each(const float* source, int64_t stride, float* target, int64_t count) {
  take_every(source, stride, target, count);
}
FASTGAN_CLONES void take_each(const double* source, int64_t stride, double* target, int64_t count) {
  take_every(source, stride, target, count);
}

template <typename T>
FASTGAN_HOST_DEVICE void interleave_two(const T* even, const T* odd, T* target, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    target[2 * i] = even[i];
    target[2 * i + 1] = odd[i];
  }
}

template <typename T>
FASTGAN_HOST_DEVICE void interleave_four(const T* source, int64_t stride, T* target, int64_t count) {
  const T *first = source, *second = first + stride, *third = second + stride, *fourth = third + stride;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    target[4 * i] = first[i];
    target[4 * i + 1] = second[i];
    target[4 * i + 2] = third[i];
    target[4 * i + 3] = fourth[i];
  }
}

// `rows` rows of `count` elements, `stride` apart, into one.
template <typename T>
FASTGAN_HOST_DEVICE void interleave_rows(const T* source, int64_t rows, int64_t stride, T* target, int64_t count) {
  if (rows == 2) return interleave_two(source, source + stride, target, count);
  if (rows == 4) return interleave_four(source, stride, target, count);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < count; ++i) target[rows * i + row] = source[row * stride + i];
}

FASTGAN_CLONES void interleave_all(const float* source, int64_t rows, int64_t stride, float* target, int64_t count) {
  interleave_rows(source, rows, stride, target, count);
}
FASTGAN_CLONES void interleave_all(const double* source, int64_t rows, int64_t stride, double* target, int64_t count) {
  interleave_rows(source, rows, stride, target, count);
}

// Whether taps[i, j] = rows[i] * columns[j] to rounding, and the two factors.
bool split_filter(
    const std::vector<double>& taps, int64_t height, int64_t width, double epsilon, std::vector<double>& rows,
    std::vector<double>& columns) {
  const auto magnitude = [](double a, double b) { return std::abs(a) < std::abs(b); };
  const int64_t pivot = std::max_element(taps.begin(), taps.end(), magnitude) - taps.begin();
  const int64_t row = pivot / width, column = pivot % width;
  rows.resize(height);
  columns.resize(width);
  for (int64_t i = 0; i < height; ++i) rows[i] = taps[i * width + column];
  for (int64_t j = 0; j < width; ++j) columns[j] = taps[row * width + j] / taps[pivot];
  for (int64_t i = 0; i < height * width; ++i) {
    const double error = std::abs(taps[i] - rows[i / width] * columns[i % width]);
    if (!(error <= epsilon * std::abs(taps[i]))) return false;
  }
  return true;
}

}  // namespace

FirFilter::FirFilter(
    std::vector<double> values, int64_t rows, int64_t columns_, bool turned, double gain, double epsilon)
    : taps(std::move(values)), height(rows ? rows : columns_), width(columns_) {
  if (turned) std::reverse(taps.begin(), taps.end());
  std::vector<double> along_y, along_x;
  if (rows == 0) {
    columns = taps;
  } else if (height > 1 && width > 1 && split_filter(taps, height, width, epsilon, along_y, along_x)) {
    taps = along_y;
    columns = along_x;
  }
  for (double& tap : taps) tap *= gain;
}

FirPhases::FirPhases(const FirAxis& axis, int64_t taps)
    : period(axis.up / std::gcd(axis.up, axis.down)), step(axis.down / std::gcd(axis.up, axis.down)), most(0) {
  for (int64_t output = 0; output < period; ++output) {
    const int64_t position = output * axis.down - axis.pad, tap = modulo(-position, axis.up);
    const int64_t count = tap < taps ? (taps - tap + axis.up - 1) / axis.up : 0;
    phases.push_back({(position + tap) / axis.up, tap, count});
    most = std::max(most, count);
  }
}

template <typename T>
FirPlan<T>::FirPlan(const FirAxis& along_x, const FirAxis& along_y, const FirFilter& filter)
    : axis_x(along_x),
      axis_y(along_y),
      x(along_x, filter.width),
      y(along_y, filter.height),
      separable(filter.is_separable()),
      low(0),
      high(0) {
  bool is_first = true;
  for (int64_t output = 0; output < std::min(x.period, along_x.out); ++output) {
    const int64_t last = output + (along_x.out - 1 - output) / x.period * x.period;
    low = is_first ? x.first(output) : std::min(low, x.first(output));
    high = is_first ? x.first(last) + x.of(last).count : std::max(high, x.first(last) + x.of(last).count);
    is_first = false;
  }
  begin = std::min(std::max<int64_t>(low, 0), along_x.in);
  end = std::max(begin, std::min(high, along_x.in));
  part = (high - low + x.step - 1) / x.step;
  split_row = std::max<int64_t>(1, part * x.step);

  for (const FirPhase& phase : x.phases) {
    place_x.push_back(static_cast<int64_t>(offsets.size()));
    for (int64_t t = 0; t < phase.count; ++t) {
      const int64_t position = phase.first + t - low;
      offsets.push_back(modulo(position, x.step) * part + position / x.step);
      if (separable) weights_x.push_back(static_cast<T>(filter.columns[phase.tap + t * along_x.up]));
    }
  }
  for (const FirPhase& phase : y.phases) {
    place_y.push_back(static_cast<int64_t>(weights_y.size()));
    for (int64_t t = 0; separable && t < phase.count; ++t)
      weights_y.push_back(static_cast<T>(filter.taps[phase.tap + t * along_y.up]));
    for (const FirPhase& column : x.phases) {
      place.push_back(static_cast<int64_t>(weights.size()));
      for (int64_t t = 0; !separable && t < phase.count; ++t)
        for (int64_t s = 0; s < column.count; ++s)
          weights.push_back(
              static_cast<T>(filter.taps[(phase.tap + t * along_y.up) * filter.width + column.tap + s * along_x.up]));
    }
  }
}

template <typename T>
FirRows<T>::FirRows(const FirPlan<T>& plan)
    : plan_(plan),
      line_(scratch<T>(plan.axis_x.in + 1)),
      split_rows_(plan.split_row, plan.separable ? 1 : plan.y.most + 1),
      offsets_(plan.separable ? plan.y.most : plan.y.most * plan.x.most),
      phase_stride_((plan.axis_x.out + plan.x.period - 1) / plan.x.period) {
  if (plan.x.period > 1) phases_ = scratch<T>(phase_stride_ * plan.x.period);
  // The borders of split rows stay zeros: only pixels inside are written.
  RowTable<T> table = split_rows_.table();
  std::fill_n(const_cast<T*>(table.data), table.stride * table.capacity, T(0));
}

// Pixels begin to end of a row, where `row` has the first of them, to their places in a split row.
template <typename T>
void FirRows<T>::split(const T* row, T* parts) const {
  const int64_t step = plan_.x.step;
  for (int64_t first = plan_.begin; first < std::min(plan_.begin + step, plan_.end); ++first) {
    const int64_t position = first - plan_.low;
    T* place = parts + position % step * plan_.part + position / step;
    take_each(row + first - plan_.begin, step, place, (plan_.end - first + step - 1) / step);
  }
}

template <typename T>
void FirRows<T>::interleave(T* target) const {
  const int64_t period = plan_.x.period, whole = plan_.axis_x.out / period;
  interleave_all(phases_.get(), period, phase_stride_, target, whole);
  for (int64_t i = whole * period; i < plan_.axis_x.out; ++i)
    target[i] = phases_[i % period * phase_stride_ + i / period];
}

template <typename T>
void FirRows<T>::row(int64_t o, const RowTable<T>& source, T* target) {
  if (plan_.first_row(o) >= plan_.last_row(o) || plan_.begin == plan_.end) {
    std::fill_n(target, plan_.axis_x.out, T(0));
  } else if (plan_.separable) {
    separable_row(o, source, target);
  } else {
    direct_row(o, source, target);
  }
}

// Along y first, since that needs one row of scratch memory; then along x.
template <typename T>
void FirRows<T>::separable_row(int64_t o, const RowTable<T>& source, T* target) {
  const int64_t first = plan_.first_row(o), count = plan_.last_row(o) - first, period = plan_.x.period;
  for (int64_t t = 0; t < count; ++t) offsets_[t] = source.offset(first + t) + plan_.begin;
  const T* weights = &plan_.weights_y[plan_.place_y[o % plan_.y.period] + first - plan_.y.first(o)];
  T* parts = const_cast<T*>(split_rows_.table().data);
  T* line = plan_.x.step == 1 ? parts + plan_.begin - plan_.low : line_.get();
  weighted_sum(source.data, offsets_.data(), weights, count, line, plan_.end - plan_.begin);
  if (plan_.x.step > 1) split(line, parts);
  for (int64_t phase = 0; phase < std::min(period, plan_.axis_x.out); ++phase) {
    const int64_t place = plan_.place_x[phase];
    weighted_sum(
        parts, plan_.offsets.data() + place, plan_.weights_x.data() + place, plan_.x.phases[phase].count,
        period == 1 ? target : phases_.get() + phase * phase_stride_, (plan_.axis_x.out - phase + period - 1) / period);
  }
  if (period > 1) interleave(target);
}

template <typename T>
void FirRows<T>::direct_row(int64_t o, const RowTable<T>& source, T* target) {
  const int64_t first = plan_.first_row(o), last = plan_.last_row(o), period = plan_.x.period;
  split_rows_.skip_to(first);
  split_rows_.extend(
      last, [&](int64_t row, T* place) { split(source.data + source.offset(row) + plan_.begin, place); });
  const RowTable<T> rows = split_rows_.table();
  for (int64_t phase = 0; phase < std::min(period, plan_.axis_x.out); ++phase) {
    const int64_t along_x = plan_.x.phases[phase].count;
    const int64_t* columns = plan_.offsets.data() + plan_.place_x[phase];
    for (int64_t row = first; row < last; ++row)
      for (int64_t t = 0; t < along_x; ++t) offsets_[(row - first) * along_x + t] = rows.offset(row) + columns[t];
    const int64_t place = plan_.place[o % plan_.y.period * period + phase];
    weighted_sum(
        rows.data, offsets_.data(), plan_.weights.data() + place + (first - plan_.y.first(o)) * along_x,
        (last - first) * along_x, period == 1 ? target : phases_.get() + phase * phase_stride_,
        (plan_.axis_x.out - phase + period - 1) / period);
  }
  if (period > 1) interleave(target);
}

template struct FirPlan<float>;
template struct FirPlan<double>;
template class FirRows<float>;
template class FirRows<double>;

}  // namespace fastgan
