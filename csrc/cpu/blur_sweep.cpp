#include "blur_sweep.h"

#include <algorithm>
#include <cmath>

#include "../math/host_device.h"
#include "clones.h"

namespace fastgan {
namespace {

// Rows of one channel that a block computes. The rows around a strip are read by the neighbouring blocks too.
constexpr int64_t kStripRows = 32;
// Taps added in one pass over a row: as many source pointers as fit in registers.
constexpr int kTapsPerPass = 8;

template <typename T>
struct Pass {
  const T* sources[kTapsPerPass];
  T weights[kTapsPerPass];
};

template <typename T>
FASTGAN_HOST_DEVICE void add_row(const Pass<T>& pass, T* sum, int64_t count) {
  const Pass<T> p = pass;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    T left = p.weights[0] * p.sources[0][i] + p.weights[1] * p.sources[1][i];
    T right = p.weights[2] * p.sources[2][i] + p.weights[3] * p.sources[3][i];
    left += p.weights[4] * p.sources[4][i] + p.weights[5] * p.sources[5][i];
    right += p.weights[6] * p.sources[6][i] + p.weights[7] * p.sources[7][i];
    sum[i] += left + right;
  }
}

FASTGAN_CLONES void add(const Pass<float>& pass, float* sum, int64_t count) { add_row(pass, sum, count); }
FASTGAN_CLONES void add(const Pass<double>& pass, double* sum, int64_t count) { add_row(pass, sum, count); }

}  // namespace

BlurSweep::BlurSweep(ImageView source, ImageView target, const std::vector<double>& kernels, int64_t size)
    : source_(source), target_(target), size_(size), taps_(source.sizes[0]), unbounded_(source.sizes[0]) {
  const int64_t reach = size / 2;
  for (int64_t image = 0; image < source.sizes[0]; ++image) {
    for (int64_t i = 0; i < size * size; ++i) {
      const double weight = kernels[image * size * size + i];
      if (weight == 0) continue;
      (std::isfinite(weight) ? taps_ : unbounded_)[image].push_back({i / size - reach, i % size - reach, weight});
    }
  }
  strips_ = (source.sizes[2] + kStripRows - 1) / kStripRows;
  blocks_ = source.sizes[0] * source.sizes[1] * strips_;
}

void BlurSweep::run(int64_t block) const {
  source_.dtype == Dtype::kFloat64 ? run_typed<double>(block) : run_typed<float>(block);
}

// A ring buffer holds the `size` source rows around the current one, each padded with zeros on both sides.
template <typename T>
void BlurSweep::run_typed(int64_t block) const {
  const int64_t height = source_.sizes[2], width = source_.sizes[3], reach = size_ / 2, padded = width + 2 * reach;
  const int64_t plane = block / strips_, image = plane / source_.sizes[1], channel = plane % source_.sizes[1];
  const int64_t begin = block % strips_ * kStripRows, end = std::min(begin + kStripRows, height);
  std::vector<T> ring(size_ * padded, T(0)), zeros(width, T(0)), sum(width);

  const auto row_of_ring = [&](int64_t row) { return &ring[(row + size_) % size_ * padded + reach]; };
  const auto fill = [&](int64_t row) {
    T* place = row_of_ring(row);
    if (row < 0 || row >= height) {
      std::fill_n(place, width, T(0));
      return;
    }
    const T* values = load(source_.at(image, channel, row, 0), source_.dtype, source_.strides[3], width, place);
    if (values != place) std::copy_n(values, width, place);
  };
  for (int64_t row = begin - reach; row < begin + reach; ++row) fill(row);
  for (int64_t row = begin; row < end; ++row) {
    fill(row + reach);
    std::fill(sum.begin(), sum.end(), T(0));
    const std::vector<Tap>& taps = taps_[image];
    for (size_t first = 0; first < taps.size(); first += kTapsPerPass) {
      Pass<T> pass;
      for (size_t i = 0; i < kTapsPerPass; ++i) {
        const bool exists = first + i < taps.size();
        pass.sources[i] = exists ? row_of_ring(row + taps[first + i].row) + taps[first + i].column : zeros.data();
        pass.weights[i] = exists ? static_cast<T>(taps[first + i].weight) : T(0);
      }
      add(pass, sum.data(), width);
    }
    for (const Tap& tap : unbounded_[image]) {
      if (row + tap.row < 0 || row + tap.row >= height) continue;
      const T* source = row_of_ring(row + tap.row) + tap.column;
      const int64_t first = std::max<int64_t>(-tap.column, 0), last = std::min(width, width - tap.column);
      for (int64_t i = first; i < last; ++i) sum[i] += static_cast<T>(tap.weight) * source[i];
    }
    void* target = target_.at(image, channel, row, 0);
    T* place = target_of(target, target_.dtype, target_.strides[3], sum.data());
    if (place != sum.data()) std::copy(sum.begin(), sum.end(), place);
    store(place, target, target_.dtype, target_.strides[3], width);
  }
}

}  // namespace fastgan
