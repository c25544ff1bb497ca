#pragma once

#include <cstdint>

namespace fastgan {

// Random words of three streams: the four of philox(seed, counter + i, stream) go to words[stream][0][i] ..
// words[stream][3][i], i < count. Whole batches are written: rows need room for `count` rounded up to a multiple of
// kPhiloxBatch.
constexpr int kStreams = 3;
constexpr int64_t kPhiloxBatch = 8;
using StreamWords = uint32_t* const[kStreams][4];
void philox_words(uint64_t seed, uint64_t counter, int64_t count, const StreamWords& words);

}  // namespace fastgan
