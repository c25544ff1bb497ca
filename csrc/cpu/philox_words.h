#pragma once

#include <cstdint>

namespace fastgan {

// Words of three streams: those of philox(seed, counter + i, stream) in words[stream][0][i] .. words[stream][3][i].
// Writes whole batches: each row has room for `count` rounded up to a multiple of kPhiloxBatch.
constexpr int kStreams = 3;
constexpr int64_t kPhiloxBatch = 8;
using StreamWords = uint32_t* const[kStreams][4];
void philox_words(uint64_t seed, uint64_t counter, int64_t count, const StreamWords& words);

}  // namespace fastgan
