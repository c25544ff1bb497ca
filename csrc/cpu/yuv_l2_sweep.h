#pragma once

#include <cstdint>
#include <vector>

#include "pixels.h"

// The CPU kernel of yuv_l2 without torch: one sweep over two images gives the three channel sums and, if wanted, the
// direction (csrc/math/yuv_l2.h). The work is divided into blocks whose bounds depend on the shape alone, and each
// block writes its own partial sums, so the result is bit-identical for any number of threads.
namespace fastgan {

// border_ramp of each row or column.
std::vector<double> border_ramps(int64_t size);

class YuvL2Sweep {
 public:
  // `direction.data` may be null. All three have the same sizes.
  YuvL2Sweep(ImageView x, ImageView y, ImageView direction, double edge_gain, const double (&scales)[3]);

  int64_t blocks() const { return blocks_; }

  // Any thread may run any block, each exactly once.
  void run(int64_t block);

  // Once all blocks have run: the means of d_Y^2, d_U^2 and d_V^2.
  void channel_means(double (&means)[3]) const;

 private:
  template <typename T>
  void run_typed(int64_t block);

  ImageView x_, y_, direction_;
  double edge_gain_;
  double scales_[3];
  std::vector<double> row_ramp_, column_ramp_;
  std::vector<float> column_ramp_float_;
  int64_t chunks_per_row_, chunks_per_block_, blocks_;
  std::vector<double> partial_sums_;  // [blocks, 3]
};

}  // namespace fastgan
