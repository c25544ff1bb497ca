#pragma once

#include <cstdint>
#include <vector>

#include "pixels.h"
#include "ssim_rows.h"

// The CPU kernel of ssim without torch: one sweep over two images gives, for each image and channel, what similarity
// is lost and the mean of |x - y|, and writes the gradients that are wanted. A block is a strip of one channel: its
// moments, its derivatives and its gradient pass through buffers of some tens of rows, so that only the images are read
// from memory and only the gradients are written. Blocks depend on the shape alone, and each has its own partial sums.
namespace fastgan {

// What lies beyond the border.
enum class SsimPadding {
  kNone,     // nothing: windows lie within the image
  kZeros,    // zeros, for windows around every pixel
  kReflect,  // the image, mirrored at its outermost pixels
};

struct SsimOptions {
  std::vector<double> taps;  // [radius + 1], from the centre outwards; the window's sum is 1
  double c1 = 0, c2 = 0;
  SsimPadding padding = SsimPadding::kNone;
  bool contrast = false;      // contrast alone, without luminance
  double weight = 1;          // of 1 - similarity in the loss
  double l1_weight = 0;       // of |x - y|
  double gradient_scale = 1;  // of the gradients of each channel's loss
};

class SsimSweep {
 public:
  // All four have the same sizes. The data of `grad_x` and `grad_y` may be null.
  SsimSweep(ImageView x, ImageView y, ImageView grad_x, ImageView grad_y, SsimOptions options);

  int64_t blocks() const { return planes_ * bands_ * strips_; }

  // Any thread may run any block, each exactly once.
  void run(int64_t block);

  // Once all blocks have run: of each image and channel.
  std::vector<double> losses() const;

 private:
  template <typename T>
  class Strip;

  ImageView x_, y_, grad_x_, grad_y_;
  SsimOptions options_;
  Slopes slopes_;
  int64_t radius_, planes_, bands_, strips_, strip_columns_;
  double windows_;                    // per image and channel
  std::vector<double> partial_sums_;  // [blocks, 2]: of 1 - similarity and |x - y|
};

}  // namespace fastgan
