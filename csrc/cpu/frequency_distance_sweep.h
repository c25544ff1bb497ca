#pragma once

#include <vector>

#include "pixels.h"

// Weighted sums of the squares of spectra, the weights' maxima, and the gradient; without torch. Block bounds do not
// depend on the number of threads, so the results are bit-identical for any number.
namespace fastgan {

// Halves of spectra, not normalized, contiguous, as pairs of numbers. `matrix` has weights for them, or is null; its
// planes, each contiguous, are that of sample, patch and channel.
struct Spectra {
  const void* data = nullptr;
  Dtype dtype = Dtype::kFloat32;  // or kFloat64
  int64_t planes[3] = {0, 0, 0};  // samples, patches, channels
  int64_t rows = 0, columns = 0, width = 0;
  const void* matrix = nullptr;
  int64_t matrix_strides[3] = {0, 0, 0};
};

struct FrequencyWeights {
  double alpha = 1;
  bool log = false;
};

class FrequencyDistanceSweep {
 public:
  // `of_batch`: one maximum for all planes, in place of one for each.
  FrequencyDistanceSweep(const Spectra& spectra, const FrequencyWeights& weights, bool of_batch);

  int64_t blocks() const { return static_cast<int64_t>(parts_.size()); }
  void run(int64_t block);

  // Valid once all blocks have run. The maxima are 1 where a matrix has the weights.
  std::vector<double> maxima() const;
  double loss() const;

  // target = factor * weight / maximum * vectors / pixels, for as many vectors as the spectra have.
  void differentiate(
      int64_t block, const std::vector<double>& maxima, double factor, const void* vectors, void* target) const;

 private:
  struct Part {
    double sum = 0, largest = 0;
  };
  struct Range {
    int64_t plane, begin, count;  // of pairs within the plane
  };
  Range range(int64_t block) const;
  double pixels() const { return static_cast<double>(spectra_.rows * spectra_.width); }
  const char* matrix_of(int64_t plane) const;

  Spectra spectra_;
  FrequencyWeights weights_;
  bool of_batch_;
  int64_t plane_count_, rows_per_block_, blocks_per_plane_;
  std::vector<Part> parts_;  // [blocks]
};

}  // namespace fastgan
