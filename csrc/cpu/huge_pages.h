#pragma once

#include "../stable.h"

namespace fastgan {

// Asks the system to back a large allocation with huge pages where it is not backed yet. glibc takes tensors above 32
// MB afresh from the system and returns them when they are freed; handing out 4 KiB at a time then costs several times
// what writing them does. NumPy and PyTorch's own option do the same above 4 and 2 MB. Does nothing for small tensors,
// and where the system has no such thing; FASTGAN_HUGE_PAGES=0 switches it off.
void advise_huge_pages(void* data, int64_t bytes);

// An output of a CPU kernel: aten::empty_like, with huge pages.
inline Tensor new_output(const Tensor& like, ScalarType dtype) {
  Tensor output = empty_like(like, dtype);
  advise_huge_pages(output.data_ptr(), output.numel() * size_of(dtype_of(dtype)));
  return output;
}

}  // namespace fastgan
