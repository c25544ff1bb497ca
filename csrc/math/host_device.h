#pragma once

// The arithmetic in csrc/math/ does not depend on torch and is compiled three times: into the CPU kernels, into the
// CUDA kernels, and into the module that pytest checks. Only this macro differs between them.
#if defined(__CUDACC__)
#define FASTGAN_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define FASTGAN_HOST_DEVICE __forceinline
#else
#define FASTGAN_HOST_DEVICE __attribute__((always_inline)) inline
#endif

// FASTGAN_UNROLL goes before a loop whose counter indexes arrays that should live in GPU registers, FASTGAN_NO_UNROLL
// before one that rarely runs.
#if defined(__CUDACC__)
#define FASTGAN_UNROLL _Pragma("unroll")
#define FASTGAN_NO_UNROLL _Pragma("unroll 1")
#else
#define FASTGAN_UNROLL
#define FASTGAN_NO_UNROLL
#endif
