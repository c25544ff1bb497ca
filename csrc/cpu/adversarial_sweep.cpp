#include "adversarial_sweep.h"

#include <algorithm>

#include "clones.h"

namespace fastgan {
namespace {

// Few enough terms to sum in float32 without losing precision.
constexpr int64_t kChunk = 1024;
// Logits per block: a few microseconds of work.
constexpr int64_t kBlock = 4096;

// One chunk of one side's logits.
template <typename T>
struct Side {
  const T* logits;
  T* slopes;
  int64_t count;
  T sign, label, target, threshold, weight;  // slopes are multiplied by weight
};

template <typename T>
struct ChunkSums {
  T loss, logit, probability, correct, violation;
};

template <Game kGame, typename T>
FASTGAN_CLONES ChunkSums<T> sweep_side(const Side<T>& side) {
  const T* logits = side.logits;
  T* slopes = side.slopes;
  const T sign = side.sign, label = side.label, target = side.target, threshold = side.threshold;
  const T weight = side.weight;
  T loss = 0, logit = 0, probability = 0, correct = 0, violation = 0;
#pragma omp simd reduction(+ : loss, logit, probability, correct, violation)
  for (int64_t i = 0; i < side.count; ++i) {
    const LogitTerms<T> terms = discriminator_terms<kGame>(sign * logits[i], label, target, threshold);
    loss += terms.loss;
    logit += logits[i];
    probability += terms.probability;
    correct += terms.correct;
    violation += terms.violation;
    slopes[i] = weight * terms.slope;
  }
  return {loss, logit, probability, correct, violation};
}

template <typename T>
ChunkSums<T> sweep_side(Game game, const Side<T>& side) {
  switch (game) {
    case Game::kCrossEntropy: return sweep_side<Game::kCrossEntropy>(side);
    case Game::kLeastSquares: return sweep_side<Game::kLeastSquares>(side);
    case Game::kHinge: return sweep_side<Game::kHinge>(side);
    default: return sweep_side<Game::kWasserstein>(side);
  }
}

// One chunk of pairs of logits.
template <typename T>
struct Pairs {
  const T *raised, *lowered;
  T *raised_slopes, *lowered_slopes;
  int64_t count;
  T sign, weight;  // slopes are multiplied by weight
};

// Returns the sum of the relativistic terms.
template <typename T>
FASTGAN_CLONES double sweep_pairs(const Pairs<T>& pairs) {
  const T *raised = pairs.raised, *lowered = pairs.lowered;
  T *up = pairs.raised_slopes, *down = pairs.lowered_slopes;
  const T sign = pairs.sign, weight = pairs.weight;
  double loss = 0;
#pragma omp simd reduction(+ : loss)
  for (int64_t i = 0; i < pairs.count; ++i) {
    const Softplus<T> soft = softplus(sign * (raised[i] - lowered[i]));
    const T slope = weight * soft.slope;
    loss += soft.positive + soft.rest;
    up[i] = slope;
    down[i] = -slope;
  }
  return loss;
}

int64_t blocks_of(int64_t count) { return (count + kBlock - 1) / kBlock; }

const void* at(const Logits& logits, int64_t index) {
  return static_cast<const char*>(logits.data) + index * size_of(logits.dtype);
}

// The destination of the slopes: the output, or `discarded` if the caller wants none.
template <typename T>
T* slopes_at(const Logits& logits, int64_t index, T* discarded) {
  return logits.slopes ? static_cast<T*>(logits.slopes) + index : discarded;
}

}  // namespace

AdversarialSweep::AdversarialSweep(AdversarialOptions options, Logits real, Logits fake)
    : options_(options),
      real_(real),
      fake_(fake),
      pairs_(options.game == Game::kRelativistic),
      threshold_(options.game == Game::kLeastSquares ? (options.real_label + options.fake_label) / 2 : 0),
      real_blocks_(blocks_of(real.count)),
      fake_blocks_(blocks_of(fake.count)),
      partial_(real_blocks_ + fake_blocks_) {}

void AdversarialSweep::run(int64_t block) {
  const bool is_double = fake_.dtype == Dtype::kFloat64 || (real_.count > 0 && real_.dtype == Dtype::kFloat64);
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    const bool real = !pairs_ && block < real_blocks_;
    const int64_t number = real || pairs_ ? block : block - real_blocks_, begin = number * kBlock;
    if (pairs_) {
      run_pairs<T>(begin, std::min(begin + kBlock, fake_.count), partial_[block], partial_[real_blocks_ + block]);
    } else if (real) {
      run_side<T>(real_, options_.real_label, 1, begin, std::min(begin + kBlock, real_.count), partial_[block]);
    } else if (options_.generator) {
      run_side<T>(fake_, options_.real_label, 1, begin, std::min(begin + kBlock, fake_.count), partial_[block]);
    } else {
      run_side<T>(fake_, options_.fake_label, -1, begin, std::min(begin + kBlock, fake_.count), partial_[block]);
    }
  };
  is_double ? typed(0.0) : typed(0.0f);
}

template <typename T>
void AdversarialSweep::run_side(
    const Logits& logits, double label, double target, int64_t begin, int64_t end, Sums& sums) const {
  alignas(64) T values[kChunk], discarded[kChunk];
  // G's hinge loss equals its Wasserstein loss.
  const Game game = options_.generator && options_.game == Game::kHinge ? Game::kWasserstein : options_.game;
  for (int64_t i = begin; i < end; i += kChunk) {
    Side<T> side;
    side.count = std::min(kChunk, end - i);
    side.logits = load(at(logits, i), logits.dtype, 1, side.count, values);
    side.slopes = slopes_at(logits, i, discarded);
    side.sign = static_cast<T>(options_.sign);
    side.label = static_cast<T>(label);
    side.target = static_cast<T>(target);
    side.threshold = static_cast<T>(threshold_);
    side.weight = static_cast<T>(options_.sign / static_cast<double>(logits.count));
    const ChunkSums<T> chunk = sweep_side(game, side);
    sums.loss += chunk.loss;
    sums.logit += chunk.logit;
    sums.probability += chunk.probability;
    sums.correct += chunk.correct;
    sums.violation += chunk.violation;
  }
}

template <typename T>
void AdversarialSweep::run_pairs(int64_t begin, int64_t end, Sums& real_sums, Sums& fake_sums) const {
  alignas(64) T first[kChunk], second[kChunk], discarded[2][kChunk];
  const Logits &raised = options_.generator ? real_ : fake_, &lowered = options_.generator ? fake_ : real_;
  const T weight = static_cast<T>(options_.sign / static_cast<double>(fake_.count));
  for (int64_t i = begin; i < end; i += kChunk) {
    const int64_t count = std::min(kChunk, end - i);
    Pairs<T> pairs;
    pairs.raised = load(at(raised, i), raised.dtype, 1, count, first);
    pairs.lowered = load(at(lowered, i), lowered.dtype, 1, count, second);
    pairs.raised_slopes = slopes_at(raised, i, discarded[0]);
    pairs.lowered_slopes = slopes_at(lowered, i, discarded[1]);
    pairs.count = count;
    pairs.sign = static_cast<T>(options_.sign);
    pairs.weight = weight;
    fake_sums.loss += sweep_pairs(pairs);
  }
  if (options_.generator) return;
  // Only the statistics are kept: the Wasserstein loss computed alongside is replaced, its slopes are discarded.
  const auto count_side = [&](Logits side, double target, Sums& sums) {
    side.slopes = nullptr;
    Sums side_sums;
    run_side<T>(side, 0, target, begin, end, side_sums);
    side_sums.loss = sums.loss;
    sums = side_sums;
  };
  count_side(real_, 1, real_sums);
  count_side(fake_, -1, fake_sums);
}

AdversarialSweep::Sums AdversarialSweep::total(int64_t first, int64_t count) const {
  Sums sums;
  for (int64_t block = first; block < first + count; ++block) {
    const Sums& one = partial_[block];
    sums.loss += one.loss;
    sums.logit += one.logit;
    sums.probability += one.probability;
    sums.correct += one.correct;
    sums.violation += one.violation;
  }
  return sums;
}

double AdversarialSweep::loss() const {
  const Sums real = total(0, real_blocks_), fake = total(real_blocks_, fake_blocks_);
  const double real_loss = real_.count && !pairs_ ? real.loss / static_cast<double>(real_.count) : 0;
  return real_loss + fake.loss / static_cast<double>(fake_.count);
}

void AdversarialSweep::statistics(double (&values)[8]) const {
  const Sums sides[2] = {total(0, real_blocks_), total(real_blocks_, fake_blocks_)};
  for (int i = 0; i < 2; ++i) {
    const double count = static_cast<double>(i == 0 ? real_.count : fake_.count);
    values[4 * i] = sides[i].logit / count;
    values[4 * i + 1] = sides[i].probability / count;
    values[4 * i + 2] = sides[i].correct / count;
    values[4 * i + 3] = sides[i].violation / count;
  }
}

}  // namespace fastgan
