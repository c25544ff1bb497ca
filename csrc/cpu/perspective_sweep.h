#pragma once

#include <cstdint>
#include <vector>

#include "../math/perspective.h"
#include "pixels.h"

// The CPU kernels of perspective_warp without torch: sampling images through homographies, and the transpose. The
// values of pixels with weight zero have no influence, even if NaN.
namespace fastgan {

// target = warped source + (1 - warped ones) * fill; where `fill.data` is null, fill is zero.
class WarpForward {
 public:
  WarpForward(ImageView source, ImageView target, ImageView fill, std::vector<Homography> homographies);

  int64_t blocks() const { return blocks_; }

  // Any thread may run any block, each exactly once.
  void run(int64_t block) const;

 private:
  template <typename T, typename S>
  void run_typed(int64_t block) const;

  ImageView source_, target_, fill_;
  std::vector<Homography> homographies_;
  int64_t blocks_per_image_, blocks_;
};

// target = the gradient of the source, given that of the warped image. A block is a band of rows of one source image
// and visits the output pixels that sampled it, so that each sum has the same order for any number of threads.
class WarpBackward {
 public:
  WarpBackward(ImageView grad, ImageView target, std::vector<Homography> homographies);

  int64_t blocks() const { return blocks_; }
  void run(int64_t block) const;

 private:
  template <typename T>
  void run_typed(int64_t block) const;

  ImageView grad_, target_;
  std::vector<Homography> homographies_;
  int64_t rows_, bands_, blocks_;
};

}  // namespace fastgan
