#pragma once

#include <cstdint>
#include <vector>

#include "../math/photometric.h"
#include "pixels.h"

// The CPU kernels of the photometric distortions without torch (csrc/math/photometric.h): one sweep forward, one
// backward. The noise of pixel (n, y, x) depends on its number (n H + y) W + x and the seed alone.
namespace fastgan {

class PhotometricSweep {
 public:
  // `source` and `target` are x and z forward, the gradients of z and x backward. One set of parameters per image.
  // `masks` is N H W, contiguous: written forward (if not null), read backward.
  PhotometricSweep(ImageView source, ImageView target, std::vector<Photometric<double>> parameters, uint8_t* masks);

  int64_t blocks() const { return blocks_; }

  // Any thread may run any block, each exactly once.
  void forward(int64_t block, uint64_t seed) const;
  void backward(int64_t block) const;

 private:
  template <typename T, typename Run>
  void for_each_chunk(int64_t block, const Run& run) const;

  ImageView source_, target_;
  std::vector<Photometric<double>> parameters_;
  uint8_t* masks_;
  int64_t chunks_per_row_, chunks_per_block_, blocks_;
};

}  // namespace fastgan
