#pragma once

#include <cstdint>
#include <type_traits>

#include "../cpu/pixels.h"
#include "../math/half.h"
#include "../math/optimizer.h"
#include "../math/philox.h"

// What each thread of the optimizer's CUDA kernel does, without a word of CUDA: the kernel calls these functions with
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

// Dtypes, and whether every array begins at a multiple of 16 bytes.
struct Types {
  uint8_t parameter, grad, state, average, step;
  bool aligned;
};

struct Scalar {
  const void* data;  // null: there is none
  Dtype type;
};

// The arguments of a launch. They travel as the kernel's parameters, of which there may be 32764 bytes: nothing is
// copied to the device beforehand, and a CUDA graph keeps its own.
template <int kTensors, bool kSomeAreHalves>
struct Job {
  static constexpr int kCapacity = kTensors;
  // Elements that a thread takes at once: 16 bytes of the shortest.
  static constexpr int kWidth = kSomeAreHalves ? 8 : 4;
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

struct alignas(16) Words {
  uint32_t words[4];
};

FASTGAN_HOST_DEVICE float half_to_float(uint16_t bits, Dtype type) {
  return type == Dtype::kBFloat16 ? to_float(BFloat16{bits}) : to_float(Float16{bits});
}
FASTGAN_HOST_DEVICE uint16_t float_to_half(float value, Dtype type) {
  return type == Dtype::kBFloat16 ? to_bfloat16(value).bits : to_float16(value).bits;
}

// kWidth elements from element i on.
template <int kWidth>
FASTGAN_HOST_DEVICE void load(const void* data, Dtype type, int64_t i, float (&values)[kWidth]) {
  if (type == Dtype::kFloat32) {
    const float* const source = static_cast<const float*>(data) + i;
    if constexpr (kWidth == 1) {
      values[0] = *source;
    } else {
      for (int part = 0; part < kWidth / 4; ++part) {
        const Words w = reinterpret_cast<const Words*>(source)[part];
        for (int j = 0; j < 4; ++j) values[4 * part + j] = float_from_bits(w.words[j]);
      }
    }
  } else if constexpr (kWidth == 1) {
    values[0] = number_at(data, type, i);
  } else if constexpr (kWidth == 8) {
    const Words w = *reinterpret_cast<const Words*>(static_cast<const uint16_t*>(data) + i);
    for (int j = 0; j < 8; ++j)
      values[j] = half_to_float(static_cast<uint16_t>(w.words[j / 2] >> (16 * (j % 2))), type);
  }
}

template <int kWidth>
FASTGAN_HOST_DEVICE void store_halves(const uint16_t (&values)[kWidth], void* data, int64_t i) {
  uint16_t* const target = static_cast<uint16_t*>(data) + i;
  if constexpr (kWidth == 8) {
    Words w;
    for (int j = 0; j < 4; ++j) w.words[j] = values[2 * j] | uint32_t(values[2 * j + 1]) << 16;
    *reinterpret_cast<Words*>(target) = w;
  } else {
    for (int j = 0; j < kWidth; ++j) target[j] = values[j];
  }
}

template <int kWidth>
FASTGAN_HOST_DEVICE void store(const float (&values)[kWidth], void* data, Dtype type, int64_t i) {
  if (type == Dtype::kFloat32) {
    float* const target = static_cast<float*>(data) + i;
    if constexpr (kWidth == 1) {
      *target = values[0];
    } else {
      for (int part = 0; part < kWidth / 4; ++part) {
        Words w;
        for (int j = 0; j < 4; ++j) w.words[j] = bits_of_float(values[4 * part + j]);
        reinterpret_cast<Words*>(target)[part] = w;
      }
    }
  } else {
    uint16_t halves[kWidth];
    for (int j = 0; j < kWidth; ++j) halves[j] = float_to_half(values[j], type);
    store_halves(halves, data, i);
  }
}

// As `store`, rounded up or down at random; element i takes word i % 4 of counter i / 4.
template <int kWidth>
FASTGAN_HOST_DEVICE void store_stochastically(
    const float (&values)[kWidth], void* data, Dtype type, int64_t i, uint64_t seed, uint32_t stream) {
  uint16_t halves[kWidth];
  Philox random = {};
  for (int j = 0; j < kWidth; ++j) {
    if (j % 4 == 0) random = philox(seed, (i + j) / 4, stream);
    uint32_t word = random.words[j % 4];
    // Not an index into registers.
    for (int k = 1; kWidth == 1 && k < 4; ++k) word = i % 4 == k ? random.words[k] : word;
    halves[j] =
        type == Dtype::kBFloat16 ? stochastic_bfloat16(values[j], word).bits : stochastic_float16(values[j], word).bits;
  }
  store_halves(halves, data, i);
}

// What all threads of a block share.
struct Shared {
  bool applies;  // if not, there are only sums
  StepConstants<float> constants;
  StepKind kind;
  uint64_t rounding_seed;
  bool rounds_stochastically;
};

template <typename J>
FASTGAN_HOST_DEVICE void prepare(const J& job, const Place& place, Shared& shared) {
  const Entry& entry = job.entries[place.tensor];
  const bool steps = job.algorithm != Algorithm::kAverage;
  StepReadings readings;
  readings.step = steps ? value_of({entry.step, dtype(job.types[place.tensor].step)}, 0) + 1 : 0;
  readings.lr = value_of(job.lr, job.numbers.lr);
  readings.unscale = 1 / value_of(job.grad_scale, 1);
  readings.grad_norm = value_of(job.grad_norm, 0);
  readings.updates = job.updates ? static_cast<double>(*job.updates) : 0;
  shared.applies = value_of(job.found_inf, 0) == 0;
  shared.constants = step_constants<float>(job.algorithm, job.numbers, readings);
  shared.kind.adam = job.algorithm == Algorithm::kAdam;
  shared.kind.steps = steps;
  shared.kind.inside = job.numbers.eps_inside_sqrt != 0;
  shared.kind.second = entry.states[1] != nullptr;
  shared.kind.third = entry.states[2] != nullptr;
  shared.kind.average = entry.average != nullptr;
  const Dtype type = dtype(job.types[place.tensor].parameter);
  shared.rounds_stochastically = steps && job.numbers.rounding_seed >= 0 && type != Dtype::kFloat32;
  shared.rounding_seed = static_cast<uint64_t>(job.numbers.rounding_seed) + static_cast<uint64_t>(readings.step);
}

// A thread's sums: few enough to add in float32.
struct Sums {
  float grad_square = 0, weight_square = 0, at_bound = 0;
};

template <int kWidth, bool kHalves>
FASTGAN_HOST_DEVICE void step_vector(
    const Entry& entry, const Types& types, const Shared& shared, uint32_t stream, int64_t i, bool with_sums,
    Sums& sums) {
  const StepKind& kind = shared.kind;
  const StepConstants<float>& c = shared.constants;
  float parameter[kWidth], grad[kWidth] = {}, states[3][kWidth] = {}, average[kWidth] = {};
  load<kWidth>(entry.parameter, dtype(types.parameter), i, parameter);
  if (kind.steps) {
    load<kWidth>(entry.grad, dtype(types.grad), i, grad);
    load<kWidth>(entry.states[0], dtype(types.state), i, states[0]);
  }
  if (kind.second) load<kWidth>(entry.states[1], dtype(types.state), i, states[1]);
  if (kind.third) load<kWidth>(entry.states[2], dtype(types.state), i, states[2]);
  if (kind.average) load<kWidth>(entry.average, dtype(types.average), i, average);
  for (int j = 0; j < kWidth; ++j) {
    StepElement<float> e{parameter[j], states[0][j], states[1][j], states[2][j], average[j]};
    if (shared.applies) take_step(kind, c, grad[j], e);
    parameter[j] = e.parameter;
    states[0][j] = e.first;
    states[1][j] = e.second;
    states[2][j] = e.third;
    average[j] = e.average;
    if (with_sums) {
      sums.grad_square += grad[j] * grad[j];
      sums.weight_square += e.parameter * e.parameter;
      sums.at_bound += e.parameter <= c.low || e.parameter >= c.high ? 1.0f : 0.0f;
    }
  }
  if (!shared.applies) return;
  if (kind.average) store<kWidth>(average, entry.average, dtype(types.average), i);
  if (!kind.steps) return;
  if (kHalves && shared.rounds_stochastically) {
    store_stochastically<kWidth>(parameter, entry.parameter, dtype(types.parameter), i, shared.rounding_seed, stream);
  } else {
    store<kWidth>(parameter, entry.parameter, dtype(types.parameter), i);
  }
  store<kWidth>(states[0], entry.states[0], dtype(types.state), i);
  if (kind.second) store<kWidth>(states[1], entry.states[1], dtype(types.state), i);
  if (kind.third) store<kWidth>(states[2], entry.states[2], dtype(types.state), i);
}

// Calls body<kWidth>(i) for this thread's vectors, and body<1>(i) for the rest.
template <int kWidth, typename Body>
FASTGAN_HOST_DEVICE void for_vectors(const Place& place, bool aligned, int thread, Body body) {
  const int64_t rest = place.begin + (aligned ? (place.end - place.begin) / kWidth * kWidth : 0);
  for (int64_t i = place.begin + thread * kWidth; i < rest; i += kThreads * kWidth) {
    body(std::integral_constant<int, kWidth>(), i);
  }
  for (int64_t i = rest + thread; i < place.end; i += kThreads) body(std::integral_constant<int, 1>(), i);
}

template <typename J>
FASTGAN_HOST_DEVICE void step_part(
    const J& job, const Place& place, const Shared& shared, int thread, bool with_sums, Sums& sums) {
  const Entry& entry = job.entries[place.tensor];
  const Types types = job.types[place.tensor];
  const uint32_t stream = static_cast<uint32_t>(job.first_tensor + place.tensor);
  for_vectors<J::kWidth>(place, types.aligned, thread, [&](auto width, int64_t i) {
    step_vector<decltype(width)::value, J::kWidth == 8>(entry, types, shared, stream, i, with_sums, sums);
  });
}

// The sum of a thread's squares, in float32 unless that cannot hold them.
template <typename J>
FASTGAN_HOST_DEVICE double square_part(const J& job, const Place& place, int thread) {
  const Entry& entry = job.entries[place.tensor];
  const Types types = job.types[place.tensor];
  const auto sum_in = [&](auto sum) {
    for_vectors<J::kWidth>(place, types.aligned, thread, [&](auto width, int64_t i) {
      float grad[decltype(width)::value];
      load<decltype(width)::value>(entry.grad, dtype(types.grad), i, grad);
      for (int j = 0; j < decltype(width)::value; ++j) sum += decltype(sum)(grad[j]) * decltype(sum)(grad[j]);
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
