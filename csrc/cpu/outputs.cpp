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

bool is_enabled() {
  static const bool enabled = [] {
    const char* setting = std::getenv("FASTGAN_HUGE_PAGES");
    return !setting || std::strcmp(setting, "0") != 0;
  }();
  return enabled;
}

}  // namespace

void advise_huge_pages(void* data, int64_t bytes) {
  constexpr uintptr_t kHugePage = uintptr_t(2) << 20;
  constexpr int64_t kSmallest = int64_t(4) << 20;
  if (!is_enabled() || bytes < kSmallest) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data), end = begin + static_cast<uintptr_t>(bytes);
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage, last = end / kHugePage * kHugePage;
  // If the system refuses, the pages stay as they are; that is no error.
  if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

#else

void advise_huge_pages(void*, int64_t) {}

#endif

#if defined(__GLIBC__)

namespace {

// The largest size of block that malloc is known to retain when it is freed.
std::atomic<int64_t> retained_bytes{0};
std::mutex retention_mutex;

bool set_by_user() {
  for (const char* name : {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_"})
    if (std::getenv(name)) return true;
  const char* tunables = std::getenv("GLIBC_TUNABLES");
  return tunables && std::strstr(tunables, "glibc.malloc.");
}

// When a mapped block is freed, glibc raises its mmap threshold to the block's size and its trim threshold to twice
// that. Frees such a block on purpose; returns its size.
int64_t learn_from_free() {
  // The largest size to which glibc adapts (DEFAULT_MMAP_THRESHOLD_MAX), less its header and a page.
  constexpr int64_t kLargest = (int64_t(32) << 20) - 8192;
  void* volatile block = std::malloc(kLargest);  // volatile: not to be optimized away
  std::free(block);
  return kLargest;
}

}  // namespace

void keep_freed_images(int64_t bytes) {
  if (bytes <= retained_bytes.load(std::memory_order_relaxed) || !is_enabled()) return;
  const std::lock_guard<std::mutex> lock(retention_mutex);
  if (retained_bytes == 0) retained_bytes = set_by_user() ? std::numeric_limits<int64_t>::max() : learn_from_free();
  if (bytes <= retained_bytes) return;
  constexpr int64_t kLimit = std::numeric_limits<int>::max();
  mallopt(M_MMAP_THRESHOLD, static_cast<int>(std::min(bytes + 8192, kLimit)));
  mallopt(M_TRIM_THRESHOLD, static_cast<int>(std::min(4 * bytes, kLimit)));
  retained_bytes = bytes;
}

bool keep_freed_memory() {
  const std::lock_guard<std::mutex> lock(retention_mutex);
  retained_bytes = std::numeric_limits<int64_t>::max();
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
