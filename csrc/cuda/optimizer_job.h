#pragma once

#include <cstdint>

#include "../cpu/pixels.h"
#include "../math/half.h"
#include "../math/optimizer.h"

// The arguments of the optimizer's CUDA kernels, and how work is divided among their blocks.
namespace fastgan {
namespace blocks {

constexpr int kThreads = 256;
// A block's part of a tensor is a multiple of this, so that it consists of whole vectors of 16 bytes.
constexpr int64_t kRound = 8 * kThreads;

// A parameter and its arrays, all in the same memory order. Arrays that do not exist are null.
struct Entry {
  void* parameter;
  const void* grad;
  void* states[3];
  void* average;
  void* step;
  int64_t count;
};

// The dtypes, and whether all existing arrays have two bytes per element.
struct Types {
  uint8_t parameter, grad, state, average, step;
  bool all_are_halves;
};

struct Scalar {
  const void* data;  // may be null
  Dtype type;
};

// The arguments of a launch, passed as the kernel's parameters (at most 32764 bytes): nothing has to be copied to the
// device beforehand, and a CUDA graph keeps its own copy.
template <int kTensors, bool kHalves>
struct Job {
  static constexpr int kCapacity = kTensors;
  static constexpr bool kHasHalves = kHalves;
  Entry entries[kTensors];
  Types types[kTensors];
  uint32_t first_blocks[kTensors + 1];  // the first block of each tensor, then the number of blocks
  int tensors;
  int first_tensor;  // its index among all tensors of the step
  int64_t elements_per_block;
  Algorithm algorithm;
  StepNumbers numbers;
  Scalar lr, grad_scale, found_inf, grad_norm;
  int64_t* updates;
  // For results that need all blocks: the number of blocks that have finished, the sums of each, and the total sums.
  unsigned* arrivals;
  double *partial_sums, *sums;
  bool adds_to_sums, is_last;  // where a step takes several launches
};

struct Place {
  int tensor;
  int64_t begin;
  int count;
  bool is_first;  // the tensor's first block
};

template <typename J>
FASTGAN_HOST_DEVICE Place place_of(const J& job, uint32_t block) {
  int low = 0, high = job.tensors;  // finds the last tensor whose first block is not after this one
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

FASTGAN_HOST_DEVICE double value_of(const Scalar& scalar, double fallback) {
  if (!scalar.data) return fallback;
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
