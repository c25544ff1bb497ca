#pragma once

#include <algorithm>
#include <cstdint>

namespace fastgan {

// How planes are shared among threads: several small ones to a block, a large one in bands of rows where there are too
// few planes. Bounds follow from sizes alone; results do not depend on them.
struct FirBlocks {
  // `pixels` is the most that a plane has before, within or after the op, `rows` those of the result.
  FirBlocks(int64_t planes, int64_t pixels, int64_t rows) : planes_(planes), rows_(rows) {
    constexpr int64_t kPixels = 32768;   // of a block, some 50 us of work
    constexpr int64_t kManyPlanes = 64;  // enough for any number of threads
    constexpr int64_t kFewestRows = 32;  // the source's rows around a band are read by its neighbours, too
    planes_per_block_ = std::max<int64_t>(1, kPixels / std::max<int64_t>(1, pixels));
    const int64_t bands = planes >= kManyPlanes ? 1 : std::max<int64_t>(1, pixels / kPixels);
    band_ = std::max(kFewestRows, (rows + bands - 1) / bands);
    bands_ = std::max<int64_t>(1, (rows + band_ - 1) / band_);
    blocks = (planes + planes_per_block_ - 1) / planes_per_block_ * bands_;
  }

  // Calls body(plane, first row, row after the last) for each part of a block.
  template <typename Body>
  void for_each(int64_t block, const Body& body) const {
    const int64_t first = block / bands_ * planes_per_block_, begin = block % bands_ * band_;
    for (int64_t plane = first; plane < std::min(first + planes_per_block_, planes_); ++plane)
      body(plane, begin, std::min(begin + band_, rows_));
  }

  int64_t blocks;

 private:
  int64_t planes_, rows_, planes_per_block_, band_, bands_;
};

}  // namespace fastgan
