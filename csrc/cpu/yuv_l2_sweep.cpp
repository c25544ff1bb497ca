#include "yuv_l2_sweep.h"

#include <algorithm>

#include "../math/yuv_l2.h"
#include "clones.h"

namespace fastgan {
namespace {

// A chunk's nine channel rows fit in the first-level cache, and a vector lane sums at most 256 terms, few enough for
// float32.
constexpr int64_t kChunk = 1024;
// Pixels per block: a few microseconds of work, so that threads share the load evenly and partial sums are few.
constexpr int64_t kBlockPixels = 8192;

template <typename T>
struct Chunk {
  const T *x[3], *y[3];
  T* direction[3];
  const T* column_ramp;
  T row_ramp, edge_gain, scales[3];
  int64_t count;
};

template <bool kDirection, typename T>
FASTGAN_HOST_DEVICE void sweep_chunk(const Chunk<T>& chunk, double* sums) {
  const T *xr = chunk.x[0], *xg = chunk.x[1], *xb = chunk.x[2];
  const T *yr = chunk.y[0], *yg = chunk.y[1], *yb = chunk.y[2];
  T *red = chunk.direction[0], *green = chunk.direction[1], *blue = chunk.direction[2];
  const T* column_ramp = chunk.column_ramp;
  const T row_ramp = chunk.row_ramp, edge_gain = chunk.edge_gain;
  const T scale_y = chunk.scales[0], scale_u = chunk.scales[1], scale_v = chunk.scales[2];
  T sum_y = 0, sum_u = 0, sum_v = 0;
#pragma omp simd reduction(+ : sum_y, sum_u, sum_v)
  for (int64_t i = 0; i < chunk.count; ++i) {
    const T weight = 1 + edge_gain * (1 - row_ramp * column_ramp[i]);
    const auto pixel = yuv_l2_pixel<T>(xr[i] - yr[i], xg[i] - yg[i], xb[i] - yb[i], weight, scale_y, scale_u, scale_v);
    sum_y += pixel.squared_y;
    sum_u += pixel.squared_u;
    sum_v += pixel.squared_v;
    if (kDirection) {
      red[i] = pixel.direction_r;
      green[i] = pixel.direction_g;
      blue[i] = pixel.direction_b;
    }
  }
  sums[0] += sum_y;
  sums[1] += sum_u;
  sums[2] += sum_v;
}

FASTGAN_CLONES void sweep_loss(const Chunk<float>& chunk, double* sums) { sweep_chunk<false>(chunk, sums); }
FASTGAN_CLONES void sweep_loss(const Chunk<double>& chunk, double* sums) { sweep_chunk<false>(chunk, sums); }
FASTGAN_CLONES void sweep_both(const Chunk<float>& chunk, double* sums) { sweep_chunk<true>(chunk, sums); }
FASTGAN_CLONES void sweep_both(const Chunk<double>& chunk, double* sums) { sweep_chunk<true>(chunk, sums); }

}  // namespace

std::vector<double> border_ramps(int64_t size) {
  std::vector<double> ramps(size, 1.0);
  for (int64_t i = 0; 4 * i < size; ++i) ramps[i] = ramps[size - 1 - i] = border_ramp(i, size);
  return ramps;
}

YuvL2Sweep::YuvL2Sweep(ImageView x, ImageView y, ImageView direction, double edge_gain, const double (&scales)[3])
    : x_(x), y_(y), direction_(direction), edge_gain_(edge_gain) {
  std::copy(scales, scales + 3, scales_);
  const int64_t height = x.sizes[2], width = x.sizes[3];
  row_ramp_ = edge_gain != 0 ? border_ramps(height) : std::vector<double>(height, 1.0);
  column_ramp_ = edge_gain != 0 ? border_ramps(width) : std::vector<double>(width, 1.0);
  column_ramp_float_.assign(column_ramp_.begin(), column_ramp_.end());
  chunks_per_row_ = (width + kChunk - 1) / kChunk;
  chunks_per_block_ = std::max<int64_t>(1, kBlockPixels / std::clamp<int64_t>(width, 1, kChunk));
  const int64_t chunks = x.sizes[0] * height * chunks_per_row_;
  blocks_ = (chunks + chunks_per_block_ - 1) / chunks_per_block_;
  partial_sums_.assign(3 * blocks_, 0.0);
}

void YuvL2Sweep::run(int64_t block) {
  const bool is_double = x_.dtype == Dtype::kFloat64 || y_.dtype == Dtype::kFloat64;
  is_double ? run_typed<double>(block) : run_typed<float>(block);
}

template <typename T>
void YuvL2Sweep::run_typed(int64_t block) {
  const int64_t height = x_.sizes[2], width = x_.sizes[3];
  const int64_t last = std::min((block + 1) * chunks_per_block_, x_.sizes[0] * height * chunks_per_row_);
  double* sums = &partial_sums_[3 * block];
  alignas(64) T buffers[9][kChunk];
  Chunk<T> chunk;
  chunk.edge_gain = static_cast<T>(edge_gain_);
  for (int c = 0; c < 3; ++c) chunk.scales[c] = static_cast<T>(scales_[c]);
  for (int64_t index = block * chunks_per_block_; index < last; ++index) {
    const int64_t line = index / chunks_per_row_, column = index % chunks_per_row_ * kChunk;
    const int64_t image = line / height, row = line % height;
    chunk.count = std::min(kChunk, width - column);
    chunk.row_ramp = static_cast<T>(row_ramp_[row]);
    if constexpr (sizeof(T) == sizeof(float)) {
      chunk.column_ramp = &column_ramp_float_[column];
    } else {
      chunk.column_ramp = &column_ramp_[column];
    }
    for (int c = 0; c < 3; ++c) {
      chunk.x[c] = load(x_.at(image, c, row, column), x_.dtype, x_.strides[3], chunk.count, buffers[c]);
      chunk.y[c] = load(y_.at(image, c, row, column), y_.dtype, y_.strides[3], chunk.count, buffers[3 + c]);
    }
    if (!direction_.data) {
      sweep_loss(chunk, sums);
      continue;
    }
    for (int c = 0; c < 3; ++c) {
      chunk.direction[c] =
          target_of(direction_.at(image, c, row, column), direction_.dtype, direction_.strides[3], buffers[6 + c]);
    }
    sweep_both(chunk, sums);
    for (int c = 0; c < 3; ++c) {
      store(
          chunk.direction[c], direction_.at(image, c, row, column), direction_.dtype, direction_.strides[3],
          chunk.count);
    }
  }
}

void YuvL2Sweep::channel_means(double (&means)[3]) const {
  const double pixels = static_cast<double>(x_.sizes[0] * x_.sizes[2] * x_.sizes[3]);
  for (int c = 0; c < 3; ++c) {
    double sum = 0;
    for (int64_t block = 0; block < blocks_; ++block) sum += partial_sums_[3 * block + c];
    means[c] = sum / pixels;
  }
}

}  // namespace fastgan
