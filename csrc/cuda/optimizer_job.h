#pragma once

#include <cstdint>

#include "../cpu/pixels.h"
#include "../math/half.h"
#include "../math/optimizer.h"

// What the optimizer's CUDA kernels are told, and how their blocks divide it among themselves.
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
  int64_t begin;
  int count;
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
  const int64_t left = job.entries[low].count - place.begin;
  place.count = static_cast<int>(left < job.elements_per_block ? left : job.elements_per_block);
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
