#pragma once

#include <cstdint>
#include <type_traits>

#include "../math/optimizer.h"
#include "optimizer_vectors.h"

// What each thread of the optimizer's CUDA kernel does, in plain C++: the kernel calls these functions with
// barriers between them, and csrc/tests/test_optimizer.cpp calls them thread by thread on the CPU.
namespace fastgan {
namespace blocks {

constexpr int kThreads = 256;
// A block's part of a tensor is a multiple of this, so that whole vectors of 16 bytes lie in it.
constexpr int64_t kRound = 8 * kThreads;

// A tensor and what belongs to it, all in one memory order; null where there is none.
struct Entry {
  void* parameter;
  const void* grad;
  void* states[3];
  void* average;
  void* step;
  int64_t count;
};

// Dtypes, and whether all arrays that there are have two bytes an element.
struct Types {
  uint8_t parameter, grad, state, average, step;
  bool all_are_halves;
};

struct Scalar {
  const void* data;  // null: there is none
  Dtype type;
};

// The arguments of a launch. They travel as the kernel's parameters, of which there may be 32764 bytes: nothing is
// copied to the device beforehand, and a CUDA graph keeps its own.
template <int kTensors, bool kHalves>
struct Job {
  static constexpr int kCapacity = kTensors;
  static constexpr bool kSomeAreHalves = kHalves;
  Entry entries[kTensors];
  Types types[kTensors];
  uint32_t first_blocks[kTensors + 1];  // of each tensor, and the end
  int tensors;
  int first_tensor;  // its number among all of the step's
  int64_t elements_per_block;
  Algorithm algorithm;
  StepNumbers numbers;
  Scalar lr, grad_scale, found_inf, grad_norm;
  int64_t* updates;
  // For what is known only when all blocks are done: how many are, sums of each block, and sums of all.
  unsigned* arrivals;
  double *partial_sums, *sums;
  bool adds_to_sums, is_last;  // of several launches
};

struct Place {
  int tensor;
  int64_t begin, end;
  bool is_first;  // of the tensor
};

template <typename J>
FASTGAN_HOST_DEVICE Place place_of(const J& job, uint32_t block) {
  int low = 0, high = job.tensors;  // the last tensor whose first block is not after this one
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (job.first_blocks[middle] <= block) {
      low = middle;
    } else {
      high = middle;
    }
  }
  Place place;
  place.tensor = low;
  place.begin = (block - job.first_blocks[low]) * job.elements_per_block;
  const int64_t end = place.begin + job.elements_per_block;
  place.end = end < job.entries[low].count ? end : job.entries[low].count;
  place.is_first = place.begin == 0;
  return place;
}

FASTGAN_HOST_DEVICE float number_at(const void* data, Dtype type, int64_t i) {
  switch (type) {
    case Dtype::kFloat16: return to_float(static_cast<const Float16*>(data)[i]);
    case Dtype::kBFloat16: return to_float(static_cast<const BFloat16*>(data)[i]);
    case Dtype::kFloat32: return static_cast<const float*>(data)[i];
    default: return static_cast<float>(static_cast<const double*>(data)[i]);
  }
}

FASTGAN_HOST_DEVICE Dtype dtype(uint8_t type) { return static_cast<Dtype>(type); }

FASTGAN_HOST_DEVICE double value_of(const Scalar& scalar, double otherwise) {
  if (!scalar.data) return otherwise;
  return scalar.type == Dtype::kFloat64 ? *static_cast<const double*>(scalar.data)
                                        : number_at(scalar.data, scalar.type, 0);
}

// What a step finds in memory. Each is read by another warp: one after the other they would take as many times as long.
enum Reading : int { kStep, kLr, kGradScale, kFoundInf, kGradNorm, kUpdates, kReadings };

// What all threads of a block share.
struct Shared {
  double readings[kReadings];
  StepConstants<float> constants;
  uint64_t rounding_seed;
  bool applies;  // if not, there are only sums
};

// A block's threads from `thread` on, one for each reading; then all wait.
template <typename J>
FASTGAN_HOST_DEVICE void read(const J& job, const Place& place, int reading, Shared& shared) {
  if (reading >= kReadings) return;
  if (reading == kUpdates) {
    shared.readings[kUpdates] = job.updates ? static_cast<double>(*job.updates) : 0;
    return;
  }
  Scalar scalar = {job.entries[place.tensor].step, dtype(job.types[place.tensor].step)};
  double otherwise = 0;
  if (reading == kLr) scalar = job.lr, otherwise = job.numbers.lr;
  if (reading == kGradScale) scalar = job.grad_scale, otherwise = 1;
  if (reading == kFoundInf) scalar = job.found_inf;
  if (reading == kGradNorm) scalar = job.grad_norm;
  shared.readings[reading] = value_of(scalar, otherwise);
}

FASTGAN_HOST_DEVICE bool applies(const Shared& shared) { return shared.readings[kFoundInf] == 0; }

// In one thread; then all wait.
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

// What is the same for all of a tensor's elements.
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

// What a thread takes at once.
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

// A thread's sums: few enough to add in float32.
struct Sums {
  float grad_square = 0, weight_square = 0, at_bound = 0;
};

// The same number, of which the compiler does not know it: what follows from it is read or computed again instead of
// keeping registers until then.
FASTGAN_HOST_DEVICE int again(int number) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(number)::"memory");
#endif
  return number;
}
FASTGAN_HOST_DEVICE uint64_t again(uint64_t number) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(number)::"memory");
#endif
  return number;
}

// The step of the vector's first four elements, which are those from i on.
template <Form kForm>
FASTGAN_HOST_DEVICE void step_four(
    const Tensor& t, const Shared& shared, int64_t i, int count, bool with_sums, Sums& sums, Vector& v) {
  const StepConstants<float>& c = shared.constants;
  const Dtype parameter = dtype(t.types.parameter), state = dtype(t.types.state), average = dtype(t.types.average);
  const bool applies = shared.applies;
  const bool rounds_stochastically = kForm != Form::kFloats && t.rounds_stochastically;
  // Element i takes word i % 4 of counter i / 4.
  Philox random = {};
  if (rounds_stochastically) random = philox(again(shared.rounding_seed), i / 4, t.stream);
  for (int j = 0; j < 4; ++j) {
    const float grad = element<kForm>(v.grad, dtype(t.types.grad), j);
    StepElement<float> e;
    e.parameter = element<kForm>(v.parameter, parameter, j);
    e.first = element<kForm>(v.states[0], state, j);
    e.second = element<kForm>(v.states[1], state, j);
    e.third = element<kForm>(v.states[2], state, j);
    e.average = element<kForm>(v.average, average, j);
    if (applies) take_step(t.kind, c, grad, e);
    if (rounds_stochastically) {
      set_half_stochastically(v.parameter, parameter, j, e.parameter, random.words[j]);
    } else {
      set_element<kForm>(v.parameter, parameter, j, e.parameter);
    }
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
}

// The step of the elements from i on.
template <Form kForm>
FASTGAN_HOST_DEVICE void step(
    const Tensor& t, const Shared& shared, int64_t i, int count, bool with_sums, Sums& sums, Vector& v) {
#pragma unroll 1  // of eight elements at once the numbers would not fit into the registers
  for (int part = 0; part < kWidth<kForm> / 4; ++part) {
    step_four<kForm>(t, shared, i + 4 * part, count - 4 * part, with_sums, sums, v);
    if (kForm != Form::kHalves) continue;
    for (Words* w : {&v.parameter, &v.grad, &v.states[0], &v.states[1], &v.states[2], &v.average}) *w = exchanged(*w);
  }
}

// Calls body with the form of the tensor's arrays.
template <typename J, typename Body>
FASTGAN_HOST_DEVICE void with_form(const Types& types, Body body) {
  if constexpr (!J::kSomeAreHalves) {
    body(std::integral_constant<Form, Form::kFloats>());
  } else if (types.all_are_halves) {
    body(std::integral_constant<Form, Form::kHalves>());
  } else {
    body(std::integral_constant<Form, Form::kMixed>());
  }
}

// How many elements the vector from element i on has, at most kWidth.
template <Form kForm>
FASTGAN_HOST_DEVICE int elements_from(int64_t i, const Place& place) {
  const int64_t left = place.end - i;
  return left < kWidth<kForm> ? static_cast<int>(left) : kWidth<kForm>;
}

// Asks for the thread's first elements: they come while the block's constants are computed.
template <typename J>
FASTGAN_HOST_DEVICE void start(const J& job, const Place& place, int thread, Vector& v) {
  const Tensor t = tensor_of(job, place.tensor);
  with_form<J>(t.types, [&](auto form) {
    constexpr Form kForm = decltype(form)::value;
    const int64_t i = place.begin + thread * kWidth<kForm>;
    if (i < place.end) load<kForm>(t, i, elements_from<kForm>(i, place), v);
  });
}

// The step of all that is the thread's part.
template <typename J>
FASTGAN_HOST_DEVICE void finish(
    const J& job, const Place& place, const Shared& shared, int thread, bool with_sums, Vector& v, Sums& sums) {
  with_form<J>(job.types[place.tensor], [&](auto form) {
    constexpr Form kForm = decltype(form)::value;
    int64_t i = place.begin + thread * kWidth<kForm>;
    while (i < place.end) {
      const int count = elements_from<kForm>(i, place);
      step<kForm>(tensor_of(job, again(place.tensor)), shared, i, count, with_sums, sums, v);
      if (shared.applies) store<kForm>(tensor_of(job, again(place.tensor)), i, count, v);
      i += kThreads * kWidth<kForm>;
      if (i < place.end) {
        load<kForm>(tensor_of(job, again(place.tensor)), i, elements_from<kForm>(i, place), v);
      }
    }
  });
}

// The sum of a thread's squares, in float32 unless that cannot hold them.
template <typename J>
FASTGAN_HOST_DEVICE double square_part(const J& job, const Place& place, int thread) {
  const void* const grad = job.entries[place.tensor].grad;
  const Types types = job.types[place.tensor];
  const Dtype type = dtype(types.grad);
  const auto sum_in = [&](auto sum) {
    with_form<J>(types, [&](auto form) {
      constexpr Form kForm = decltype(form)::value;
      for (int64_t i = place.begin + thread * kWidth<kForm>; i < place.end; i += kThreads * kWidth<kForm>) {
        const Words w = load<kForm>(grad, type, i, elements_from<kForm>(i, place));
        const auto add = [&](const Words& four) {
          for (int j = 0; j < 4; ++j) {
            const auto value = static_cast<decltype(sum)>(element<kForm>(four, type, j));
            sum += value * value;
          }
        };
        add(w);
        if (kForm == Form::kHalves) add(exchanged(w));
      }
    });
    return static_cast<double>(sum);
  };
  const double sum = sum_in(0.0f);
  return sum <= 3.4028234663852886e38 ? sum : sum_in(0.0);
}

template <typename J>
FASTGAN_HOST_DEVICE void count_step(const J& job, int tensor) {
  void* const step = job.entries[tensor].step;
  if (!step) return;
  if (dtype(job.types[tensor].step) == Dtype::kFloat64) {
    *static_cast<double*>(step) += 1;
  } else {
    *static_cast<float*>(step) += 1;
  }
}

}  // namespace blocks
}  // namespace fastgan
