#pragma once

#include <cstdint>

namespace fastgan {

// The four words of philox(seed, counter + i) in words[0][i] .. words[3][i]; each row has room for `count` rounded up
// to a multiple of kPhiloxBatch.
constexpr int64_t kPhiloxBatch = 32;
void philox_words(uint64_t seed, uint64_t counter, int64_t count, uint32_t* const (&words)[4]);

}  // namespace fastgan
