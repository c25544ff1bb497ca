#include <utility>
#include <vector>

#include "adversarial_sweep.h"
#include "parallel.h"

namespace fastgan {
namespace {

// A block takes a few microseconds; waking a thread pays off from two blocks on.
constexpr int64_t kGrainBlocks = 2;

Logits logits_of(const Tensor& logits, bool real, void* slopes) {
  Logits result;
  result.data = logits.data_ptr();
  result.dtype = dtype_of(logits.scalar_type());
  result.count = logits.numel();
  result.real = real;
  result.slopes = slopes;
  return result;
}

std::tuple<Tensor, Tensor, Tensor> adversarial_cpu(
    const std::optional<Tensor>& real, const Tensor& fake, int64_t game, bool generator, double sign, double real_label,
    double fake_label, bool with_slopes) {
  const bool is_double =
      fake.scalar_type() == ScalarType::Double || (real && real->scalar_type() == ScalarType::Double);
  const ScalarType dtype = is_double ? ScalarType::Double : ScalarType::Float;
  const int64_t real_count = real ? real->numel() : 0;
  STD_TORCH_CHECK(
      static_cast<Game>(game) != Game::kRelativistic || real_count == fake.numel(),
      "adversarial: real must have as many elements as fake, ", fake.numel(), ", got ", real_count);
  Tensor slopes = torch::stable::new_empty(fake, {with_slopes ? real_count + fake.numel() : 0}, dtype);
  char* real_slopes = with_slopes ? static_cast<char*>(slopes.data_ptr()) : nullptr;
  char* fake_slopes = with_slopes ? real_slopes + real_count * size_of(dtype_of(dtype)) : nullptr;
  AdversarialOptions options{static_cast<Game>(game), sign, real_label, fake_label};
  options.generator = generator;
  options.with_statistics = !generator;
  // G's loss wants its fakes taken for real; its hinge loss equals its Wasserstein loss.
  if (generator && options.game == Game::kHinge) options.game = Game::kWasserstein;
  std::vector<Logits> tensors;
  if (real) tensors.push_back(logits_of(*real, true, real_slopes));
  tensors.push_back(logits_of(fake, generator && !real, fake_slopes));
  AdversarialSweep sweep(options, std::move(tensors));
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.run(block); });

  Tensor loss = torch::stable::new_empty(fake, {}, dtype);
  Tensor statistics = torch::stable::new_empty(fake, {generator ? 0 : 8}, dtype);
  const double value = sweep.loss();
  store(&value, loss.data_ptr(), dtype_of(dtype), 1, 1);
  if (!generator) {
    double values[8];
    sweep.statistics(values);
    store(values, statistics.data_ptr(), dtype_of(dtype), 1, 8);
  }
  return {loss, statistics, slopes};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) { library.impl("adversarial", TORCH_BOX(&fastgan::adversarial_cpu)); }
