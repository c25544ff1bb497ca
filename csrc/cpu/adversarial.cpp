#include "../ops.h"
#include "adversarial_sweep.h"
#include "parallel.h"

namespace fastgan {
namespace {

// A block takes some microseconds: less than two are not worth a thread.
constexpr int64_t kGrainBlocks = 2;

Logits logits_of(const Tensor& logits, const Tensor& slopes) {
  Logits result;
  result.data = logits.data_ptr();
  result.dtype = dtype_of(logits.scalar_type());
  result.count = logits.numel();
  if (slopes.numel() > 0) result.slopes = slopes.data_ptr();
  return result;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> adversarial_cpu(
    const std::optional<Tensor>& real, const Tensor& fake, int64_t game, bool generator, double sign, double real_label,
    double fake_label, bool with_slopes) {
  const bool wide = fake.scalar_type() == ScalarType::Double || (real && real->scalar_type() == ScalarType::Double);
  const ScalarType dtype = wide ? ScalarType::Double : ScalarType::Float;
  const auto none = [&] { return torch::stable::new_empty(fake, {0}, dtype); };
  Tensor real_slopes = real && with_slopes ? empty_like(*real, dtype) : none();
  Tensor fake_slopes = with_slopes ? empty_like(fake, dtype) : none();
  AdversarialSweep sweep(
      {static_cast<Game>(game), generator, sign, real_label, fake_label},
      real ? logits_of(*real, real_slopes) : Logits(), logits_of(fake, fake_slopes));
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
  return {loss, statistics, real_slopes, fake_slopes};
}

}  // namespace fastgan
