#pragma once

#include "../stable.h"

// Memory for the outputs of CPU kernels. Touching the pages of a new large tensor costs several times as much as
// writing to them, because each causes a page fault and is cleared. FASTGAN_HUGE_PAGES=0 switches the measures below
// off.
namespace fastgan {

// Asks the system for huge pages behind the part of a large allocation that has no pages yet. glibc maps tensors above
// 32 MB anew each time and unmaps them when they are freed. NumPy does the same above 4 MB, and PyTorch as an option
// above 2 MB. Does nothing for small tensors and on systems without huge pages.
void advise_huge_pages(void* data, int64_t bytes);

// Raises glibc's trim and mmap thresholds to fit four images of this size, so that the next step reuses freed blocks:
// an image, its gradient, and as much again. By default glibc returns the top of its heap to the system once that
// exceeds twice the largest block freed so far, which happens at every step that makes an image and its gradient, and
// maps blocks above 32 MB anew each time. Does nothing where environment variables set malloc's thresholds; thresholds
// set by mallopt are overridden above 32 MB.
void keep_freed_images(int64_t bytes);

// Makes glibc retain all freed memory for reuse, as suits a training step. Returns false if malloc is not glibc's.
bool keep_freed_memory();

// An output of a CPU kernel: aten::empty_like, with huge pages.
inline Tensor new_output(const Tensor& like, ScalarType dtype) {
  Tensor output = empty_like(like, dtype);
  advise_huge_pages(output.data_ptr(), output.numel() * size_of(dtype_of(dtype)));
  return output;
}

// The same for an op from image to image, whose gradient will have the same size.
inline Tensor new_image(const Tensor& like, ScalarType dtype) {
  keep_freed_images(like.numel() * size_of(dtype_of(dtype)));
  return new_output(like, dtype);
}

}  // namespace fastgan
