#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

// Runs a grid of threads on the CPU, each on a stack of its own, as CUDA would be free to: blocks one after the other
// in random order, and the threads of a block in random order, each up to where it waits for others; in half of the
// blocks some warps run as far ahead as they can. So a missing barrier or a block that counts on another one changes
// results, and a seed brings that run back.
//
// Shared memory is filled with NaN before each block. Threads that wait for what cannot come, or at different barriers,
// make the launch fail. On one core, every thread sees at once what another one wrote: that a fence is missing is found
// by rule (see `arrive`).
namespace emulation {

// A line that calls __syncthreads or the like.
struct Site {
  const char* file;
  int line;
};

class Device {
 public:
  Device();
  ~Device();

  // Runs body() for every thread of every block; calls enter(block, thread) whenever a thread goes on. Returns false
  // where they fail.
  bool run(
      unsigned blocks, unsigned threads, const std::function<void(unsigned, unsigned)>& enter,
      const std::function<void()>& body);
  const char* failure() const { return failure_.c_str(); }  // of the last run

  // --- called by the host's code ---
  // The caller's stream, which is not the default one; and how many guards make the tensors' GPU the present one. What
  // is issued elsewhere, or without a guard, is an error.
  void* stream() { return this; }
  int guards = 0;

  // --- called by threads ---
  void wait_for_block(Site site);
  // Waits for the lanes in the mask, and returns what each of them gave.
  const std::array<uint64_t, 32>& wait_for_warp(Site site, unsigned mask, uint64_t value, bool can_be_skipped = false);
  int lane() const { return static_cast<int>(current_ % 32); }
  void fence(Site site);
  // "This block is done": all its threads must have come past a fence and a barrier since they wrote, and need another
  // fence between the barrier after this one and what they read of other blocks (CUDA C++ Programming Guide, "Memory
  // fence functions").
  void arrive(const void* counter);

  // --- called by tests ---
  void seed(uint64_t value) { random_.seed(value); }
  // Leaves out the calls in this line from now on; line 0: none.
  void skip(const char* file, int line);
  int64_t skips() const { return skips_; }  // calls left out since

 private:
  struct Fiber;
  struct Thread {
    Fiber* fiber = nullptr;  // none: it has not begun
    Site site = {nullptr, 0};
    unsigned mask = 0;  // of the lanes that it waits for, and what it gives them
    uint64_t given = 0;
    std::array<uint64_t, 32> received;
    int fence = -1;  // how many barriers the block had passed at its last one
    bool has_ended = false;
  };

  bool is_skipped(Site site);
  void run_block();
  void run_threads(Fiber& fiber);
  bool take_next();  // any of the threads that are ready, or one of the warp that hurries most
  uint64_t urgency(unsigned thread) const { return (thread / 32 + 1) * hurry_; }
  void resume();  // goes on with the present thread, from the host's stack
  [[noreturn]] __attribute__((noinline)) void enter(Fiber& fiber);
  void suspend();  // the present thread
  [[noreturn]] void fail(const std::string& message);

  std::mt19937_64 random_;
  std::string failure_, skipped_file_;
  int skipped_line_ = 0;
  int64_t skips_ = 0;

  const std::function<void(unsigned, unsigned)>* enter_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  unsigned block_ = 0, current_ = 0;
  bool hurries_ = false;  // whether warps overtake others as far as they can
  uint64_t hurry_ = 0;
  bool is_taken_ = false;           // whether the present thread has yet to be resumed
  unsigned waiting_ = 0;            // threads at a barrier
  int barriers_ = 0, arrived_ = 0;  // barriers that the block has passed, now and when it said that it is done
  std::vector<Thread> threads_;
  std::vector<unsigned> ready_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  void* host_[5];
};

Device& device();

}  // namespace emulation
