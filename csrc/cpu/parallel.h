#pragma once

#include "../stable.h"

namespace fastgan {

// Runs body(0) .. body(blocks - 1) on torch's threads, in any order. Each thread gets at least `grain` blocks.
template <typename Body>
void for_all(int64_t blocks, int64_t grain, const Body& body) {
  torch::stable::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) body(block);
  });
}

}  // namespace fastgan
