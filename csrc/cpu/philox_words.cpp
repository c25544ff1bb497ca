#include "philox_words.h"

#include "../math/philox.h"
#include "clones.h"

#if FASTGAN_HAS_CLONES
#include <immintrin.h>
#endif

// Written with intrinsics because compilers build the 64-bit product of two 32-bit lanes from three multiplications,
// while the processors have one instruction for it (vpmuludq). It ignores the upper halves of its operands: each 64-bit
// lane holds one word, nothing has to be masked, and a round takes six instructions. The vectors of the three streams
// are independent, which hides the latency.
namespace fastgan {

#if FASTGAN_HAS_CLONES

__attribute__((target("default")))
#endif
void philox_batch(uint64_t seed, uint64_t counter, const StreamWords& words, int64_t at) {
  for (int stream = 0; stream < kStreams; ++stream) {
    for (int64_t i = at; i < at + kPhiloxBatch; ++i) {
      const Philox numbers = philox(seed, counter + i, stream);
      for (int k = 0; k < 4; ++k) words[stream][k][i] = numbers.words[k];
    }
  }
}

#if FASTGAN_HAS_CLONES

__attribute__((target("avx2"))) void philox_batch(
    uint64_t seed, uint64_t counter, const StreamWords& words, int64_t at) {
  constexpr int kVectors = 2 * kStreams;  // two for the batch of each stream
  const __m256i multiplier0 = _mm256_set1_epi64x(0xD2511F53), multiplier1 = _mm256_set1_epi64x(0xCD9E8D57);
  const __m256i low_words = _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0);
  __m256i c[4][kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const __m256i lane =
        _mm256_add_epi64(_mm256_set1_epi64x(counter + at + 4 * (v % 2)), _mm256_setr_epi64x(0, 1, 2, 3));
    c[0][v] = lane;
    c[1][v] = _mm256_srli_epi64(lane, 32);
    c[2][v] = _mm256_set1_epi64x(v / 2);
    c[3][v] = _mm256_setzero_si256();
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
    for (int v = 0; v < kVectors; ++v) {
      const __m256i product0 = _mm256_mul_epu32(multiplier0, c[0][v]);
      const __m256i product1 = _mm256_mul_epu32(multiplier1, c[2][v]);
      c[0][v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), c[1][v]), key0);
      c[2][v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), c[3][v]), key1);
      c[1][v] = product1;
      c[3][v] = product0;
    }
  }
  for (int k = 0; k < 4; ++k) {
    for (int v = 0; v < kVectors; ++v) {
      const __m256i packed = _mm256_permutevar8x32_epi32(c[k][v], low_words);
      uint32_t* target = words[v / 2][k] + at + 4 * (v % 2);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm256_castsi256_si128(packed));
    }
  }
}

__attribute__((target("avx512f"))) void philox_batch(
    uint64_t seed, uint64_t counter, const StreamWords& words, int64_t at) {
  const __m512i multiplier0 = _mm512_set1_epi64(0xD2511F53), multiplier1 = _mm512_set1_epi64(0xCD9E8D57);
  __m512i c[4][kStreams];
  for (int v = 0; v < kStreams; ++v) {
    const __m512i lane = _mm512_add_epi64(_mm512_set1_epi64(counter + at), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    c[0][v] = lane;
    c[1][v] = _mm512_srli_epi64(lane, 32);
    c[2][v] = _mm512_set1_epi64(v);
    c[3][v] = _mm512_setzero_si512();
  }
  constexpr int kXor = 0x96;  // truth table of a ^ b ^ c
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const __m512i key0 = _mm512_set1_epi64(k0), key1 = _mm512_set1_epi64(k1);
    for (int v = 0; v < kStreams; ++v) {
      const __m512i product0 = _mm512_mul_epu32(multiplier0, c[0][v]);
      const __m512i product1 = _mm512_mul_epu32(multiplier1, c[2][v]);
      c[0][v] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product1, 32), c[1][v], key0, kXor);
      c[2][v] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), c[3][v], key1, kXor);
      c[1][v] = product1;
      c[3][v] = product0;
    }
  }
  for (int k = 0; k < 4; ++k) {
    for (int v = 0; v < kStreams; ++v) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(words[v][k] + at), _mm512_cvtepi64_epi32(c[k][v]));
    }
  }
}

#endif

void philox_words(uint64_t seed, uint64_t counter, int64_t count, const StreamWords& words) {
  for (int64_t at = 0; at < count; at += kPhiloxBatch) philox_batch(seed, counter, words, at);
}

}  // namespace fastgan
