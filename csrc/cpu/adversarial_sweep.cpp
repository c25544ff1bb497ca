#include "adversarial_sweep.h"

#include <algorithm>
#include <utility>

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
  T *slopes, *losses;
  int64_t count;
  T sign, label, target, threshold;
  T weight, factor;  // slopes are multiplied by weight, losses that are written by factor
};

template <typename T>
struct ChunkSums {
  T loss, logit, probability, correct, violation;
};

template <Game kGame, bool kStatistics, bool kLosses, typename T>
FASTGAN_CLONES ChunkSums<T> sweep_side(const Side<T>& side) {
  const T* logits = side.logits;
  T *slopes = side.slopes, *losses = side.losses;
  const T sign = side.sign, label = side.label, target = side.target, threshold = side.threshold;
  const T weight = side.weight, factor = side.factor;
  T loss = 0, logit = 0, probability = 0, correct = 0, violation = 0;
#pragma omp simd reduction(+ : loss, logit, probability, correct, violation)
  for (int64_t i = 0; i < side.count; ++i) {
    const LogitTerms<T> terms = discriminator_terms<kGame>(sign * logits[i], label, target, threshold);
    loss += terms.loss;
    if constexpr (kStatistics) {
      logit += logits[i];
      probability += terms.probability;
      correct += terms.correct;
      violation += terms.violation;
    }
    slopes[i] = weight * terms.slope;
    if constexpr (kLosses) losses[i] = factor * terms.loss;
  }
  return {loss, logit, probability, correct, violation};
}

template <Game kGame, typename T>
ChunkSums<T> sweep_side(bool with_statistics, const Side<T>& side) {
  if (side.losses) return with_statistics ? sweep_side<kGame, true, true>(side) : sweep_side<kGame, false, true>(side);
  return with_statistics ? sweep_side<kGame, true, false>(side) : sweep_side<kGame, false, false>(side);
}

template <typename T>
ChunkSums<T> sweep_side(Game game, bool with_statistics, const Side<T>& side) {
  switch (game) {
    case Game::kCrossEntropy: return sweep_side<Game::kCrossEntropy>(with_statistics, side);
    case Game::kLeastSquares: return sweep_side<Game::kLeastSquares>(with_statistics, side);
    case Game::kHinge: return sweep_side<Game::kHinge>(with_statistics, side);
    default: return sweep_side<Game::kWasserstein>(with_statistics, side);
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

// Where the slopes go: the output, or `discarded` if the caller wants none.
template <typename T>
T* slopes_at(const Logits& logits, int64_t index, T* discarded) {
  return logits.slopes ? static_cast<T*>(logits.slopes) + index : discarded;
}

}  // namespace

AdversarialSweep::AdversarialSweep(AdversarialOptions options, std::vector<Logits> tensors)
    : options_(options),
      tensors_(std::move(tensors)),
      pairs_(options.game == Game::kRelativistic),
      threshold_(options.game == Game::kLeastSquares ? (options.real_label + options.fake_label) / 2 : 0) {
  for (const Logits& logits : tensors_) {
    first_block_.push_back(first_block_.back() + blocks_of(logits.count));
    is_double_ = is_double_ || logits.dtype == Dtype::kFloat64;
  }
  partial_.resize(first_block_.back());
}

void AdversarialSweep::run(int64_t block) {
  size_t tensor = 0;
  while (block >= first_block_[tensor + 1]) ++tensor;
  const Logits& logits = tensors_[tensor];
  const int64_t begin = (block - first_block_[tensor]) * kBlock, end = std::min(begin + kBlock, logits.count);
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    if (pairs_) {
      run_pairs<T>(begin, end, partial_[block], partial_[first_block_[1] + block]);
    } else {
      run_side<T>(logits, options_.game, begin, end, partial_[block]);
    }
  };
  is_double_ ? typed(0.0) : typed(0.0f);
}

// What the sum of a tensor's losses is divided by.
double AdversarialSweep::divisor(const Logits& logits) const {
  return options_.reduction == Reduction::kMean ? static_cast<double>(logits.count) : 1;
}

template <typename T>
void AdversarialSweep::run_side(const Logits& logits, Game game, int64_t begin, int64_t end, Sums& sums) const {
  alignas(64) T values[kChunk], discarded[kChunk];
  for (int64_t i = begin; i < end; i += kChunk) {
    Side<T> side;
    side.count = std::min(kChunk, end - i);
    side.logits = load(at(logits, i), logits.dtype, 1, side.count, values);
    side.slopes = slopes_at(logits, i, discarded);
    side.losses = logits.losses ? static_cast<T*>(logits.losses) + i : nullptr;
    side.sign = static_cast<T>(options_.sign);
    side.label = static_cast<T>(logits.real ? options_.real_label : options_.fake_label);
    side.target = static_cast<T>(logits.real ? 1 : -1);
    side.threshold = static_cast<T>(threshold_);
    side.weight = static_cast<T>(options_.factor * options_.sign / divisor(logits));
    side.factor = static_cast<T>(options_.factor);
    const ChunkSums<T> chunk = sweep_side(game, options_.with_statistics, side);
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
  const Logits &real = tensors_[0], &fake = tensors_[1];
  const Logits &raised = options_.generator ? real : fake, &lowered = options_.generator ? fake : real;
  const T weight = static_cast<T>(options_.sign / static_cast<double>(fake.count));
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
  if (!options_.with_statistics) return;
  // Only the statistics are kept: the Wasserstein loss computed alongside is replaced, its slopes are discarded.
  const auto count_side = [&](Logits side, Sums& sums) {
    side.slopes = nullptr;
    Sums side_sums;
    run_side<T>(side, Game::kWasserstein, begin, end, side_sums);
    side_sums.loss = sums.loss;
    sums = side_sums;
  };
  count_side(real, real_sums);
  count_side(fake, fake_sums);
}

AdversarialSweep::Sums AdversarialSweep::total(size_t tensor) const {
  Sums sums;
  for (int64_t block = first_block_[tensor]; block < first_block_[tensor + 1]; ++block) {
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
  double loss = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) loss += total(i).loss / divisor(tensors_[i]);
  return options_.factor * loss;
}

void AdversarialSweep::statistics(double* values) const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const Sums sums = total(i);
    const double count = static_cast<double>(tensors_[i].count);
    *values++ = sums.logit / count;
    *values++ = sums.probability / count;
    *values++ = sums.correct / count;
    *values++ = sums.violation / count;
  }
}

}  // namespace fastgan
