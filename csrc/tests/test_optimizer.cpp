// Tests of the optimizers' sweep, and of the CUDA kernel's functions, called thread by thread.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/optimizer_sweep.h"
#include "cuda/optimizer_blocks.h"
#include "math/half.h"
#include "math/philox.h"

using namespace fastgan;

namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

StepNumbers plain_numbers() {
  StepNumbers n = {};
  n.lr = 0.01;
  n.decay = 0.99;
  n.eps = 1e-8;
  n.grad_clip_value = n.grad_clip_norm = n.high = kInfinite;
  n.low = -kInfinite;
  n.rounding_seed = -1;
  return n;
}

// With every option switched on.
StepNumbers all_numbers() {
  StepNumbers n = plain_numbers();
  n.weight_decay = 0.1;
  n.momentum = 0.5;
  n.decay = 0.9;
  n.eps = 1e-4;
  n.maximize = 1;
  n.grad_clip_value = 1.5;
  n.grad_clip_norm = 3;
  n.low = -0.8;
  n.high = 1;
  n.average_weight = 0.25;
  n.average_warmup = 1;
  return n;
}

// One tensor with all its arrays in float32, except that parameter and gradient may be bfloat16.
struct Arrays {
  std::vector<float> first, second, third, average;
  std::vector<float> parameter, grad;
  std::vector<uint16_t> half_parameter, half_grad;
  Dtype type;

  Arrays(int64_t count, Dtype dtype) : type(dtype) {
    uint64_t seed = 0;
    for (auto* array : {&first, &second, &third, &average, &parameter, &grad}) {
      for (int64_t i = 0; i < count; ++i) array->push_back(2 * uniform(philox(seed, i).words[0]) - 1);
      ++seed;
    }
    // Averages of squares must not be below the square of the average.
    for (float& value : first) value = 3 + value;
    for (float& value : third) value = 3 + value;
    for (const float value : parameter) half_parameter.push_back(to_bfloat16(value).bits);
    for (const float value : grad) half_grad.push_back(to_bfloat16(value).bits);
  }
  bool half() const { return type == Dtype::kBFloat16; }
  void* parameter_data() { return half() ? static_cast<void*>(half_parameter.data()) : parameter.data(); }
  void* grad_data() { return half() ? static_cast<void*>(half_grad.data()) : grad.data(); }
  double parameter_at(int64_t i) const { return half() ? to_float(BFloat16{half_parameter[i]}) : parameter[i]; }
};

void sweep(Arrays& a, Algorithm algorithm, const StepNumbers& numbers, StepReadings readings, bool all) {
  OptimizedTensor tensor;
  tensor.count = static_cast<int64_t>(a.first.size());
  tensor.step = readings.step;
  tensor.parameter = a.parameter_data();
  tensor.grad = a.grad_data();
  tensor.states[0] = a.first.data();
  if (all || algorithm == Algorithm::kAdam) tensor.states[1] = a.second.data();
  if (all) tensor.states[2] = a.third.data();
  if (all) tensor.average = a.average.data();
  tensor.parameter_dtype = tensor.grad_dtype = a.type;
  tensor.state_dtype = tensor.average_dtype = Dtype::kFloat32;
  OptimizerSweep sweep({tensor}, algorithm, numbers, readings, true, algorithm != Algorithm::kAverage);
  for (int64_t block = sweep.blocks() - 1; block >= 0; --block) sweep.run(block);
  if (algorithm == Algorithm::kAverage) return;
  double weight_square = 0;
  for (int64_t i = 0; i < tensor.count; ++i) weight_square += std::pow(a.parameter_at(i), 2);
  CHECK_CLOSE(sweep.statistics().weight_square, weight_square, 2e-2 * weight_square);
}

template <bool kHalves>
void run_blocks(Arrays& a, Algorithm algorithm, const StepNumbers& numbers, StepReadings readings, bool all) {
  static blocks::Job<4, kHalves> job;
  job = {};
  float step = static_cast<float>(readings.step - 1), lr = static_cast<float>(readings.lr);
  float scale = static_cast<float>(1 / readings.unscale), norm = static_cast<float>(readings.grad_norm);
  int64_t updates = static_cast<int64_t>(readings.updates), count = static_cast<int64_t>(a.first.size());
  job.entries[1].count = count;
  job.entries[1].parameter = a.parameter_data();
  job.entries[1].grad = a.grad_data();
  job.entries[1].states[0] = a.first.data();
  if (all || algorithm == Algorithm::kAdam) job.entries[1].states[1] = a.second.data();
  if (all) job.entries[1].states[2] = a.third.data();
  if (all) job.entries[1].average = a.average.data();
  job.entries[1].step = &step;
  const uint8_t type = static_cast<uint8_t>(a.type), float32 = static_cast<uint8_t>(Dtype::kFloat32);
  job.types[1] = {type, type, float32, float32, float32, false};
  // The tensor lies between two empty ones.
  job.tensors = 3;
  job.first_tensor = -1;  // so that its index is 0, as in the sweep
  job.elements_per_block = blocks::kRound;
  const uint32_t parts = static_cast<uint32_t>((count + blocks::kRound - 1) / blocks::kRound);
  const uint32_t first_blocks[4] = {0, 1, 1 + parts, 2 + parts};
  std::copy_n(first_blocks, 4, job.first_blocks);
  job.algorithm = algorithm;
  job.numbers = numbers;
  job.lr = {&lr, Dtype::kFloat32};
  job.grad_scale = {&scale, Dtype::kFloat32};
  job.grad_norm = {&norm, Dtype::kFloat32};
  job.updates = &updates;
  int64_t elements = 0;
  for (uint32_t block = 0; block < 2 + parts; ++block) {
    const blocks::Place place = blocks::place_of(job, block);
    CHECK(place.tensor == (block == 0 ? 0 : block == 1 + parts ? 2 : 1));
    elements += place.count;
    if (place.tensor != 1) continue;
    blocks::Shared shared;
    for (int reading = 0; reading < blocks::kReadings; ++reading) blocks::read(job, place, reading, shared);
    blocks::prepare(job, shared);
    blocks::Sums sums;
    for (int thread = 0; thread < blocks::kThreads; ++thread) {
      blocks::Vector vector = {};
      blocks::start(job, place, thread, vector);
      blocks::finish(job, place, shared, thread, true, vector, sums);
    }
  }
  CHECK(elements == count);
  blocks::count_step(job, 1);
  CHECK(step == readings.step);
}

void threads_match_the_sweep(Algorithm algorithm, const StepNumbers& numbers, bool all, Dtype type) {
  StepReadings readings;
  readings.step = 5;
  readings.lr = 0.015625;
  readings.unscale = 0.125;
  readings.grad_norm = all ? 64 : 0;
  readings.updates = 3;
  Arrays swept(5003, type), stepped(5003, type);
  sweep(swept, algorithm, numbers, readings, all);
  if (type == Dtype::kBFloat16) {
    run_blocks<true>(stepped, algorithm, numbers, readings, all);
  } else {
    run_blocks<false>(stepped, algorithm, numbers, readings, all);
  }
  for (size_t i = 0; i < swept.first.size(); ++i) {
    CHECK_CLOSE(stepped.first[i], swept.first[i], 1e-6 * swept.first[i]);
    CHECK_CLOSE(stepped.second[i], swept.second[i], 1e-6);
    CHECK_CLOSE(stepped.third[i], swept.third[i], 1e-6 * std::fabs(swept.third[i]));
    CHECK_CLOSE(stepped.average[i], swept.average[i], 1e-6);
    CHECK_CLOSE(stepped.parameter_at(i), swept.parameter_at(i), type == Dtype::kBFloat16 ? 1.0 / 128 : 1e-6);
  }
}

void rmsprop_follows_its_formula() {
  StepNumbers n = plain_numbers();
  Arrays before(3001, Dtype::kFloat32), after(3001, Dtype::kFloat32);
  StepReadings readings;
  readings.lr = n.lr;
  sweep(after, Algorithm::kRMSprop, n, readings, false);
  for (size_t i = 0; i < before.first.size(); ++i) {
    const double square = 0.99 * before.first[i] + 0.01 * before.grad[i] * before.grad[i];
    CHECK_CLOSE(after.first[i], square, 1e-6 * square);
    CHECK_CLOSE(after.parameter[i], before.parameter[i] - 0.01 * before.grad[i] / (std::sqrt(square) + 1e-8), 1e-6);
    CHECK(after.average[i] == before.average[i]);
  }
}

// The constants in float32 are the same as with pow, except for about one in a million, which lies at a rounding
// boundary.
void powers_by_squaring_are_powers() {
  StepNumbers n = plain_numbers();
  int differ = 0, all = 0;
  for (const double decay : {0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.999999, 1.0}) {
    n.momentum = n.decay = decay;
    for (int64_t step = 1; step < 20'000'000; step += 1 + step / 50) {
      const StepPowers expected = step_powers(n, step), squared = powers_by_squaring(n, step);
      CHECK_CLOSE(squared.momentum, expected.momentum, 1e-15 * (1 + step) * expected.momentum);
      StepReadings readings;
      readings.step = step;
      readings.lr = n.lr;
      const StepConstants<float> a = step_constants<float>(Algorithm::kAdam, n, readings, expected);
      const StepConstants<float> b = step_constants<float>(Algorithm::kAdam, n, readings, squared);
      differ += a.step_size != b.step_size || a.correction != b.correction;
      ++all;
    }
  }
  CHECK(all > 4000 && differ == 0);
}

// The mean of many results is the value, and each is one of its neighbours; holds for subnormal numbers, too.
void random_rounding_has_no_bias() {
  for (const float value : {0.7003f, -1.0001f, 3.3e-6f, 5.1e-8f, 65503.0f, 0.0f}) {
    constexpr int kDraws = 40000;
    double bfloat_sum = 0, half_sum = 0;
    for (int i = 0; i < kDraws; ++i) {
      const uint32_t word = philox(3, i).words[0];
      const double bfloat = to_float(stochastic_bfloat16(value, word)),
                   half = to_float(stochastic_float16(value, word));
      CHECK(std::fabs(bfloat - value) <= std::fabs(value) / 128);
      CHECK(std::fabs(half - value) <= std::fmax(std::fabs(value) / 1024, std::ldexp(1.0, -24)));
      bfloat_sum += bfloat;
      half_sum += half;
    }
    // Four standard deviations of the mean of kDraws results, each with a deviation of at most half a unit.
    CHECK_CLOSE(bfloat_sum / kDraws, value, std::fabs(value) / 128 * 0.5 * 4 / 200);
    CHECK_CLOSE(half_sum / kDraws, value, std::fmax(std::fabs(value) / 1024, std::ldexp(1.0, -24)) * 0.5 * 4 / 200);
  }
  const float infinite = std::numeric_limits<float>::infinity();
  CHECK(std::isinf(to_float(stochastic_bfloat16(infinite, ~0u))) && std::isinf(to_float(stochastic_float16(1e6f, 0))));
  CHECK(std::isnan(to_float(stochastic_float16(std::numeric_limits<float>::quiet_NaN(), ~0u))));
}

}  // namespace

int main() {
  StepNumbers inside = all_numbers(), decoupled = all_numbers(), random = all_numbers();
  inside.eps_inside_sqrt = 1;
  decoupled.decoupled = 1;
  random.rounding_seed = 77;
  for (const Dtype type : {Dtype::kFloat32, Dtype::kBFloat16}) {
    threads_match_the_sweep(Algorithm::kRMSprop, plain_numbers(), false, type);
    threads_match_the_sweep(Algorithm::kRMSprop, inside, true, type);
    threads_match_the_sweep(Algorithm::kAdam, plain_numbers(), false, type);
    threads_match_the_sweep(Algorithm::kAdam, decoupled, true, type);
    threads_match_the_sweep(Algorithm::kAdam, random, true, type);
    threads_match_the_sweep(Algorithm::kAverage, all_numbers(), true, type);
  }
  rmsprop_follows_its_formula();
  powers_by_squaring_are_powers();
  random_rounding_has_no_bias();
  std::puts("15 passed, 0 failed");
}
