#pragma once

#include "fir_blocks.h"
#include "fir_rows.h"
#include "pixels.h"

// The CPU kernels of filtered_lrelu without torch, for planes that follow each other in memory. An upsampled row is
// computed when the first output row reads it, and kept while others do: the upsampled image is never stored.
namespace fastgan {

struct Activation {
  double slope, gain, limit;
};

class FilteredLreluSweep {
 public:
  // `first_x` and so on are the axes of the two filters; what the first ends with, the second begins with.
  FilteredLreluSweep(
      int64_t samples, int64_t channels, FirAxis first_x, FirAxis first_y, const FirFilter& first, FirAxis second_x,
      FirAxis second_y, const FirFilter& second, Activation activation, Dtype dtype);

  int64_t blocks() const { return blocks_.blocks; }

  // Filters source + bias, activates, and filters again. `bias`, null or one value per channel, is double for kFloat64
  // and float otherwise; `codes`, if not null, receives those of csrc/math/filtered_lrelu.h.
  void activate(int64_t block, const void* source, const void* bias, void* target, uint8_t* codes) const;
  // Filters, multiplies by the factors that the codes stand for, and filters again.
  void multiply(int64_t block, const void* source, const uint8_t* codes, void* target) const;

 private:
  template <typename T>
  struct Plans {
    FirPlan<T> first, second;
  };

  template <typename T, typename Change>
  void run(const Plans<T>& plans, int64_t block, const char* source, const T* bias, char* target, const Change& change)
      const;
  template <typename T>
  void activate_typed(
      const Plans<T>& plans, int64_t block, const char* source, const T* bias, char* target, uint8_t* codes) const;
  template <typename T>
  void multiply_typed(
      const Plans<T>& plans, int64_t block, const char* source, const uint8_t* codes, char* target) const;

  int64_t channels_;
  Activation activation_;
  Dtype dtype_;
  FirBlocks blocks_;
  std::vector<Plans<float>> single_;  // one of the two has the plans
  std::vector<Plans<double>> double_;
};

}  // namespace fastgan
