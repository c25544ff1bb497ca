#pragma once

#include "../stable.h"

// Memory for the outputs of CPU kernels. The pages of a fresh large tensor cost several times what writing them does,
// because the system clears each and hands it out with a fault. FASTGAN_HUGE_PAGES=0 switches both remedies off.
namespace fastgan {

// Asks the system to back a large allocation with huge pages where it is not backed yet: glibc takes tensors above 32
// MB afresh from the system and returns them when they are freed. NumPy and PyTorch's own option do the same above 4
// and 2 MB. Does nothing for small tensors, and where the system has no such thing.
void advise_huge_pages(void* data, int64_t bytes);

// glibc returns the top of its heap once twice the largest block that it has seen freed lies there: for a step that
// makes an image and its gradient, two blocks of one size, that is every time. Frees one block of 32 MB, of which no
// page was ever touched; from that glibc learns to keep up to 64 MB, as it does in a process that once freed a tensor
// that large. Once per process; without effect where the user has set malloc's thresholds.
void teach_malloc_image_sizes();

// An output of a CPU kernel: aten::empty_like, with huge pages.
inline Tensor new_output(const Tensor& like, ScalarType dtype) {
  Tensor output = empty_like(like, dtype);
  advise_huge_pages(output.data_ptr(), output.numel() * size_of(dtype_of(dtype)));
  return output;
}

// The same of an op from an image to an image, whose gradient has the same size.
inline Tensor new_image(const Tensor& like, ScalarType dtype) {
  teach_malloc_image_sizes();
  return new_output(like, dtype);
}

}  // namespace fastgan
