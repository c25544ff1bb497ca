#pragma once

#include <cstdint>
#include <type_traits>

#include "../math/optimizer.h"
#include "optimizer_job.h"
#include "optimizer_vectors.h"

// What each thread of the optimizer's CUDA kernel does, in plain C++: the kernel calls these functions with
// barriers between them, and csrc/tests/test_optimizer.cpp calls them thread by thread on the CPU.
namespace fastgan {
namespace blocks {

// The values that a step reads from tensors. Each is read by a different warp, so that their latencies overlap.
enum Reading : int { kStep, kLr, kGradScale, kFoundInf, kGradNorm, kUpdates, kReadings };

// Shared memory of a block.
struct Shared {
  double readings[kReadings];
  StepConstants<float> constants;
  uint64_t rounding_seed;
  bool applies;  // the result of applies(); if false, only sums are computed
};

// Called by one thread per reading; then all threads wait.
template <typename J>
FASTGAN_HOST_DEVICE void read(const J& job, const Place& place, int reading, Shared& shared) {
  if (reading >= kReadings) return;
  if (reading == kUpdates) {
    shared.readings[kUpdates] = job.updates ? static_cast<double>(*job.updates) : 0;
    return;
  }
  Scalar scalar = {job.entries[place.tensor].step, dtype(job.types[place.tensor].step)};
  double fallback = 0;
  if (reading == kLr) scalar = job.lr, fallback = job.numbers.lr;
  if (reading == kGradScale) scalar = job.grad_scale, fallback = 1;
  if (reading == kFoundInf) scalar = job.found_inf;
  if (reading == kGradNorm) scalar = job.grad_norm;
  shared.readings[reading] = value_of(scalar, fallback);
}

FASTGAN_HOST_DEVICE bool applies(const Shared& shared) { return shared.readings[kFoundInf] == 0; }

// Called by one thread; then all threads wait.
template <typename J>
FASTGAN_HOST_DEVICE void prepare(const J& job, Shared& shared) {
  StepReadings readings;
  readings.step = shared.readings[kStep] + 1;
  readings.lr = shared.readings[kLr];
  readings.unscale = shared.readings[kGradScale] == 1 ? 1 : 1 / shared.readings[kGradScale];
  readings.grad_norm = shared.readings[kGradNorm];
  readings.updates = shared.readings[kUpdates];
  StepPowers powers;
  if (job.algorithm == Algorithm::kAdam) powers = powers_by_squaring(job.numbers, readings.step);
  shared.applies = applies(shared);
  shared.constants = step_constants<float>(job.algorithm, job.numbers, readings, powers);
  shared.rounding_seed = static_cast<uint64_t>(job.numbers.rounding_seed) + static_cast<uint64_t>(readings.step);
}

// What all elements of a tensor have in common.
struct Tensor {
  Entry entry;
  Types types;
  StepKind kind;
  uint32_t stream;  // of random numbers
  bool rounds_stochastically;
};

template <typename J>
FASTGAN_HOST_DEVICE Tensor tensor_of(const J& job, int tensor) {
  Tensor t;
  t.entry = job.entries[tensor];
  t.types = job.types[tensor];
  t.kind.adam = job.algorithm == Algorithm::kAdam;
  t.kind.steps = job.algorithm != Algorithm::kAverage;
  t.kind.inside = job.algorithm == Algorithm::kRMSprop && job.numbers.eps_inside_sqrt != 0;
  t.kind.second = t.entry.states[1] != nullptr;
  t.kind.third = t.entry.states[2] != nullptr;
  t.kind.average = t.entry.average != nullptr;
  t.stream = static_cast<uint32_t>(job.first_tensor + tensor);
  t.rounds_stochastically =
      t.kind.steps && job.numbers.rounding_seed >= 0 && dtype(t.types.parameter) != Dtype::kFloat32;
  return t;
}

// The elements that a thread processes at once.
struct Vector {
  Words parameter, grad, states[3], average;
};

template <Form kForm>
FASTGAN_HOST_DEVICE void load(const Tensor& t, int64_t i, int count, Vector& v) {
  v.parameter = load<kForm>(t.entry.parameter, dtype(t.types.parameter), i, count);
  if (t.kind.steps) {
    v.grad = load<kForm>(t.entry.grad, dtype(t.types.grad), i, count);
    v.states[0] = load<kForm>(t.entry.states[0], dtype(t.types.state), i, count);
  }
  if (t.kind.second) v.states[1] = load<kForm>(t.entry.states[1], dtype(t.types.state), i, count);
  if (t.kind.third) v.states[2] = load<kForm>(t.entry.states[2], dtype(t.types.state), i, count);
  if (t.kind.average) v.average = load<kForm>(t.entry.average, dtype(t.types.average), i, count);
}

template <Form kForm>
FASTGAN_HOST_DEVICE void store(const Tensor& t, int64_t i, int count, const Vector& v) {
  if (t.kind.average) store<kForm>(v.average, t.entry.average, dtype(t.types.average), i, count);
  if (!t.kind.steps) return;
  store<kForm>(v.parameter, t.entry.parameter, dtype(t.types.parameter), i, count);
  store<kForm>(v.states[0], t.entry.states[0], dtype(t.types.state), i, count);
  if (t.kind.second) store<kForm>(v.states[1], t.entry.states[1], dtype(t.types.state), i, count);
  if (t.kind.third) store<kForm>(v.states[2], t.entry.states[2], dtype(t.types.state), i, count);
}

// A thread's sums, over few enough elements for float32.
struct Sums {
  float grad_square = 0, weight_square = 0, at_bound = 0;
};

// Returns the number, but hides from the compiler that it is the same: values that depend on it are loaded or computed
// again instead of occupying registers in the meantime.
FASTGAN_HOST_DEVICE int opaque(int number) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(number)::"memory");
#endif
  return number;
}
FASTGAN_HOST_DEVICE uint64_t opaque(uint64_t number) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(number)::"memory");
#endif
  return number;
}

// The step of the vector's first four elements: elements i .. i + 3 of the tensor.
template <Form kForm, typename J>
FASTGAN_HOST_DEVICE void step_four(
    const J& job, int tensor, const Shared& shared, int64_t i, int count, bool with_sums, Sums& sums, Vector& v) {
  float parameters[4];
  for (int j = 0; j < 4; ++j) {
    const Tensor t = tensor_of(job, opaque(tensor));
    const StepConstants<float>& c = (&shared.constants)[opaque(0)];
    const Dtype state = dtype(t.types.state), average = dtype(t.types.average);
    const float grad = element<kForm>(v.grad, dtype(t.types.grad), j);
    StepElement<float> e;
    e.parameter = element<kForm>(v.parameter, dtype(t.types.parameter), j);
    e.first = element<kForm>(v.states[0], state, j);
    e.second = element<kForm>(v.states[1], state, j);
    e.third = element<kForm>(v.states[2], state, j);
    e.average = element<kForm>(v.average, average, j);
    if (shared.applies) take_step(t.kind, c, grad, e);
    parameters[j] = e.parameter;
    set_element<kForm>(v.states[0], state, j, e.first);
    set_element<kForm>(v.states[1], state, j, e.second);
    set_element<kForm>(v.states[2], state, j, e.third);
    set_element<kForm>(v.average, average, j, e.average);
    if (with_sums && j < count) {
      sums.grad_square += grad * grad;
      sums.weight_square += e.parameter * e.parameter;
      sums.at_bound += e.parameter <= c.low || e.parameter >= c.high ? 1.0f : 0.0f;
    }
  }
  const Tensor t = tensor_of(job, opaque(tensor));
  const Dtype parameter = dtype(t.types.parameter);
  if (kForm != Form::kFloats && t.rounds_stochastically) {
    // Element i takes word i % 4 of counter i / 4.
    const Philox random = philox(opaque(shared.rounding_seed), i / 4, t.stream);
    for (int j = 0; j < 4; ++j) set_half_stochastically(v.parameter, parameter, j, parameters[j], random.words[j]);
  } else {
    for (int j = 0; j < 4; ++j) set_element<kForm>(v.parameter, parameter, j, parameters[j]);
  }
}

// The step of a vector, which begins at element i.
template <Form kForm, typename J>
FASTGAN_HOST_DEVICE void step(
    const J& job, int tensor, const Shared& shared, int64_t i, int count, bool with_sums, Sums& sums, Vector& v) {
  if constexpr (kForm != Form::kHalves) {
    step_four<kForm>(job, tensor, shared, i, count, with_sums, sums, v);
  } else {
    // Eight elements at once would not fit in registers.
#ifdef __CUDACC__
#pragma unroll 1
#endif
    for (int part = 0; part < 2; ++part) {
      step_four<kForm>(job, tensor, shared, i + 4 * part, count - 4 * part, with_sums, sums, v);
      for (Words* w : {&v.parameter, &v.grad, &v.states[0], &v.states[1], &v.states[2], &v.average})
        *w = with_halves_swapped(*w);
    }
  }
}

// Calls body with the form of the tensor's arrays.
template <typename J, typename Body>
FASTGAN_HOST_DEVICE void with_form(const Types& types, Body body) {
  if constexpr (!J::kHasHalves) {
    body(std::integral_constant<Form, Form::kFloats>());
  } else if (types.all_are_halves) {
    body(std::integral_constant<Form, Form::kHalves>());
  } else {
    body(std::integral_constant<Form, Form::kMixed>());
  }
}

// How many of the remaining elements the next vector takes.
template <Form kForm>
FASTGAN_HOST_DEVICE int vector_count(int elements) {
  return elements < kWidth<kForm> ? elements : kWidth<kForm>;
}

// Loads the thread's first elements, so that they arrive while the block's constants are computed.
template <typename J>
FASTGAN_HOST_DEVICE void start(const J& job, const Place& place, int thread, Vector& v) {
  const Tensor t = tensor_of(job, place.tensor);
  with_form<J>(t.types, [&](auto form) {
    constexpr Form kForm = decltype(form)::value;
    const int left = place.count - thread * kWidth<kForm>;
    if (left > 0) load<kForm>(t, place.begin + thread * kWidth<kForm>, vector_count<kForm>(left), v);
  });
}

// The step of all of the thread's elements.
template <typename J>
FASTGAN_HOST_DEVICE void finish(
    const J& job, const Place& place, const Shared& shared, int thread, bool with_sums, Vector& v, Sums& sums) {
  with_form<J>(job.types[place.tensor], [&](auto form) {
    constexpr Form kForm = decltype(form)::value;
    int64_t i = place.begin + thread * kWidth<kForm>;
    int left = place.count - thread * kWidth<kForm>;
    while (left > 0) {
      step<kForm>(job, place.tensor, shared, i, vector_count<kForm>(left), with_sums, sums, v);
      if (shared.applies) store<kForm>(tensor_of(job, opaque(place.tensor)), i, vector_count<kForm>(left), v);
      i += kThreads * kWidth<kForm>;
      left -= kThreads * kWidth<kForm>;
      if (left > 0) load<kForm>(tensor_of(job, opaque(place.tensor)), i, vector_count<kForm>(left), v);
    }
  });
}

// The sum of squares of a thread's elements, in float32 unless it overflows.
template <typename J>
FASTGAN_HOST_DEVICE double square_part(const J& job, const Place& place, int thread) {
  const void* const grad = job.entries[place.tensor].grad;
  const Types types = job.types[place.tensor];
  const Dtype type = dtype(types.grad);
  const auto sum_in = [&](auto sum) {
    with_form<J>(types, [&](auto form) {
      constexpr Form kForm = decltype(form)::value;
      constexpr int kStride = kThreads * kWidth<kForm>, kAtOnce = 4;
      const auto add = [&](const Words& four) {
        for (int j = 0; j < 4; ++j) {
          const auto value = static_cast<decltype(sum)>(element<kForm>(four, type, j));
          sum += value * value;
        }
      };
      const auto add_all = [&](const Words& w) {
        add(w);
        if (kForm == Form::kHalves) add(with_halves_swapped(w));
      };
      int i = thread * kWidth<kForm>;
      // Blocks begin at multiples of 16 bytes as well. Four loads in flight are enough.
      const bool is_aligned = is_aligned_to(16, grad);
#ifdef __CUDACC__
#pragma unroll 1
#endif
      for (; is_aligned && i + (kAtOnce - 1) * kStride + kWidth<kForm> <= place.count; i += kAtOnce * kStride) {
        Words w[kAtOnce];
        for (int k = 0; k < kAtOnce; ++k) w[k] = load_whole<kForm>(grad, type, place.begin + i + k * kStride);
        for (int k = 0; k < kAtOnce; ++k) add_all(w[k]);
      }
      for (; i < place.count; i += kStride) {
        add_all(load<kForm>(grad, type, place.begin + i, vector_count<kForm>(place.count - i)));
      }
    });
    return static_cast<double>(sum);
  };
  const double sum = sum_in(0.0f);
  return sum <= 3.4028234663852886e38 ? sum : sum_in(0.0);
}

}  // namespace blocks
}  // namespace fastgan
