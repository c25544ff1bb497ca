#pragma once

#include "fir_blocks.h"
#include "fir_rows.h"
#include "pixels.h"

// The CPU kernel of upfirdn2d without torch, for planes that follow each other in memory.
namespace fastgan {

class Upfirdn2dSweep {
 public:
  Upfirdn2dSweep(int64_t planes, FirAxis x, FirAxis y, const FirFilter& filter, Dtype dtype);

  int64_t blocks() const { return blocks_.blocks; }

  // Any thread may run any block, each exactly once.
  void run(int64_t block, const void* source, void* target) const;

 private:
  template <typename T>
  void run_typed(const FirPlan<T>& plan, int64_t block, const char* source, char* target) const;

  Dtype dtype_;
  FirBlocks blocks_;
  std::vector<FirPlan<float>> single_;  // one of the two has the plan
  std::vector<FirPlan<double>> double_;
};

}  // namespace fastgan
