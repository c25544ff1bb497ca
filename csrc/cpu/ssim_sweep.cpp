#include "ssim_sweep.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace fastgan {
namespace {

// Columns of a strip: its buffers, 0.3 MB, fit in the second-level cache, and neighbours, which both compute what lies
// around the edge between them, do a twentieth of the work twice.
constexpr int64_t kStripColumns = 256;
// Rows that pass through the buffers together.
constexpr int64_t kGroup = 32;
// A channel is cut into bands, for many threads, where there are few channels, but not below so many rows, since
// neighbouring bands compute rows twice, too.
constexpr int64_t kEnoughBlocks = 64;
constexpr int64_t kBandRows = 128;

int64_t rounded_up(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

int64_t parts_of(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

double value_at(const ImageView& image, int64_t n, int64_t channel, int64_t row, int64_t column) {
  double value;
  const double* found = load(image.at(n, channel, row, column), image.dtype, 1, 1, &value);
  return *found;
}

// The median of the numbers that are finite, or 0. It is one of them, so that subtracting it leaves nothing of a
// constant image, and no single large number spoils it.
double median(std::vector<double>& numbers) {
  numbers.erase(
      std::remove_if(numbers.begin(), numbers.end(), [](double number) { return !std::isfinite(number); }),
      numbers.end());
  if (numbers.empty()) return 0;
  const auto middle = numbers.begin() + static_cast<int64_t>(numbers.size() / 2);
  std::nth_element(numbers.begin(), middle, numbers.end());
  return *middle;
}

// Memory that a thread keeps, cleared once: loops over rounded-up counts read what nobody has written.
template <typename T>
T* buffer_of(int64_t count) {
  thread_local std::vector<T> buffer;
  if (static_cast<int64_t>(buffer.size()) < count) buffer.assign(count, T(0));
  return buffer.data();
}

}  // namespace

// Rows and columns of a block, its buffers, and the way through them. The gradient at a pixel needs the derivatives of
// all windows that contain it, `reach_` to each side, and these need `halo_` pixels to each side.
template <typename T>
class SsimSweep::Strip {
 public:
  Strip(const SsimSweep& sweep, int64_t block) : sweep_(sweep) {
    const int64_t height = sweep.x_.sizes[2], width = sweep.x_.sizes[3];
    const int64_t plane = block / (sweep.bands_ * sweep.strips_), rest = block % (sweep.bands_ * sweep.strips_);
    const int64_t band = rest / sweep.strips_, strip = rest % sweep.strips_;
    image_ = plane / sweep.x_.sizes[1];
    channel_ = plane % sweep.x_.sizes[1];
    first_row_ = height * band / sweep.bands_;
    last_row_ = height * (band + 1) / sweep.bands_;
    first_column_ = strip * sweep.strip_columns_;
    columns_ = std::min(sweep.strip_columns_, width - first_column_);

    radius_ = sweep.radius_;
    reach_ = sweep.slopes_ == Slopes::kNone ? 0 : radius_;
    halo_ = reach_ + radius_;
    maps_ = maps_of(sweep.slopes_);
    stride_ = radius_ == kUsualRadius ? kUsualStride : rounded_up(kStripColumns + 4 * radius_) + kLanes;
    const int64_t pixel_rows = kGroup + 2 * halo_ + kTogether, slope_rows = kGroup + 2 * reach_ + kTogether;
    T* memory = buffer_of<T>((2 * pixel_rows + maps_ * slope_rows + 4 * kTogether + 4 + 1 + 4) * stride_ + radius_ + 1);
    const auto take = [&](int64_t rows) { return std::exchange(memory, memory + rows * stride_); };
    m_ = take(pixel_rows);
    d_ = take(pixel_rows);
    for (int i = 0; i < maps_; ++i) slopes_[i] = take(slope_rows);
    for (T*& rows : filtered_down_) rows = take(kTogether);
    for (T*& row : filtered_) row = take(1);
    losses_ = take(1);
    for (T*& row : outside_) row = take(1);
    taps_ = memory;
    std::copy(sweep.options_.taps.begin(), sweep.options_.taps.end(), taps_);
    window_ = {radius_, taps_};
    choose_offsets();

    // Windows exist around these rows and columns of the image.
    const int64_t margin = sweep.options_.padding == SsimPadding::kNone ? radius_ : 0;
    first_window_row_ = margin;
    last_window_row_ = height - margin;
    const int64_t first_of_map = first_column_ - reach_, columns_of_map = columns_ + 2 * reach_;
    first_window_ = std::clamp<int64_t>(margin - first_of_map, 0, columns_of_map);
    last_window_ = std::clamp<int64_t>(width - margin - first_of_map, 0, columns_of_map);
  }

  // Adds to the sums of 1 - similarity and of |x - y|.
  void run(double* sums) {
    int64_t loaded = 0, derived = 0;
    for (int64_t row = first_row_; row < last_row_; row += kGroup) {
      const int64_t rows = std::min(kGroup, last_row_ - row);
      for (; loaded < rows + 2 * halo_; ++loaded) load_row(loaded, row - halo_ + loaded);
      for (; derived < rows + 2 * reach_; derived += kTogether)
        derive_rows(derived, row - reach_ + derived, std::min<int64_t>(kTogether, rows + 2 * reach_ - derived), sums);
      derived = rows + 2 * reach_;
      if (sweep_.options_.l1_weight != 0) {
        for (int64_t i = 0; i < rows; ++i) sums[1] += 2 * absolute_sum_of(d_ + (i + halo_) * stride_ + halo_, columns_);
      }
      if (maps_ > 0) {
        for (int64_t i = 0; i < rows; i += kTogether) write_rows(i, row + i, std::min<int64_t>(kTogether, rows - i));
      }
      // What the next group needs, too.
      loaded = 2 * halo_;
      derived = 2 * reach_;
      for (T* rows_of : {m_, d_}) std::copy_n(rows_of + rows * stride_, loaded * stride_, rows_of);
      for (int i = 0; i < maps_; ++i) std::copy_n(slopes_[i] + rows * stride_, derived * stride_, slopes_[i]);
    }
  }

 private:
  void choose_offsets() {
    constexpr int64_t kSteps = 5;
    std::vector<double> of_m, of_d;
    for (int64_t i = 0; i < kSteps; ++i) {
      for (int64_t j = 0; j < kSteps; ++j) {
        const int64_t row = first_row_ + (last_row_ - first_row_) * (2 * i + 1) / (2 * kSteps);
        const int64_t column = first_column_ + columns_ * (2 * j + 1) / (2 * kSteps);
        const double a = value_at(sweep_.x_, image_, channel_, row, column);
        const double b = value_at(sweep_.y_, image_, channel_, row, column);
        of_m.push_back((a + b) / 2);
        of_d.push_back((a - b) / 2);
      }
    }
    const SsimOptions& options = sweep_.options_;
    constants_.offset_m = static_cast<T>(median(of_m));
    constants_.offset_d = static_cast<T>(median(of_d));
    constants_.half_c1 = static_cast<T>(options.c1 / 2);
    constants_.half_c2 = static_cast<T>(options.c2 / 2);
    constants_.luminance = options.contrast ? 0 : 1;
  }

  // The row or column of the image that continues it beyond the border, or -1 for zeros.
  int64_t inside(int64_t index, int64_t size) const {
    if (index >= 0 && index < size) return index;
    const int64_t mirrored = index < 0 ? -index : 2 * (size - 1) - index;
    const int64_t distance = index < 0 ? -index : index - (size - 1);
    return sweep_.options_.padding == SsimPadding::kReflect && distance <= radius_ ? mirrored : -1;
  }

  void load_row(int64_t place, int64_t row) {
    T *m = m_ + place * stride_, *d = d_ + place * stride_;
    const ImageView &x = sweep_.x_, &y = sweep_.y_;
    const int64_t width = x.sizes[3], first = first_column_ - halo_, wanted = columns_ + 2 * halo_;
    const int64_t source = inside(row, x.sizes[2]);
    if (source < 0) {
      std::fill_n(m, wanted, T(0));
      std::fill_n(d, wanted, T(0));
      return;
    }
    const int64_t begin = std::max<int64_t>(first, 0), end = std::min(first + wanted, width), count = end - begin;
    const T* a = load(x.at(image_, channel_, source, begin), x.dtype, x.strides[3], count, outside_[0]);
    const T* b = load(y.at(image_, channel_, source, begin), y.dtype, y.strides[3], count, outside_[1]);
    halve(a, b, count, m + (begin - first), d + (begin - first));
    const auto fill = [&](int64_t column) {
      const int64_t from = inside(column, width);
      m[column - first] = from < 0 ? T(0) : m[from - first];
      d[column - first] = from < 0 ? T(0) : d[from - first];
    };
    for (int64_t column = first; column < begin; ++column) fill(column);
    for (int64_t column = end; column < first + wanted; ++column) fill(column);
  }

  // The windows around up to kTogether rows: their loss, and their derivatives to the place in the buffers.
  void derive_rows(int64_t place, int64_t row, int64_t rows, double* sums) {
    const int64_t wide = rounded_up(columns_ + 2 * halo_), count = rounded_up(columns_ + 2 * reach_);
    const T *m = m_ + place * stride_, *d = d_ + place * stride_;
    if (row < last_window_row_ && row + rows > first_window_row_) {
      moments_down(window_, m, constants_.offset_m, stride_, wide, filtered_down_[0], filtered_down_[1]);
      moments_down(window_, d, constants_.offset_d, stride_, wide, filtered_down_[2], filtered_down_[3]);
    }
    for (int64_t i = 0; i < rows; ++i) {
      T* maps[4] = {nullptr, nullptr, nullptr, nullptr};
      for (int k = 0; k < maps_; ++k) maps[k] = slopes_[k] + (place + i) * stride_;
      if (row + i < first_window_row_ || row + i >= last_window_row_) {
        for (int k = 0; k < maps_; ++k) std::fill_n(maps[k], count, T(0));
        continue;
      }
      for (int k = 0; k < 4; k += 2) {
        const T *means = filtered_down_[k] + i * stride_, *variances = filtered_down_[k + 1] + i * stride_;
        moments_along(window_, means, variances, count, filtered_[k], filtered_[k + 1]);
      }
      write_pixels(
          {filtered_[0], filtered_[1], filtered_[2], filtered_[3]}, constants_, sweep_.slopes_, count, losses_, maps);
      for (int k = 0; k < maps_; ++k) {
        std::fill_n(maps[k], first_window_, T(0));
        std::fill_n(maps[k] + last_window_, count - last_window_, T(0));
      }
      if (row + i < first_row_ || row + i >= last_row_) continue;
      const int64_t begin = std::max(first_window_, reach_), end = std::min(last_window_, reach_ + columns_);
      if (begin < end) sums[0] += sum_of(losses_ + begin, end - begin);
    }
  }

  // Up to kTogether rows of the gradients, of which the first stands at the place in the group.
  void write_rows(int64_t place, int64_t row, int64_t rows) {
    const int64_t height = sweep_.x_.sizes[2];
    const int64_t wide = rounded_up(columns_ + 2 * reach_), count = rounded_up(columns_);
    const bool mirrored = sweep_.options_.padding == SsimPadding::kReflect;
    for (int k = 0; k < maps_; ++k) {
      filter_down(window_, slopes_[k] + place * stride_, stride_, wide, filtered_down_[k]);
      for (int64_t i = 0; mirrored && i < rows; ++i) {
        // The row of the map `distance` beyond this one, in the direction of the border.
        const T* centre = slopes_[k] + (place + i + reach_) * stride_;
        T* sum = filtered_down_[k] + i * stride_;
        add_mirrored(
            row + i, height, [&](int64_t distance, T tap) { add_scaled(centre + distance * stride_, tap, wide, sum); });
      }
    }
    GradientRow<T> gradient;
    gradient.offset_m = constants_.offset_m;
    gradient.offset_d = constants_.offset_d;
    const SsimOptions& options = sweep_.options_;
    gradient.factor = static_cast<T>(options.gradient_scale * options.weight / sweep_.windows_);
    gradient.absolute_factor =
        static_cast<T>(options.gradient_scale * options.l1_weight / static_cast<double>(height * sweep_.x_.sizes[3]));
    for (int64_t i = 0; i < rows; ++i) {
      for (int k = 0; k < maps_; ++k) {
        const T* row_down = filtered_down_[k] + i * stride_;
        filter_along(window_, row_down, count, filtered_[k]);
        if (mirrored) add_mirrored_columns(row_down, filtered_[k]);
        gradient.maps[k] = filtered_[k];
      }
      const int64_t offset = (place + i + halo_) * stride_ + halo_;
      gradient.m = m_ + offset;
      gradient.d = d_ + offset;
      write_gradients(gradient, sweep_.slopes_, count, outside_[2], outside_[3]);
      if (sweep_.grad_x_.data) store_row(sweep_.grad_x_, row + i, outside_[2]);
      if (sweep_.grad_y_.data) store_row(sweep_.grad_y_, row + i, outside_[3]);
    }
  }

  void store_row(const ImageView& image, int64_t row, const T* values) const {
    void* target = image.at(image_, channel_, row, first_column_);
    store(values, target, image.dtype, image.strides[3], columns_);
  }

  // The gradient of what is mirrored beyond the border belongs to the pixel itself: the windows there that contain the
  // mirror image of a pixel at `index`, as add(distance from the pixel, tap).
  template <typename Add>
  void add_mirrored(int64_t index, int64_t size, const Add& add) const {
    const int64_t to_end = size - 1 - index;
    if (index >= 1 && index <= radius_) {
      for (int64_t from = 0; from <= std::min(radius_ - index, size - 1); ++from)
        add(from - index, taps_[index + from]);
    }
    if (to_end >= 1 && to_end <= radius_) {
      for (int64_t from = 0; from <= std::min(radius_ - to_end, size - 1); ++from)
        add(to_end - from, taps_[to_end + from]);
    }
  }

  void add_mirrored_columns(const T* row, T* result) const {
    const int64_t width = sweep_.x_.sizes[3];
    for (int64_t i = 0; i < columns_; ++i) {
      const int64_t column = first_column_ + i;
      if (column > radius_ && column < width - 1 - radius_) continue;
      add_mirrored(column, width, [&](int64_t distance, T tap) { result[i] += tap * row[i + reach_ + distance]; });
    }
  }

  const SsimSweep& sweep_;
  int64_t image_, channel_, first_row_, last_row_, first_column_, columns_;
  int64_t radius_, reach_, halo_, stride_;
  int64_t first_window_row_, last_window_row_;  // of the image
  int64_t first_window_, last_window_;          // columns of the maps of derivatives
  int maps_;
  SsimConstants<T> constants_;
  Window<T> window_;
  T *m_, *d_, *slopes_[4], *filtered_down_[4], *filtered_[4], *losses_, *outside_[4], *taps_;
};

SsimSweep::SsimSweep(ImageView x, ImageView y, ImageView grad_x, ImageView grad_y, SsimOptions options)
    : x_(x), y_(y), grad_x_(grad_x), grad_y_(grad_y), options_(std::move(options)) {
  slopes_ = grad_x.data ? (grad_y.data ? Slopes::kOfBoth : Slopes::kOfX) : grad_y.data ? Slopes::kOfY : Slopes::kNone;
  radius_ = static_cast<int64_t>(options_.taps.size()) - 1;
  const int64_t height = x.sizes[2], width = x.sizes[3];
  planes_ = x.sizes[0] * x.sizes[1];
  strip_columns_ = rounded_up(parts_of(width, parts_of(width, kStripColumns)));
  strips_ = parts_of(width, strip_columns_);
  const int64_t wanted = parts_of(kEnoughBlocks, std::max<int64_t>(planes_ * strips_, 1));
  bands_ = std::clamp<int64_t>(height / kBandRows, 1, wanted);
  const int64_t margin = options_.padding == SsimPadding::kNone ? 2 * radius_ : 0;
  windows_ = static_cast<double>((height - margin) * (width - margin));
  partial_sums_.assign(2 * blocks(), 0.0);
}

void SsimSweep::run(int64_t block) {
  double* sums = &partial_sums_[2 * block];
  const bool is_double = x_.dtype == Dtype::kFloat64 || y_.dtype == Dtype::kFloat64;
  is_double ? Strip<double>(*this, block).run(sums) : Strip<float>(*this, block).run(sums);
}

std::vector<double> SsimSweep::losses() const {
  const int64_t parts = bands_ * strips_;
  const double pixels = static_cast<double>(x_.sizes[2] * x_.sizes[3]);
  std::vector<double> losses(planes_);
  for (int64_t plane = 0; plane < planes_; ++plane) {
    double lost = 0, absolute = 0;
    for (int64_t part = plane * parts; part < (plane + 1) * parts; ++part) {
      lost += partial_sums_[2 * part];
      absolute += partial_sums_[2 * part + 1];
    }
    losses[plane] = options_.weight * lost / windows_ + options_.l1_weight * absolute / pixels;
  }
  return losses;
}

}  // namespace fastgan
