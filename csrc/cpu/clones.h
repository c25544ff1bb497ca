#pragma once

// FASTGAN_CLONES compiles a function once per instruction set, and the loader picks the best version for the processor,
// so that one binary serves every x86-64. On other platforms only the plain function exists.
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && (defined(__GNUC__) || defined(__clang__))
#define FASTGAN_HAS_CLONES 1
// x86-64-v4 includes the AVX-512 byte instructions; without them loops that write masks use half-width vectors.
#if !defined(__clang__) && __GNUC__ >= 12
#define FASTGAN_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#define FASTGAN_AVX512 "x86-64-v4"
#else
#define FASTGAN_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#define FASTGAN_AVX512 "avx512f"
#endif
#else
#define FASTGAN_CLONES
#define FASTGAN_HAS_CLONES 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define FASTGAN_PREFETCH(address) __builtin_prefetch(address, 0, 2)
#define FASTGAN_PREFETCH_WRITE(address) __builtin_prefetch(address, 1, 2)
#else
#define FASTGAN_PREFETCH(address) ((void)(address))
#define FASTGAN_PREFETCH_WRITE(address) ((void)(address))
#endif

namespace fastgan {

// The name of the version that this processor runs: "avx512", "avx2" or "default".
inline const char* cpu_capability() {
#if FASTGAN_HAS_CLONES
  __builtin_cpu_init();
  if (__builtin_cpu_supports(FASTGAN_AVX512)) return "avx512";
  if (__builtin_cpu_supports("avx2")) return "avx2";
#endif
  return "default";
}

}  // namespace fastgan
