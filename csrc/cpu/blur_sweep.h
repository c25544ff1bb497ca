#pragma once

#include <cstdint>
#include <vector>

#include "pixels.h"

// The CPU kernel of blur without torch: convolves every channel of image n with kernel n, zero-padded at the border.
namespace fastgan {

class BlurSweep {
 public:
  // `kernels` is [N, size, size], size odd. Taps of weight zero are skipped and cost nothing.
  BlurSweep(ImageView source, ImageView target, const std::vector<double>& kernels, int64_t size);

  int64_t blocks() const { return blocks_; }

  // Any thread may run any block, each exactly once.
  void run(int64_t block) const;

 private:
  struct Tap {
    int64_t row, column;  // relative to the pixel
    double weight;
  };

  template <typename T>
  void run_typed(int64_t block) const;

  ImageView source_, target_;
  int64_t size_, strips_, blocks_;
  // Per image. Taps that are not finite are kept apart: times the zeros of the padding they would give NaN.
  std::vector<std::vector<Tap>> taps_, unbounded_;
};

}  // namespace fastgan
