#pragma once

#include <cstdint>
#include <vector>

#include "../math/photometric.h"
#include "pixels.h"

// The CPU kernels of the photometric distortions without torch (csrc/math/photometric.h): one sweep forward, one
// backward. Pixel (n, y, x) has the random numbers of counter (n H + y) W + x, whoever computes it.
namespace fastgan {

class PhotometricSweep {
 public:
  // From x to z, or from the gradient of z to that of x. One set of parameters per image. `masks` is N H W, contiguous:
  // written forward (if not null), read backward.
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
