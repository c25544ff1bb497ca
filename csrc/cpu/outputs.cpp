#include "outputs.h"

#include <cstdlib>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastgan {

#if defined(__linux__)

namespace {

bool wanted() {
  static const bool answer = [] {
    const char* setting = std::getenv("FASTGAN_HUGE_PAGES");
    return !setting || std::strcmp(setting, "0") != 0;
  }();
  return answer;
}

}  // namespace

void advise_huge_pages(void* data, int64_t bytes) {
  constexpr uintptr_t kHugePage = uintptr_t(2) << 20;
  constexpr int64_t kSmallest = int64_t(4) << 20;
  if (!wanted() || bytes < kSmallest) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data), end = begin + static_cast<uintptr_t>(bytes);
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage, last = end / kHugePage * kHugePage;
  // A refusal leaves the pages as they are, which is no error.
  if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

#else

void advise_huge_pages(void*, int64_t) {}

#endif

void teach_malloc_image_sizes() {
#if defined(__GLIBC__)
  static const bool taught = [] {
    // The largest from which glibc learns, less its own header and a page.
    constexpr size_t kLargest = (size_t(32) << 20) - 8192;
    if (!wanted()) return false;
    void* volatile block = std::malloc(kLargest);  // volatile: not to be optimized away
    std::free(block);
    return true;
  }();
  (void)taught;
#endif
}

}  // namespace fastgan
