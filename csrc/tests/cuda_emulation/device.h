#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

// Runs a grid of threads on the CPU, each on a stack of its own, in an order that CUDA permits: blocks one after the
// other in random order, and the threads of a block in random order, each until it waits for others. In half of the
// blocks some warps run ahead as far as they can. A missing barrier, or a block that relies on another one, therefore
// changes results, and a seed reproduces the run.
//
// Shared memory is filled with NaN before each block. A launch fails if threads deadlock or wait at different barriers.
// On one core every write is visible to all threads at once, so that missing fences are detected by a rule (see
// `arrive`).
namespace emulation {

// The location of a call of __syncthreads or similar.
struct Site {
  const char* file;
  int line;
};

class Device {
 public:
  Device();
  ~Device();

  // Runs body() for every thread of every block; calls enter(block, thread) whenever a thread starts or continues.
  // Returns false on failure.
  bool run(
      unsigned blocks, unsigned threads, const std::function<void(unsigned, unsigned)>& enter,
      const std::function<void()>& body);
  const char* failure() const { return failure_.c_str(); }  // of the last run

  // --- called by host code ---
  // The caller's stream, which is not the default one, and the number of active device guards. Work on another stream,
  // or without a guard, is an error.
  void* stream() { return this; }
  int guards = 0;

  // --- called by threads ---
  void wait_for_block(Site site);
  // Waits for the lanes in the mask, and returns the value that each of them passed.
  const std::array<uint64_t, 32>& wait_for_warp(Site site, unsigned mask, uint64_t value, bool can_be_skipped = false);
  int lane() const { return static_cast<int>(current_ % 32); }
  void fence(Site site);
  // Called when a block counts itself finished: since their last write, all its threads must have passed a fence and a
  // barrier, and they need another fence between the next barrier and their reads of other blocks' results (CUDA C++
  // Programming Guide, "Memory fence functions").
  void arrive(const void* counter);

  // --- called by tests ---
  void seed(uint64_t value) { random_.seed(value); }
  // Disables the calls at this line from now on; line 0: none.
  void skip(const char* file, int line);
  int64_t skips() const { return skips_; }  // calls skipped since then

 private:
  struct Fiber;
  struct Thread {
    Fiber* fiber = nullptr;  // null: not started
    Site site = {nullptr, 0};
    unsigned mask = 0;   // lanes that it waits for
    uint64_t given = 0;  // its value for these lanes
    std::array<uint64_t, 32> received;
    int fence = -1;  // barriers that the block had passed at the thread's last fence
    bool has_ended = false;
  };

  bool is_skipped(Site site);
  void run_block();
  void run_threads(Fiber& fiber);
  bool take_next();  // a random ready thread, or one of the most urgent warp
  uint64_t urgency(unsigned thread) const { return (thread / 32 + 1) * hurry_; }
  void resume();  // continues the current thread, called from the host's stack
  [[noreturn]] __attribute__((noinline)) void enter(Fiber& fiber);
  void suspend();  // the current thread
  [[noreturn]] void fail(const std::string& message);

  std::mt19937_64 random_;
  std::string failure_, skipped_file_;
  int skipped_line_ = 0;
  int64_t skips_ = 0;

  const std::function<void(unsigned, unsigned)>* enter_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  unsigned block_ = 0, current_ = 0;
  bool hurries_ = false;  // whether some warps run ahead as far as they can
  uint64_t hurry_ = 0;
  bool is_taken_ = false;           // whether the current thread has yet to be resumed
  unsigned waiting_ = 0;            // threads that wait at a barrier
  int barriers_ = 0, arrived_ = 0;  // barriers that the block has passed, now and when it last called `arrive`
  std::vector<Thread> threads_;
  std::vector<unsigned> ready_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  void* host_[5];
};

Device& device();

}  // namespace emulation
