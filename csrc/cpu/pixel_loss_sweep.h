#pragma once

#include <cstdint>
#include <vector>

#include "../math/pixel_loss.h"
#include "pixels.h"

// The CPU kernel of pixel_loss without torch: one sweep over x and y gives the sums of all terms and, if wanted, the
// gradient (fastgan/ops/pixel_loss.py has the formulas). The work is divided into blocks whose bounds depend on the
// shape alone, and each writes its own partial sums, so the result is bit-identical for any number of threads.
namespace fastgan {

struct PixelLossOptions {
  PixelKind kind = PixelKind::kL1, tv_kind = PixelKind::kL1;
  PixelColour colour = PixelColour::kRgb;
  double eps = 1e-12, delta = 1, scales[3] = {1, 1, 1}, edge_gain = 0;
  bool has_sobel = false, has_tv = false;
  // Of each term's slopes in the gradient: pixels, Sobel, vertical and horizontal differences.
  double factors[4] = {1, 0, 0, 0};
};

class PixelLossSweep {
 public:
  // x and y are N C H W, `weight` is N K H W with the K channels that are compared, and `direction` is like x. The data
  // of y, weight and direction may be null: no difference, no weights, no gradient.
  PixelLossSweep(ImageView x, ImageView y, ImageView weight, ImageView direction, PixelLossOptions options);

  int64_t blocks() const { return blocks_; }

  // Any thread may run any blocks, each exactly once. Those of one call share their buffers.
  void run(int64_t begin, int64_t end);

  // Once all blocks have run: of each term, in the order of the factors. YUV's channels are weighed by their scales.
  void sums(double (&sums)[4]) const;

 private:
  template <typename T>
  friend class PixelTile;
  template <typename T>
  friend class NeighbourTile;

  template <template <typename> class Tile, typename T>
  void run_tiles(int64_t begin, int64_t end);

  ImageView x_, y_, weight_, direction_;
  PixelLossOptions options_;
  bool has_stencil_;
  int64_t outputs_;                         // channels that are compared in a plane: 1, or 3 in YUV
  int64_t planes_;                          // in RGB each channel is one
  int64_t rows_, columns_, down_, across_;  // of a tile; tiles of a plane
  int64_t tiles_per_block_, blocks_;
  std::vector<double> row_ramp_, column_ramp_;
  std::vector<float> column_ramp_float_;
  std::vector<double> partial_sums_;  // [blocks, 4]
};

}  // namespace fastgan
