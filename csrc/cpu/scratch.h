#pragma once

#include <cstdint>
#include <memory>

namespace fastgan {

// Memory that is written before it is read: zeros would cost as much as the arithmetic.
template <typename S>
using Scratch = std::unique_ptr<S[]>;

template <typename S>
Scratch<S> scratch(int64_t count) {
  return Scratch<S>(new S[count]);
}

}  // namespace fastgan
