#pragma once

// Arithmetic in csrc/math/ knows nothing of torch and is compiled three times: into the CPU kernels, into the CUDA
// kernels, and into the module that pytest checks. This macro is all that differs.
#if defined(__CUDACC__)
#define FASTGAN_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define FASTGAN_HOST_DEVICE __forceinline
#else
#define FASTGAN_HOST_DEVICE __attribute__((always_inline)) inline
#endif

// Before a loop whose counter picks elements of arrays that are to be registers of a GPU, and before one that is rare.
#if defined(__CUDACC__)
#define FASTGAN_UNROLL _Pragma("unroll")
#define FASTGAN_NO_UNROLL _Pragma("unroll 1")
#else
#define FASTGAN_UNROLL
#define FASTGAN_NO_UNROLL
#endif
