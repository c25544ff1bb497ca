#include <utility>
#include <vector>

#include "adversarial_sweep.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {
namespace {

// Blocks per thread, at least: 65536 logits, some 50 us of cross entropy. PyTorch's own operations on a scale of this
// size run in one thread, too, and on a busy machine waking a second one for less may take a time slice.
constexpr int64_t kGrainBlocks = 16;

std::tuple<Tensor, Tensor, Tensor> side_losses_cpu(
    const std::vector<Tensor>& logits, int64_t reals, int64_t game, double sign, double real_label, double fake_label,
    double factor, int64_t reduction, bool with_statistics, bool with_slopes) {
  STD_TORCH_CHECK(!logits.empty(), "side_losses: there are no logits");
  STD_TORCH_CHECK(game >= 0 && static_cast<Game>(game) < Game::kRelativistic, "side_losses: there is no game ", game);
  AdversarialOptions options{static_cast<Game>(game), sign, real_label, fake_label};
  options.with_statistics = with_statistics;
  options.reduction = static_cast<Reduction>(reduction);
  options.factor = factor;
  ScalarType dtype = ScalarType::Float;
  int64_t count = 0;
  for (const Tensor& each : logits) {
    if (each.scalar_type() == ScalarType::Double) dtype = ScalarType::Double;
    count += each.numel();
  }
  const Tensor& first = logits[0];
  const bool reduced = options.reduction != Reduction::kNone;
  const int64_t size = size_of(dtype_of(dtype)), scales = static_cast<int64_t>(logits.size());
  Tensor loss = reduced ? torch::stable::new_empty(first, {}, dtype) : torch::stable::new_empty(first, {count}, dtype);
  Tensor slopes = torch::stable::new_empty(first, {with_slopes ? count : 0}, dtype);
  Tensor statistics = torch::stable::new_empty(first, {with_statistics ? scales : 0, 4}, dtype);
  char* next_slope = with_slopes ? static_cast<char*>(slopes.data_ptr()) : nullptr;
  char* next_loss = reduced ? nullptr : static_cast<char*>(loss.data_ptr());
  std::vector<Logits> tensors(logits.size());
  for (int64_t i = 0; i < scales; ++i) {
    const int64_t bytes = logits[i].numel() * size;
    tensors[i].data = logits[i].data_ptr();
    tensors[i].dtype = dtype_of(logits[i].scalar_type());
    tensors[i].count = logits[i].numel();
    tensors[i].real = i < reals;
    tensors[i].slopes = next_slope;
    tensors[i].losses = next_loss;
    if (next_slope) next_slope += bytes;
    if (next_loss) next_loss += bytes;
  }
  AdversarialSweep sweep(options, std::move(tensors));
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.run(block); });
  if (reduced) {
    const double value = sweep.loss();
    store(&value, loss.data_ptr(), dtype_of(dtype), 1, 1);
  }
  if (with_statistics) {
    std::vector<double> values(4 * logits.size());
    sweep.statistics(values.data());
    store(values.data(), statistics.data_ptr(), dtype_of(dtype), 1, 4 * scales);
  }
  return {loss, statistics, slopes};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) { library.impl("side_losses", TORCH_BOX(&fastgan::side_losses_cpu)); }
