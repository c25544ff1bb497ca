#pragma once

#include "../stable.h"

// Memory for the outputs of CPU kernels. The pages of a fresh large tensor cost several times what writing them does,
// because the system clears each and hands it out with a fault. FASTGAN_HUGE_PAGES=0 switches the remedies off.
namespace fastgan {

// Asks the system to back a large allocation with huge pages where it is not backed yet: glibc takes tensors above 32
// MB afresh from the system and returns them when they are freed. NumPy and PyTorch's own option do the same above 4
// and 2 MB. Does nothing for small tensors, and where the system has no such thing.
void advise_huge_pages(void* data, int64_t bytes);

// Has glibc keep freed blocks of images like this one for the next. By itself it returns the top of its heap once twice
// the largest block that it has seen freed lies there, which a step that makes an image and its gradient reaches every
// time, and maps blocks above 32 MB afresh each time. Told to keep four: an image, its gradient, and as much again.
// Leaves malloc alone where the environment sets its thresholds; those set by mallopt are overridden above 32 MB.
void keep_freed_images(int64_t bytes);

// Has glibc keep all freed memory, as a training step wants; returns false where there is no glibc to tell.
bool keep_freed_memory();

// An output of a CPU kernel: aten::empty_like, with huge pages.
inline Tensor new_output(const Tensor& like, ScalarType dtype) {
  Tensor output = empty_like(like, dtype);
  advise_huge_pages(output.data_ptr(), output.numel() * size_of(dtype_of(dtype)));
  return output;
}

// The same of an op from an image to an image, whose gradient has the same size.
inline Tensor new_image(const Tensor& like, ScalarType dtype) {
  keep_freed_images(like.numel() * size_of(dtype_of(dtype)));
  return new_output(like, dtype);
}

}  // namespace fastgan
