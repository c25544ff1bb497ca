#include "pixel_loss_sweep.h"

#include <algorithm>

#include "pixel_loss_neighbours.h"
#include "pixel_loss_tile.h"
#include "yuv_l2_sweep.h"

namespace fastgan {
namespace {

// A vector lane sums at most 256 terms, few enough for float32, and the rows of a chunk fit in the first-level cache.
constexpr int64_t kColumns = 1024;
constexpr int64_t kTilePixels = 8192;
// With neighbours more rows are kept, and those around the tile are computed twice: narrower and higher.
constexpr int64_t kNeighbourColumns = 512;
constexpr int64_t kNeighbourTilePixels = 16384;

int64_t quotient_up(int64_t count, int64_t size) { return (count + size - 1) / size; }

}  // namespace

PixelLossSweep::PixelLossSweep(
    ImageView x, ImageView y, ImageView weight, ImageView direction, PixelLossOptions options)
    : x_(x),
      y_(y),
      weight_(weight),
      direction_(direction),
      options_(options),
      has_stencil_(options.has_sobel || options.has_tv) {
  const int64_t height = x.sizes[2], width = x.sizes[3];
  const bool is_rgb = options.colour == PixelColour::kRgb;
  outputs_ = options.colour == PixelColour::kYuv ? 3 : 1;
  planes_ = x.sizes[0] * (is_rgb ? x.sizes[1] : 1);
  columns_ = std::clamp<int64_t>(width, 1, has_stencil_ ? kNeighbourColumns : kColumns);
  rows_ = std::clamp<int64_t>(height, 1, (has_stencil_ ? kNeighbourTilePixels : kTilePixels) / columns_);
  down_ = quotient_up(height, rows_), across_ = quotient_up(width, columns_);
  tiles_per_block_ = std::max<int64_t>(1, kTilePixels / (rows_ * columns_));
  blocks_ = quotient_up(planes_ * down_ * across_, tiles_per_block_);
  if (options.edge_gain != 0) {  // else an image of one long row would need a longer table than itself
    row_ramp_ = border_ramps(height);
    column_ramp_ = border_ramps(width);
    column_ramp_float_.assign(column_ramp_.begin(), column_ramp_.end());
  }
  partial_sums_.assign(4 * blocks_, 0.0);
}

void PixelLossSweep::run(int64_t begin, int64_t end) {
  const bool is_double = x_.dtype == Dtype::kFloat64 || (y_.data && y_.dtype == Dtype::kFloat64);
  if (has_stencil_)
    return is_double ? run_tiles<NeighbourTile, double>(begin, end) : run_tiles<NeighbourTile, float>(begin, end);
  is_double ? run_tiles<PixelTile, double>(begin, end) : run_tiles<PixelTile, float>(begin, end);
}

template <template <typename> class Tile, typename T>
void PixelLossSweep::run_tiles(int64_t begin, int64_t end) {
  Tile<T> tile(*this);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t last = std::min((block + 1) * tiles_per_block_, planes_ * down_ * across_);
    for (int64_t index = block * tiles_per_block_; index < last; ++index) tile.run(index, &partial_sums_[4 * block]);
  }
}

void PixelLossSweep::sums(double (&sums)[4]) const {
  for (int term = 0; term < 4; ++term) {
    sums[term] = 0;
    for (int64_t block = 0; block < blocks_; ++block) sums[term] += partial_sums_[4 * block + term];
  }
}

}  // namespace fastgan
