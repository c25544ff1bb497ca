#include "huge_pages.h"

#include <cstdlib>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastgan {

#if defined(__linux__)

void advise_huge_pages(void* data, int64_t bytes) {
  constexpr uintptr_t kHugePage = uintptr_t(2) << 20;
  constexpr int64_t kSmallest = int64_t(4) << 20;
  static const bool wanted = [] {
    const char* setting = std::getenv("FASTGAN_HUGE_PAGES");
    return !setting || std::strcmp(setting, "0") != 0;
  }();
  if (!wanted || bytes < kSmallest) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data), end = begin + static_cast<uintptr_t>(bytes);
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage, last = end / kHugePage * kHugePage;
  // A refusal leaves the pages as they are, which is no error.
  if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

#else

void advise_huge_pages(void*, int64_t) {}

#endif

}  // namespace fastgan
