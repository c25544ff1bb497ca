#include "filtered_lrelu_sweep.h"

#include "../math/filtered_lrelu.h"
#include "clones.h"

namespace fastgan {
namespace {

template <typename T>
FASTGAN_HOST_DEVICE void activate_elements(T* values, T slope, T gain, T limit, uint8_t* codes, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    uint8_t code;
    values[i] = activated(values[i], slope, gain, limit, &code);
    codes[i] = code;
  }
}

FASTGAN_CLONES void activate_row(float* values, float slope, float gain, float limit, uint8_t* codes, int64_t count) {
  activate_elements(values, slope, gain, limit, codes, count);
}
FASTGAN_CLONES void activate_row(
    double* values, double slope, double gain, double limit, uint8_t* codes, int64_t count) {
  activate_elements(values, slope, gain, limit, codes, count);
}

template <typename T>
FASTGAN_HOST_DEVICE void multiply_elements(T* values, T slope, T gain, const uint8_t* codes, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) values[i] *= activation_factor(codes[i], slope, gain);
}

FASTGAN_CLONES void multiply_row(float* values, float slope, float gain, const uint8_t* codes, int64_t count) {
  multiply_elements(values, slope, gain, codes, count);
}
FASTGAN_CLONES void multiply_row(double* values, double slope, double gain, const uint8_t* codes, int64_t count) {
  multiply_elements(values, slope, gain, codes, count);
}

template <typename T>
FASTGAN_HOST_DEVICE void add_number(const T* source, T number, T* target, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) target[i] = source[i] + number;
}

FASTGAN_CLONES void add_bias(const float* source, float bias, float* target, int64_t count) {
  add_number(source, bias, target, count);
}
FASTGAN_CLONES void add_bias(const double* source, double bias, double* target, int64_t count) {
  add_number(source, bias, target, count);
}

int64_t pixels_of(FirAxis x, FirAxis y) { return std::max(x.in * y.in, x.out * y.out); }

}  // namespace

FilteredLreluSweep::FilteredLreluSweep(
    int64_t samples, int64_t channels, FirAxis first_x, FirAxis first_y, const FirFilter& first, FirAxis second_x,
    FirAxis second_y, const FirFilter& second, Activation activation, Dtype dtype)
    : channels_(channels),
      activation_(activation),
      dtype_(dtype),
      blocks_(samples * channels, std::max(pixels_of(first_x, first_y), pixels_of(second_x, second_y)), second_y.out) {
  if (dtype == Dtype::kFloat64) {
    double_.push_back({{first_x, first_y, first}, {second_x, second_y, second}});
  } else {
    single_.push_back({{first_x, first_y, first}, {second_x, second_y, second}});
  }
}

void FilteredLreluSweep::activate(
    int64_t block, const void* source, const void* bias, void* target, uint8_t* codes) const {
  const char* from = static_cast<const char*>(source);
  char* to = static_cast<char*>(target);
  if (dtype_ == Dtype::kFloat64) {
    activate_typed(double_[0], block, from, static_cast<const double*>(bias), to, codes);
  } else {
    activate_typed(single_[0], block, from, static_cast<const float*>(bias), to, codes);
  }
}

void FilteredLreluSweep::multiply(int64_t block, const void* source, const uint8_t* codes, void* target) const {
  const char* from = static_cast<const char*>(source);
  char* to = static_cast<char*>(target);
  if (dtype_ == Dtype::kFloat64) {
    multiply_typed(double_[0], block, from, codes, to);
  } else {
    multiply_typed(single_[0], block, from, codes, to);
  }
}

template <typename T>
void FilteredLreluSweep::activate_typed(
    const Plans<T>& plans, int64_t block, const char* source, const T* bias, char* target, uint8_t* codes) const {
  const int64_t width = plans.first.axis_x.out, height = plans.first.axis_y.out;
  const T slope = static_cast<T>(activation_.slope), gain = static_cast<T>(activation_.gain);
  const T limit = static_cast<T>(activation_.limit);
  const Scratch<uint8_t> discarded = scratch<uint8_t>(width + 1);
  // A row that two bands of the result read is computed by both; the second, where it comes first, stores its codes.
  run(plans, block, source, bias, target, [&](int64_t plane, int64_t row, bool is_own, T* values) {
    uint8_t* const place = codes && is_own ? codes + (plane * height + row) * width : discarded.get();
    activate_row(values, slope, gain, limit, place, width);
  });
}

template <typename T>
void FilteredLreluSweep::multiply_typed(
    const Plans<T>& plans, int64_t block, const char* source, const uint8_t* codes, char* target) const {
  const int64_t width = plans.first.axis_x.out, height = plans.first.axis_y.out;
  const T slope = static_cast<T>(activation_.slope), gain = static_cast<T>(activation_.gain);
  run(plans, block, source, static_cast<const T*>(nullptr), target, [&](int64_t plane, int64_t row, bool, T* values) {
    multiply_row(values, slope, gain, codes + (plane * height + row) * width, width);
  });
}

// Calls change(plane, row, is_own, values) for each upsampled row; of the blocks that compute a row, one owns it.
template <typename T, typename Change>
void FilteredLreluSweep::run(
    const Plans<T>& plans, int64_t block, const char* source, const T* bias, char* target, const Change& change) const {
  const FirPlan<T>&first = plans.first, &second = plans.second;
  const int64_t in_width = first.axis_x.in, in_height = first.axis_y.in, size = size_of(dtype_);
  const int64_t width = first.axis_x.out, height = first.axis_y.out;
  const int64_t out_width = second.axis_x.out, out_height = second.axis_y.out;
  const bool is_direct = size == static_cast<int64_t>(sizeof(T)) && !bias;
  FirRows<T> first_rows(first), second_rows(second);
  RowRing<T> loaded(in_width + 1, is_direct ? 1 : first.y.most + 1), upsampled(width + 1, second.y.most + 1);
  const Scratch<T> buffer = scratch<T>(in_width + 1), result = scratch<T>(out_width + 1);

  blocks_.for_each(block, [&](int64_t plane, int64_t begin, int64_t end) {
    const char* const pixels = source + plane * in_height * in_width * size;
    char* const results = target + plane * out_height * out_width * size;
    const RowTable<T> direct{reinterpret_cast<const T*>(pixels), in_width, std::max<int64_t>(1, in_height)};
    const auto load_row = [&](int64_t row, T* place) {
      const char* const values = pixels + row * in_width * size;
      if (bias) {
        add_bias(load(values, dtype_, 1, in_width, buffer.get()), bias[plane % channels_], place, in_width);
      } else {
        load(values, dtype_, 1, in_width, place);
      }
    };
    // This block's own rows begin with the first that its band reads, and end with the first of the next band.
    const int64_t own_begin = begin == 0 ? 0 : std::min(second.first_row(begin), height);
    const int64_t own_end = end == out_height ? height : std::min(second.first_row(end), height);
    const auto upsample_row = [&](int64_t row, T* place) {
      if (!is_direct) {
        loaded.skip_to(first.first_row(row));
        loaded.extend(first.last_row(row), load_row);
      }
      first_rows.row(row, is_direct ? direct : loaded.table(), place);
      change(plane, row, row < own_end, place);
    };
    first_rows.restart();
    second_rows.restart();
    loaded.restart(0);
    upsampled.restart(own_begin);
    for (int64_t row = begin; row < end; ++row) {
      upsampled.extend(second.last_row(row), upsample_row);
      void* const place = results + row * out_width * size;
      T* const values = target_of(place, dtype_, 1, result.get());
      second_rows.row(row, upsampled.table(), values);
      store(values, place, dtype_, 1, out_width);
    }
    upsampled.extend(own_end, upsample_row);
  });
}

}  // namespace fastgan
