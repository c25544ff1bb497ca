#pragma once

#include <vector>

#include "../math/adversarial.h"
#include "pixels.h"

// The CPU kernel of the adversarial losses without torch: contiguous logits in, losses, slopes and partial sums out.
// Block bounds do not depend on the number of threads, so the sums are bit-identical for any number.
namespace fastgan {

// The numbers are part of the operator's schema (fastgan/ops/side_losses.py).
enum class Reduction : int { kMean = 0, kSum = 1, kNone = 2 };

struct AdversarialOptions {
  Game game;
  double sign, real_label, fake_label;
  bool generator = false;  // of pairs, G's loss if true, else D's
  bool with_statistics = true;
  Reduction reduction = Reduction::kMean;
  double factor = 1;
};

// One tensor of logits, of the real or of the fake side.
struct Logits {
  const void* data = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int64_t count = 0;
  bool real = false;
  void* slopes = nullptr;  // float64 if any tensor is, else float32; null: not wanted
  void* losses = nullptr;  // likewise; one per logit if nothing is reduced
};

class AdversarialSweep {
 public:
  // The relativistic game takes two tensors, real before fake.
  AdversarialSweep(AdversarialOptions options, std::vector<Logits> tensors);

  int64_t blocks() const { return pairs_ ? first_block_[1] : first_block_.back(); }
  void run(int64_t block);

  // Valid once all blocks have run: the sum of all tensors' losses.
  double loss() const;
  // For each tensor: mean logit, mean probability of being real, accuracy, margin violations.
  void statistics(double* values) const;

 private:
  struct Sums {
    double loss = 0, logit = 0, probability = 0, correct = 0, violation = 0;
  };
  template <typename T>
  void run_side(const Logits& logits, Game game, int64_t begin, int64_t end, Sums& sums) const;
  template <typename T>
  void run_pairs(int64_t begin, int64_t end, Sums& real, Sums& fake) const;
  Sums total(size_t tensor) const;
  double divisor(const Logits& logits) const;

  AdversarialOptions options_;
  std::vector<Logits> tensors_;
  bool pairs_, is_double_ = false;
  double threshold_;
  std::vector<int64_t> first_block_ = {0};  // of each tensor, and the number of all
  std::vector<Sums> partial_;               // one entry per block
};

}  // namespace fastgan
