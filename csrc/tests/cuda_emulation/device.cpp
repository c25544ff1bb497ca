#include "device.h"

#include <link.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

namespace emulation {
namespace {

constexpr size_t kStackBytes = 1 << 19;  // unoptimized code takes more than optimized

// This library's data segments; the thread_local one is that of the calling thread.
struct Segments {
  char *thread_local_data = nullptr, *data = nullptr;
  size_t thread_local_bytes = 0, data_bytes = 0;
};

int find_segments(dl_phdr_info* info, size_t, void* result) {
  const uintptr_t own_address = reinterpret_cast<uintptr_t>(&find_segments);
  Segments candidate;
  bool is_this = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & header = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    is_this |= header.p_type == PT_LOAD && own_address - begin < header.p_memsz;
    if (header.p_type == PT_TLS) {
      candidate.thread_local_data = static_cast<char*>(info->dlpi_tls_data);
      candidate.thread_local_bytes = header.p_memsz;
    } else if (header.p_type == PT_LOAD && (header.p_flags & PF_W)) {
      candidate.data = reinterpret_cast<char*>(begin);
      candidate.data_bytes = header.p_memsz;
    }
  }
  if (is_this) *static_cast<Segments*>(result) = candidate;
  return is_this;
}

Segments segments() {
  static thread_local int allocates_the_segment;
  *const_cast<volatile int*>(&allocates_the_segment) = 1;
  Segments result;
  dl_iterate_phdr(find_segments, &result);
  return result;
}

void poison_shared_memory() {
  const Segments memory = segments();
  if (memory.thread_local_data) std::memset(memory.thread_local_data, 0xff, memory.thread_local_bytes);
}

bool is_shared_memory(const void* pointer) {
  const Segments memory = segments();
  const char* const place = static_cast<const char*>(pointer);
  return (place >= memory.thread_local_data && place < memory.thread_local_data + memory.thread_local_bytes) ||
         (place >= memory.data && place < memory.data + memory.data_bytes);
}

const char* name_of(const char* path) {
  const char* const slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

std::string text_of(Site site) { return std::string(name_of(site.file)) + ":" + std::to_string(site.line); }

bool same(Site a, Site b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

// longjmp instead of swapcontext, which makes a system call for the signal mask.
[[noreturn]] __attribute__((noinline)) void jump(void** place) { __builtin_longjmp(place, 1); }

}  // namespace

struct Device::Fiber {
  ucontext_t start;
  std::unique_ptr<char[]> stack;
  void* place[5];
  bool has_started = false;
};

Device& device() {
  static Device device;
  return device;
}

Device::Device() = default;
Device::~Device() = default;

void Device::skip(const char* file, int line) {
  skipped_file_ = file;
  skipped_line_ = line;
  skips_ = 0;
}

bool Device::is_skipped(Site site) {
  if (site.line != skipped_line_ || skipped_file_ != name_of(site.file)) return false;
  ++skips_;
  return true;
}

bool Device::run(
    unsigned blocks, unsigned threads, const std::function<void(unsigned, unsigned)>& enter,
    const std::function<void()>& body) {
  enter_ = &enter;
  body_ = &body;
  failure_.clear();
  std::vector<unsigned> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), random_);
  for (const unsigned block : order) {
    block_ = block;
    threads_.assign(threads, Thread());
    ready_.resize(threads);
    std::iota(ready_.begin(), ready_.end(), 0u);
    waiting_ = 0;
    barriers_ = 0;
    arrived_ = -2;
    hurries_ = random_() % 2;
    hurry_ = random_() | 1;
    poison_shared_memory();
    run_block();
    if (failure_.empty()) continue;
    idle_.clear();  // fibers in the middle of a thread cannot be reused
    fibers_.clear();
    return false;
  }
  return true;
}

void Device::run_block() {
  while (failure_.empty() && (is_taken_ || take_next())) {
    is_taken_ = false;
    resume();
  }
  if (!failure_.empty()) return;
  for (const Thread& thread : threads_) {
    if (!thread.has_ended) {
      failure_ = "a thread waits in " + text_of(thread.site) + " for others that have ended";
      return;
    }
  }
}

bool Device::take_next() {
  if (ready_.empty()) return false;
  size_t choice = random_() % ready_.size();
  for (size_t i = 0; hurries_ && i < ready_.size(); ++i) {
    if (urgency(ready_[i]) > urgency(ready_[choice])) choice = i;
  }
  std::swap(ready_[choice], ready_.back());
  current_ = ready_.back();
  ready_.pop_back();
  return true;
}

__attribute__((noinline)) void Device::resume() {
  Thread& thread = threads_[current_];
  if (!thread.fiber) {
    if (idle_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>());
      Fiber& fiber = *fibers_.back();
      fiber.stack.reset(new char[kStackBytes]);
      getcontext(&fiber.start);
      fiber.start.uc_stack.ss_sp = fiber.stack.get();
      fiber.start.uc_stack.ss_size = kStackBytes;
      makecontext(
          &fiber.start,
          reinterpret_cast<void (*)()>(+[] { device().run_threads(*device().threads_[device().current_].fiber); }), 0);
      idle_.push_back(&fiber);
    }
    thread.fiber = idle_.back();
    idle_.pop_back();
  }
  if (__builtin_setjmp(host_) == 0) enter(*thread.fiber);
}

void Device::enter(Fiber& fiber) {
  if (fiber.has_started) jump(fiber.place);
  fiber.has_started = true;
  setcontext(&fiber.start);
  std::abort();
}

__attribute__((noinline)) void Device::suspend() {
  if (__builtin_setjmp(threads_[current_].fiber->place) == 0) jump(host_);
  (*enter_)(block_, current_);
}

// The endless loop of a fiber: runs one thread after the other.
void Device::run_threads(Fiber& fiber) {
  while (true) {
    (*enter_)(block_, current_);
    (*body_)();
    threads_[current_].has_ended = true;
    is_taken_ = take_next();
    if (is_taken_ && !threads_[current_].fiber) {
      threads_[current_].fiber = &fiber;
      is_taken_ = false;
      continue;
    }
    idle_.push_back(&fiber);
    if (__builtin_setjmp(fiber.place) == 0) jump(host_);
  }
}

void Device::fail(const std::string& message) {
  failure_ = message;
  jump(host_);
}

void Device::wait_for_block(Site site) {
  if (is_skipped(site)) return;
  Thread& thread = threads_[current_];
  if (barriers_ == arrived_ + 1 && thread.fence != barriers_) {
    fail("no __threadfence() before " + text_of(site) + ", where a block reads what others wrote");
  }
  thread.site = site;
  thread.mask = 0;
  if (++waiting_ == threads_.size()) {
    waiting_ = 0;
    ++barriers_;
    for (unsigned i = 0; i < threads_.size(); ++i) {
      if (!same(threads_[i].site, site)) {
        fail("threads of a block wait at different barriers: " + text_of(site) + ", " + text_of(threads_[i].site));
      }
      ready_.push_back(i);
    }
  }
  suspend();
}

const std::array<uint64_t, 32>& Device::wait_for_warp(Site site, unsigned mask, uint64_t value, bool can_be_skipped) {
  Thread& thread = threads_[current_];
  if (can_be_skipped && is_skipped(site)) return thread.received;
  if (!(mask >> lane() & 1)) fail("a thread is not in its own mask: " + text_of(site));
  thread.site = site;
  thread.mask = mask;
  thread.given = value;
  const unsigned first = current_ / 32 * 32;
  const unsigned lanes = std::min<unsigned>(32, static_cast<unsigned>(threads_.size()) - first);
  std::array<uint64_t, 32> given = {};
  for (unsigned lane = 0; lane < lanes; ++lane) {
    const Thread& other = threads_[first + lane];
    if (!(mask >> lane & 1)) continue;
    if (other.mask != mask || !same(other.site, site)) {
      suspend();  // the last lane to arrive continues below
      return thread.received;
    }
    given[lane] = other.given;
  }
  for (unsigned lane = 0; lane < lanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    threads_[first + lane].received = given;
    threads_[first + lane].mask = 0;
    ready_.push_back(first + lane);
  }
  suspend();
  return thread.received;
}

void Device::fence(Site site) {
  if (!is_skipped(site)) threads_[current_].fence = barriers_;
}

void Device::arrive(const void* counter) {
  if (is_shared_memory(counter)) return;
  for (const Thread& thread : threads_) {
    if (thread.fence < barriers_ - 1 || thread.fence < 0) {
      fail("a block counts itself done before all its threads have called __threadfence()");
    }
  }
  arrived_ = barriers_;
}

}  // namespace emulation

// The interface for tests.
#define FASTGAN_EXPORT extern "C" __attribute__((visibility("default")))
FASTGAN_EXPORT void fastgan_emulation_seed(uint64_t value) { emulation::device().seed(value); }
FASTGAN_EXPORT void fastgan_emulation_skip(const char* file, int line) { emulation::device().skip(file, line); }
FASTGAN_EXPORT int64_t fastgan_emulation_skips() { return emulation::device().skips(); }
