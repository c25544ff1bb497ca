#include "outputs.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

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

#if defined(__GLIBC__)

namespace {

// The largest block that malloc is known to keep when it is freed.
std::atomic<int64_t> kept{0};
std::mutex keeping;

bool set_by_user() {
  for (const char* name : {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_"})
    if (std::getenv(name)) return true;
  const char* tunables = std::getenv("GLIBC_TUNABLES");
  return tunables && std::strstr(tunables, "glibc.malloc.");
}

// As glibc does when a mapped block is freed: the threshold becomes its size, twice that may lie at the heap's top.
int64_t learn_from_free() {
  // The largest from which glibc learns, less its own header and a page.
  constexpr int64_t kLargest = (int64_t(32) << 20) - 8192;
  void* volatile block = std::malloc(kLargest);  // volatile: not to be optimized away
  std::free(block);
  return kLargest;
}

}  // namespace

void keep_freed_images(int64_t bytes) {
  if (bytes <= kept.load(std::memory_order_relaxed) || !wanted()) return;
  const std::lock_guard<std::mutex> lock(keeping);
  if (kept == 0) kept = set_by_user() ? std::numeric_limits<int64_t>::max() : learn_from_free();
  if (bytes <= kept) return;
  constexpr int64_t kLimit = std::numeric_limits<int>::max();
  mallopt(M_MMAP_THRESHOLD, static_cast<int>(std::min(bytes + 8192, kLimit)));
  mallopt(M_TRIM_THRESHOLD, static_cast<int>(std::min(4 * bytes, kLimit)));
  kept = bytes;
}

bool keep_freed_memory() {
  const std::lock_guard<std::mutex> lock(keeping);
  kept = std::numeric_limits<int64_t>::max();
  return mallopt(M_MMAP_MAX, 0) && mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

#else

void keep_freed_images(int64_t) {}
bool keep_freed_memory() { return false; }

#endif

}  // namespace fastgan

STABLE_TORCH_LIBRARY_FRAGMENT(fastgan, library) { library.def("keep_freed_memory() -> bool"); }

STABLE_TORCH_LIBRARY_IMPL(fastgan, CompositeExplicitAutograd, library) {
  library.impl("keep_freed_memory", TORCH_BOX(&fastgan::keep_freed_memory));
}
