#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "device.h"

// The part of CUDA that the kernels in csrc/cuda use, for a C++ compiler and without a GPU. Whatever CUDA leaves
// undefined is randomized: see device.h, which runs the threads.

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static  // so that the address sanitizer surrounds it with red zones
#else
#define __shared__ static thread_local  // so that `poison_shared_memory` can fill it as one segment
#endif

struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// --- synchronization of a block's threads ----------------------------------------------------------------------------

// Each receives the location of its call, by which tests can disable the calls one by one.
inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::device().wait_for_block({file, line});
}
inline void __syncwarp(unsigned mask = ~0u, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::device().wait_for_warp({file, line}, mask, 0, true);
}
inline void __threadfence(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::device().fence({file, line});
}

namespace emulation {

// The value of lane source(lane) within this part of the warp; the lane's own value if there is no such lane.
template <typename T, typename Source>
T shuffled(Site site, unsigned mask, T value, int width, Source source) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const std::array<uint64_t, 32>& lanes = device().wait_for_warp(site, mask, bits);
  const int lane = device().lane(), first = lane / width * width, from = source(lane - first);
  if (from >= 0 && from < width) std::memcpy(&value, &lanes[first + from], sizeof(T));
  return value;
}

inline unsigned votes(Site site, unsigned mask, bool vote) {
  const std::array<uint64_t, 32>& lanes = device().wait_for_warp(site, mask, vote);
  unsigned result = 0;
  for (int lane = 0; lane < 32; ++lane) result |= mask >> lane & 1 && lanes[lane] == 1 ? 1u << lane : 0u;
  return result;
}

}  // namespace emulation

#define FASTGAN_SHUFFLE(name, argument, source)                                                                      \
  template <typename T>                                                                                              \
  T name(                                                                                                            \
      unsigned mask, T value, int argument, int width = 32, const char* file = __builtin_FILE(),                     \
      int line = __builtin_LINE()) {                                                                                 \
    return emulation::shuffled({file, line}, mask, value, width, [&]([[maybe_unused]] int lane) { return source; }); \
  }
FASTGAN_SHUFFLE(__shfl_sync, from, from % width)
FASTGAN_SHUFFLE(__shfl_up_sync, delta, lane - delta)
FASTGAN_SHUFFLE(__shfl_down_sync, delta, lane + delta)
FASTGAN_SHUFFLE(__shfl_xor_sync, bits, lane ^ bits)
#undef FASTGAN_SHUFFLE

inline unsigned __ballot_sync(
    unsigned mask, int vote, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return emulation::votes({file, line}, mask, vote != 0);
}
inline int __any_sync(unsigned mask, int vote, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return emulation::votes({file, line}, mask, vote != 0) != 0;
}
inline int __all_sync(unsigned mask, int vote, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return emulation::votes({file, line}, mask, vote != 0) == mask;
}

// --- memory ----------------------------------------------------------------------------------------------------------

// On global memory kernels count finished blocks with it; `arrive` ignores shared memory.
inline unsigned atomicAdd(unsigned* target, unsigned value) {
  emulation::device().arrive(target);
  const unsigned before = *target;
  *target += value;
  return before;
}
template <typename T>
T atomicAdd(T* target, T value) {
  const T before = *target;
  *target += value;
  return before;
}
template <typename T>
T atomicOr(T* target, T value) {
  const T before = *target;
  *target |= value;
  return before;
}
template <typename T>
T atomicMax(T* target, T value) {
  const T before = *target;
  if (before < value) *target = value;
  return before;
}

template <typename T>
T __ldg(const T* source) {
  return *source;
}
template <typename T>
T __ldcs(const T* source) {
  return *source;
}
template <typename T>
void __stwb(T* target, T value) {
  *target = value;
}
template <typename T>
void __stcs(T* target, T value) {
  *target = value;
}

// --- the runtime -----------------------------------------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorLaunchFailure = 719
};
using cudaStream_t = struct CUstream_st*;  // work runs synchronously

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

inline const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) return emulation::device().failure();
  if (error == cudaErrorInvalidResourceHandle) return "not on the caller's stream, or without a guard of its device";
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}

namespace emulation {

inline bool is_callers(cudaStream_t stream) {
  return stream == static_cast<cudaStream_t>(device().stream()) && device().guards > 0;
}

}  // namespace emulation

inline cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  if (!emulation::is_callers(stream)) return cudaErrorInvalidResourceHandle;
  if (bytes) std::memset(data, value, bytes);
  return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(
    const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  static_assert((sizeof(Parameters) + ... + 0) <= 32764, "a kernel's parameters may take this many bytes");
  if (!emulation::is_callers(config->stream)) return cudaErrorInvalidResourceHandle;
  const dim3 grid = config->gridDim, block = config->blockDim;
  const unsigned threads = block.x * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || config->dynamicSmemBytes != 0) {
    return cudaErrorInvalidConfiguration;
  }
  if (grid.x == 0 || grid.y - 1 >= 65535 || grid.z - 1 >= 65535 || grid.x > 0x7fffffffu) {
    return cudaErrorInvalidConfiguration;
  }
  gridDim = grid;
  blockDim = block;
  const auto enter = [](unsigned number, unsigned thread) {
    blockIdx = {number % gridDim.x, number / gridDim.x % gridDim.y, number / gridDim.x / gridDim.y};
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
  };
  const bool done =
      emulation::device().run(grid.x * grid.y * grid.z, threads, enter, [&] { kernel(Parameters(arguments)...); });
  return done ? cudaSuccess : cudaErrorLaunchFailure;
}
