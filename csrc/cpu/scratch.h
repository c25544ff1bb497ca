#pragma once

#include <cstdint>
#include <memory>

namespace fastgan {

// Uninitialized memory, to be written before it is read: clearing it would take as long as the arithmetic.
template <typename S>
using Scratch = std::unique_ptr<S[]>;

template <typename S>
Scratch<S> scratch(int64_t count) {
  return Scratch<S>(new S[count]);
}

}  // namespace fastgan
