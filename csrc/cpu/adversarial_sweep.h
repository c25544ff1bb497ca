#pragma once

#include <vector>

#include "../math/adversarial.h"
#include "pixels.h"

// The CPU kernel of the adversarial losses without torch: contiguous logits in, slopes and partial sums out. Block
// bounds do not depend on the number of threads, so the sums are bit-identical for any number.
namespace fastgan {

struct AdversarialOptions {
  Game game;
  bool generator;  // G's loss if true, else D's
  double sign, real_label, fake_label;
};

struct Logits {
  const void* data = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int64_t count = 0;
  void* slopes = nullptr;  // float64 if either side is, else float32; null: not wanted
};

class AdversarialSweep {
 public:
  AdversarialSweep(AdversarialOptions options, Logits real, Logits fake);

  int64_t blocks() const { return pairs_ ? fake_blocks_ : real_blocks_ + fake_blocks_; }
  void run(int64_t block);

  // Valid once all blocks have run.
  double loss() const;
  // For real and then for fake: mean logit, mean probability of being real, accuracy, margin violations.
  void statistics(double (&values)[8]) const;

 private:
  struct Sums {
    double loss = 0, logit = 0, probability = 0, correct = 0, violation = 0;
  };
  template <typename T>
  void run_side(const Logits& logits, double label, double target, int64_t begin, int64_t end, Sums& sums) const;
  template <typename T>
  void run_pairs(int64_t begin, int64_t end, Sums& real, Sums& fake) const;
  Sums total(int64_t first, int64_t count) const;

  AdversarialOptions options_;
  Logits real_, fake_;
  bool pairs_;
  double threshold_;
  int64_t real_blocks_, fake_blocks_;
  std::vector<Sums> partial_;  // one entry per block: real blocks first, then fake ones
};

}  // namespace fastgan
