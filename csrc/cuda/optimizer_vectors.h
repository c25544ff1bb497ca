#pragma once

#include <cstdint>

#include "../cpu/pixels.h"
#include "../math/half.h"
#include "../math/philox.h"

// How the optimizer's threads read and write arrays: several elements at once, as the 32-bit words found in memory.
// Words are converted to numbers only when needed. Converting after each load would wait for one array before the next
// is requested, and words of halves take half the registers.
namespace fastgan {
namespace blocks {

// The element types of a tensor's arrays. A thread processes 16 bytes of each at once, but 8 of halves mixed with
// float32.
enum class Form { kFloats, kMixed, kHalves };

template <Form kForm>
constexpr int kWidth = kForm == Form::kHalves ? 8 : 4;

struct alignas(16) Words {
  uint32_t words[4];
};
struct alignas(8) TwoWords {
  uint32_t words[2];
};

FASTGAN_HOST_DEVICE float half_to_float(uint16_t bits, Dtype type) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  // One instruction instead of math/half.h's seven (fifteen in float_to_half); only the bits of NaN differ.
  float from_float16;
  asm("cvt.f32.f16 %0, %1;" : "=f"(from_float16) : "h"(bits));
  return type == Dtype::kBFloat16 ? to_float(BFloat16{bits}) : from_float16;
#else
  return type == Dtype::kBFloat16 ? to_float(BFloat16{bits}) : to_float(Float16{bits});
#endif
}

FASTGAN_HOST_DEVICE uint16_t float_to_half(float value, Dtype type) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint16_t bfloat16, float16;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bfloat16) : "f"(value));
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(float16) : "f"(value));
  return type == Dtype::kBFloat16 ? bfloat16 : float16;
#else
  return type == Dtype::kBFloat16 ? to_bfloat16(value).bits : to_float16(value).bits;
#endif
}

// Whether the elements of an array are float32; otherwise they are halves.
template <Form kForm>
FASTGAN_HOST_DEVICE bool is_float(Dtype type) {
  return kForm == Form::kFloats || (kForm == Form::kMixed && type == Dtype::kFloat32);
}

FASTGAN_HOST_DEVICE uint16_t half_at(const Words& w, int j) {
  return static_cast<uint16_t>(w.words[j / 2] >> (16 * (j % 2)));
}
FASTGAN_HOST_DEVICE void set_half(Words& w, int j, uint16_t half) {
  uint32_t& word = w.words[j / 2];
  word = j % 2 == 0 ? (word & 0xffff0000u) | half : (word & 0x0000ffffu) | uint32_t(half) << 16;
}

FASTGAN_HOST_DEVICE Words with_halves_swapped(const Words& w) {
  return {{w.words[2], w.words[3], w.words[0], w.words[1]}};
}

template <Form kForm>
FASTGAN_HOST_DEVICE float element(const Words& w, Dtype type, int j) {
  return is_float<kForm>(type) ? float_from_bits(w.words[j % 4]) : half_to_float(half_at(w, j), type);
}

template <Form kForm>
FASTGAN_HOST_DEVICE void set_element(Words& w, Dtype type, int j, float value) {
  if (is_float<kForm>(type)) {
    w.words[j % 4] = bits_of_float(value);
  } else {
    set_half(w, j, float_to_half(value, type));
  }
}

// Like `set_element` for halves, with stochastic rounding.
FASTGAN_HOST_DEVICE void set_half_stochastically(Words& w, Dtype type, int j, float value, uint32_t word) {
  set_half(
      w, j, type == Dtype::kBFloat16 ? stochastic_bfloat16(value, word).bits : stochastic_float16(value, word).bits);
}

template <typename T>
FASTGAN_HOST_DEVICE bool is_aligned_to(int bytes, const T* address) {
  return reinterpret_cast<uintptr_t>(address) % bytes == 0;
}

// Loads kWidth elements from element i on, which must be aligned to their total size.
template <Form kForm>
FASTGAN_HOST_DEVICE Words load_whole(const void* data, Dtype type, int64_t i) {
  if (is_float<kForm>(type)) return *reinterpret_cast<const Words*>(static_cast<const float*>(data) + i);
  const uint16_t* const source = static_cast<const uint16_t*>(data) + i;
  if (kForm == Form::kHalves) return *reinterpret_cast<const Words*>(source);
  const TwoWords two = *reinterpret_cast<const TwoWords*>(source);
  return {{two.words[0], two.words[1], 0, 0}};
}

// Loads `count` elements from element i on, at most kWidth; the remaining ones are 0.
template <Form kForm>
FASTGAN_HOST_DEVICE Words load(const void* data, Dtype type, int64_t i, int count) {
  Words w = {};
  const bool is_whole = count == kWidth<kForm>;
  if (is_float<kForm>(type)) {
    const float* const source = static_cast<const float*>(data) + i;
    if (is_whole && is_aligned_to(16, source)) return load_whole<kForm>(data, type, i);
    for (int j = 0; j < 4; ++j) {
      if (j < count) w.words[j] = bits_of_float(source[j]);
    }
    return w;
  }
  const uint16_t* const source = static_cast<const uint16_t*>(data) + i;
  if (is_whole && is_aligned_to(2 * kWidth<kForm>, source)) return load_whole<kForm>(data, type, i);
  for (int j = 0; j < kWidth<kForm>; ++j) {
    if (j < count) set_half(w, j, source[j]);
  }
  return w;
}

// Stores with an intrinsic, because the compiler merges plain assignments with the loop over single elements into four
// separate stores.
FASTGAN_HOST_DEVICE void store_words(const Words& w, void* target) {
#ifdef __CUDA_ARCH__
  __stwb(static_cast<uint4*>(target), make_uint4(w.words[0], w.words[1], w.words[2], w.words[3]));
#else
  *static_cast<Words*>(target) = w;
#endif
}

FASTGAN_HOST_DEVICE void store_words(const TwoWords& w, void* target) {
#ifdef __CUDA_ARCH__
  __stwb(static_cast<uint2*>(target), make_uint2(w.words[0], w.words[1]));
#else
  *static_cast<TwoWords*>(target) = w;
#endif
}

template <Form kForm>
FASTGAN_HOST_DEVICE void store(const Words& w, void* data, Dtype type, int64_t i, int count) {
  const bool is_whole = count == kWidth<kForm>;
  if (is_float<kForm>(type)) {
    float* const target = static_cast<float*>(data) + i;
    if (is_whole && is_aligned_to(16, target)) return store_words(w, target);
    for (int j = 0; j < 4; ++j) {
      if (j < count) target[j] = float_from_bits(w.words[j]);
    }
    return;
  }
  uint16_t* const target = static_cast<uint16_t*>(data) + i;
  if (is_whole && is_aligned_to(2 * kWidth<kForm>, target)) {
    if (kForm == Form::kHalves) return store_words(w, target);
    return store_words(TwoWords{{w.words[0], w.words[1]}}, target);
  }
  for (int j = 0; j < kWidth<kForm>; ++j) {
    if (j < count) target[j] = half_at(w, j);
  }
}

}  // namespace blocks
}  // namespace fastgan
