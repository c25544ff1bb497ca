#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "scratch.h"

// Rows of a plane that is upsampled, filtered and downsampled, computed from rows of its source; for upfirdn2d and
// filtered_lrelu, torch-free.
//
// Inserted zeros are never multiplied. Output o of an axis reads the pixels first, first + 1, ... with every up-th tap
// from one that depends on o modulo up / gcd(up, down) alone: its phase. Within a phase, the first pixel moves on by
// down / gcd(up, down) from output to output. Rows are therefore split by position modulo that step, so that each phase
// is a weighted sum of rows with stride 1, which vectorizes for any factors.
namespace fastgan {

// From `in` to `out` pixels, with `pad` zeros before the first of the upsampled ones; negative: cropped.
struct FirAxis {
  int64_t in, out, up, down, pad;
};

// The taps in the order in which pixels meet them: one for each place, or, if `columns` is not empty, `taps` along y
// and `columns` along x.
struct FirFilter {
  // `taps` of (height, width) or, with height 0, of (width,) for both axes. A filter of two axes that is the product of
  // two of one, to rounding in `epsilon`, is split.
  FirFilter(std::vector<double> taps, int64_t height, int64_t width, bool turned, double gain, double epsilon);

  bool is_separable() const { return !columns.empty(); }

  std::vector<double> taps, columns;
  int64_t height, width;
};

struct FirPhase {
  int64_t first;  // pixel that the phase's first output begins at
  int64_t tap;    // its tap; every up-th follows
  int64_t count;  // of taps
};

struct FirPhases {
  FirPhases(const FirAxis& axis, int64_t taps);

  int64_t period, step;
  std::vector<FirPhase> phases;
  int64_t most;  // taps of any phase

  const FirPhase& of(int64_t output) const { return phases[output % period]; }
  // The pixel that an output begins at, which may lie outside.
  int64_t first(int64_t output) const { return of(output).first + output / period * step; }
};

// What is the same for all planes. T is the arithmetic, float or double.
template <typename T>
struct FirPlan {
  FirPlan(const FirAxis& x, const FirAxis& y, const FirFilter& filter);

  FirAxis axis_x, axis_y;
  FirPhases x, y;
  bool separable;
  int64_t low, high;             // pixels of a row that are read, with those outside
  int64_t begin, end;            // of them those inside
  int64_t part;                  // elements of the part of a split row that has one position modulo the step
  int64_t split_row;             // of all parts
  std::vector<int64_t> offsets;  // of the phases' taps along x, in a split row
  std::vector<T> weights_x, weights_y;
  std::vector<T> weights;                        // by phases of y and x, then taps of y and x, unless separable
  std::vector<int64_t> place_x, place_y, place;  // of a phase's first weight; `place` by y's phase and x's

  // The rows that output row o reads, of those inside.
  int64_t first_row(int64_t o) const { return std::max<int64_t>(y.first(o), 0); }
  int64_t last_row(int64_t o) const { return std::min(y.first(o) + y.of(o).count, axis_y.in); }
};

// Rows in memory, row i at data + i % capacity * stride.
template <typename T>
struct RowTable {
  const T* data;
  int64_t stride, capacity;

  int64_t offset(int64_t row) const { return row % capacity * stride; }
};

// The last rows of a sequence, made once each, in order.
template <typename T>
class RowRing {
 public:
  RowRing(int64_t stride, int64_t capacity)
      : memory_(scratch<T>(stride * capacity)), stride_(stride), capacity_(capacity) {}

  void restart(int64_t row) { next_ = row; }
  int64_t next() const { return next_; }
  RowTable<T> table() const { return {memory_.get(), stride_, capacity_}; }

  // Makes rows up to `end`, by make(row, place), that are not there.
  template <typename Make>
  void extend(int64_t end, const Make& make) {
    for (; next_ < end; ++next_) make(next_, memory_.get() + next_ % capacity_ * stride_);
  }
  void skip_to(int64_t row) { next_ = std::max(next_, row); }

 private:
  Scratch<T> memory_;
  int64_t stride_, capacity_, next_ = 0;
};

// Computes rows of one plane after the other. Each thread has its own.
template <typename T>
class FirRows {
 public:
  explicit FirRows(const FirPlan<T>& plan);

  // Before the first row of a plane, and wherever the next row lies above the last.
  void restart() { split_rows_.restart(0); }
  // Output row o; `source` has rows first_row(o) to last_row(o).
  void row(int64_t o, const RowTable<T>& source, T* target);

 private:
  void split(const T* row, T* parts) const;
  void separable_row(int64_t o, const RowTable<T>& source, T* target);
  void direct_row(int64_t o, const RowTable<T>& source, T* target);
  void interleave(T* target) const;

  const FirPlan<T>& plan_;
  Scratch<T> line_, phases_;
  RowRing<T> split_rows_;
  std::vector<int64_t> offsets_;
  int64_t phase_stride_;
};

}  // namespace fastgan
