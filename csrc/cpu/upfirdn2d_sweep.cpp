#include "upfirdn2d_sweep.h"

namespace fastgan {

Upfirdn2dSweep::Upfirdn2dSweep(int64_t planes, FirAxis x, FirAxis y, const FirFilter& filter, Dtype dtype)
    : dtype_(dtype), blocks_(planes, std::max(x.in * y.in, x.out * y.out), y.out) {
  if (dtype == Dtype::kFloat64) {
    double_.emplace_back(x, y, filter);
  } else {
    single_.emplace_back(x, y, filter);
  }
}

void Upfirdn2dSweep::run(int64_t block, const void* source, void* target) const {
  const char* from = static_cast<const char*>(source);
  char* to = static_cast<char*>(target);
  dtype_ == Dtype::kFloat64 ? run_typed(double_[0], block, from, to) : run_typed(single_[0], block, from, to);
}

template <typename T>
void Upfirdn2dSweep::run_typed(const FirPlan<T>& plan, int64_t block, const char* source, char* target) const {
  const int64_t width = plan.axis_x.in, height = plan.axis_y.in, out_width = plan.axis_x.out;
  const int64_t size = size_of(dtype_);
  const bool is_direct = size == static_cast<int64_t>(sizeof(T));
  FirRows<T> rows(plan);
  // Half types are converted once for all output rows that read them.
  RowRing<T> converted(width + 1, is_direct ? 1 : plan.y.most + 1);
  const Scratch<T> result = scratch<T>(out_width + 1);
  blocks_.for_each(block, [&](int64_t plane, int64_t begin, int64_t end) {
    const char* const pixels = source + plane * height * width * size;
    char* const results = target + plane * plan.axis_y.out * out_width * size;
    const RowTable<T> direct{reinterpret_cast<const T*>(pixels), width, std::max<int64_t>(1, height)};
    rows.restart();
    converted.restart(0);
    for (int64_t row = begin; row < end; ++row) {
      if (!is_direct) {
        converted.skip_to(plan.first_row(row));
        converted.extend(
            plan.last_row(row), [&](int64_t i, T* place) { load(pixels + i * width * size, dtype_, 1, width, place); });
      }
      void* const place = results + row * out_width * size;
      T* const values = target_of(place, dtype_, 1, result.get());
      rows.row(row, is_direct ? direct : converted.table(), values);
      store(values, place, dtype_, 1, out_width);
    }
  });
}

}  // namespace fastgan
