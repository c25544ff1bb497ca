#include <algorithm>

#include "clones.h"
#include "feature_distance_tile.h"

// Contiguous maps: a tile has one row of pixels per channel. A first pass brings the rows into the second-level cache,
// either where they are or packed; the passes after it take a few pixels at a time and keep their sums over channels in
// registers.
namespace fastgan {
namespace {

// Pixels whose sums stay in registers: four AVX-512 vectors, enough to hide the latency of its instructions.
constexpr int kLanes = 64;
// Rows read in one pass, so that the pixels' sums of squares are loaded and stored once for all of them.
constexpr int kRowsAtOnce = 4;
// How many channels ahead to prefetch. Rows are too short and too far apart for the hardware prefetcher. Measured on
// AlexNet's layers: 8 is slower, 32 is as fast.
constexpr int64_t kPrefetchChannels = 16;
// Elements of each map in a tile. Packed, both maps fit in a second-level cache of 1 MB together with the next tile's
// rows. Unpacked tiles have longer rows instead; 49152 and 98304 are as fast on AlexNet's layers.
constexpr int64_t kPackedTile = 32768, kDirectTile = 65536;
constexpr int64_t kMostPixels = 1024;
// Padding between packed rows, in elements, so that they do not evict each other from the cache.
constexpr int64_t kSkew = 16;

int64_t whole_lanes(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// Whether a channel stride maps all rows to few cache sets, as it does where the image's sides are powers of two.
bool shares_cache_sets(int64_t plane, int64_t size) { return plane * size % 4096 == 0; }

template <typename T>
constexpr Dtype arithmetic_dtype() {
  return sizeof(T) == 8 ? Dtype::kFloat64 : Dtype::kFloat32;
}

template <typename T>
struct Rows {
  const T* pointers[kRowsAtOnce];
};

template <int kRows, bool kPack, typename T>
FASTGAN_CLONES void read_rows(
    Rows<T> rows, Rectifier<T> rectifier, int64_t count, T* squares, T* packed, int64_t stride) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    T sum = squares[i];
    for (int r = 0; r < kRows; ++r) {
      const T value = rectifier.value(rows.pointers[r][i]);
      if (kPack) packed[r * stride + i] = value;
      sum += value * value;
    }
    squares[i] = sum;
  }
}

// Prefetches a row for reading or, with kWrite, for writing.
template <bool kWrite>
void fetch_row(const char* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) kWrite ? FASTGAN_PREFETCH_WRITE(row + i) : FASTGAN_PREFETCH(row + i);
}

// Reads a map's rows, adds up the squares of each pixel and, if `packed` is not null, packs the rows.
template <typename T>
void read_map(
    const char* map, Dtype dtype, const char* direction, bool relu, const FeatureTile<T>& tile, T* squares, T* packed,
    int64_t stride) {
  const Rectifier<T> rectifier(relu);
  const int64_t size = size_of(dtype), plane = tile.plane * size, bytes = tile.count * size;
  const auto read = [&](int64_t channel, auto count) {
    constexpr int kRows = decltype(count)::value;
    Rows<T> rows;
    for (int r = 0; r < kRows; ++r) {
      const int64_t c = channel + r;
      if (c + kPrefetchChannels < tile.channels) fetch_row<false>(map + (c + kPrefetchChannels) * plane, bytes);
      if (direction && !packed) fetch_row<true>(direction + c * plane, bytes);
      rows.pointers[r] = load(map + c * plane, dtype, 1, tile.count, packed ? packed + c * stride : nullptr);
    }
    if (packed) {
      read_rows<kRows, true>(rows, rectifier, tile.count, squares, packed + channel * stride, stride);
    } else {
      read_rows<kRows, false>(rows, rectifier, tile.count, squares, packed, stride);
    }
  };
  int64_t c = 0;
  for (; c + kRowsAtOnce <= tile.channels; c += kRowsAtOnce) read(c, std::integral_constant<int, kRowsAtOnce>());
  for (; c < tile.channels; ++c) read(c, std::integral_constant<int, 1>());
}

template <typename T>
FASTGAN_CLONES void to_unit_scales(T* squares, T* rates, T eps, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const UnitScale<T> scale(squares[i], eps);
    squares[i] = scale.inverse;
    rates[i] = scale.along;
  }
}

// Values of kLanes pixels: 1 / norm of each map, the factor of the feature vector that its gradient subtracts, and the
// distance.
template <typename T>
struct Lanes {
  T inverse_x[kLanes], inverse_y[kLanes], along_x[kLanes], along_y[kLanes], distance[kLanes];
};

// The rows of kLanes pixels, and the destinations of their directions.
template <typename T>
struct LaneRows {
  const T *x, *y;
  T *direction_x, *direction_y;
  int64_t stride;
};

template <typename F, bool kWithY, typename T>
FASTGAN_CLONES void add_distances(
    LaneRows<T> rows, const T* weights, int64_t channels, Rectifier<T> rectifier, Lanes<T>& lanes) {
  T inverse_x[kLanes], inverse_y[kLanes], distance[kLanes], along_x[kLanes], along_y[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    inverse_x[i] = lanes.inverse_x[i];
    inverse_y[i] = lanes.inverse_y[i];
    distance[i] = along_x[i] = along_y[i] = 0;
  }
  for (int64_t c = 0; c < channels; ++c) {
    const T *x = rows.x + c * rows.stride, *y = rows.y + c * rows.stride;
    const T weight = weights[c];
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) {
      const T a = rectifier.value(x[i]), b = y[i];
      const T difference = F::difference(a, inverse_x[i], b, inverse_y[i]);
      distance[i] += F::distance(weight, difference);
      if (F::kNormalize) {
        const T slope = F::slope(weight, difference);
        along_x[i] += slope * a;
        if (kWithY) along_y[i] += slope * b;
      }
    }
  }
  for (int i = 0; i < kLanes; ++i) {
    lanes.distance[i] = distance[i];
    lanes.along_x[i] = along_x[i];
    lanes.along_y[i] = along_y[i];
  }
}

template <typename F, bool kWithX, bool kWithY, typename T>
FASTGAN_CLONES void write_directions(
    LaneRows<T> rows, const T* weights, int64_t channels, T factor, Rectifier<T> rectifier, const Lanes<T>& lanes) {
  T inverse_x[kLanes], inverse_y[kLanes], along_x[kLanes], along_y[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    inverse_x[i] = lanes.inverse_x[i];
    inverse_y[i] = lanes.inverse_y[i];
    along_x[i] = lanes.along_x[i];
    along_y[i] = lanes.along_y[i];
  }
  for (int64_t c = 0; c < channels; ++c) {
    const T *x = rows.x + c * rows.stride, *y = rows.y + c * rows.stride;
    T* const to_x = rows.direction_x + c * rows.stride;
    T* const to_y = rows.direction_y + c * rows.stride;
    const T weight = weights[c];
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) {
      const T a = rectifier.value(x[i]), b = y[i];
      const T slope = F::slope(weight, F::difference(a, inverse_x[i], b, inverse_y[i]));
      if (kWithX) to_x[i] = rectifier.slope(a, factor * F::gradient(slope, a, inverse_x[i], along_x[i]));
      if (kWithY) to_y[i] = -factor * F::gradient(slope, b, inverse_y[i], along_y[i]);
    }
  }
}

template <typename F, typename T>
void write_directions(const LaneRows<T>& rows, const FeatureTile<T>& tile, const Lanes<T>& lanes) {
  const Rectifier<T> rectifier(tile.relu_x);
  if (tile.direction_x && tile.direction_y) {
    write_directions<F, true, true>(rows, tile.weights, tile.channels, tile.factor, rectifier, lanes);
  } else if (tile.direction_x) {
    write_directions<F, true, false>(rows, tile.weights, tile.channels, tile.factor, rectifier, lanes);
  } else if (tile.direction_y) {
    write_directions<F, false, true>(rows, tile.weights, tile.channels, tile.factor, rectifier, lanes);
  }
}

// Copies packed directions to their destination, and prefetches the next tile meanwhile.
template <typename T>
void unpack(const FeatureTile<T>& tile, const T* x, const T* y, int64_t stride) {
  const auto next_row = [&](const char* map, Dtype dtype, int64_t c) {
    const int64_t size = size_of(dtype);
    fetch_row<false>(map + (tile.next + c * tile.plane) * size, tile.next_count * size);
  };
  const auto write = [&](const T* values, char* direction, Dtype dtype, int64_t c) {
    if (direction) store(values + c * stride, direction + c * tile.plane * size_of(dtype), dtype, 1, tile.count);
  };
  for (int64_t c = 0; c < tile.channels; ++c) {
    write(x, tile.direction_x, tile.x_dtype, c);
    write(y, tile.direction_y, tile.y_dtype, c);
    next_row(tile.x, tile.x_dtype, c);
    next_row(tile.y, tile.y_dtype, c);
  }
}

template <typename F, typename T>
double sweep(const FeatureTile<T>& tile, T* buffer) {
  const int64_t padded = whole_lanes(tile.count), packed_stride = padded + kSkew;
  T *const inverse_x = buffer, *const inverse_y = inverse_x + padded;
  T *const rate_x = inverse_y + padded, *const rate_y = rate_x + padded;
  T* const packed_x = rate_y + padded;
  T* const packed_y = packed_x + tile.channels * packed_stride;
  std::fill(inverse_x, packed_x, T(0));
  const bool no_conversion = tile.x_dtype == arithmetic_dtype<T>() && tile.y_dtype == arithmetic_dtype<T>();
  const bool pack = !no_conversion || tile.count < kLanes || shares_cache_sets(tile.plane, sizeof(T));
  read_map(
      tile.x, tile.x_dtype, tile.direction_x, tile.relu_x, tile, inverse_x, pack ? packed_x : nullptr, packed_stride);
  read_map(tile.y, tile.y_dtype, tile.direction_y, false, tile, inverse_y, pack ? packed_y : nullptr, packed_stride);
  if (F::kNormalize) {
    to_unit_scales(inverse_x, rate_x, tile.eps, tile.count);
    to_unit_scales(inverse_y, rate_y, tile.eps, tile.count);
  }

  const Rectifier<T> rectifier(tile.relu_x);
  double sum = 0;
  for (int64_t begin = 0; begin < tile.count; begin += kLanes) {
    // Unpacked rows have no padding: their last lanes begin earlier, and write some directions a second time.
    const int64_t from = pack ? begin : std::min(begin, tile.count - kLanes);
    LaneRows<T> rows;
    rows.stride = pack ? packed_stride : tile.plane;
    rows.x = (pack ? packed_x : reinterpret_cast<const T*>(tile.x)) + from;
    rows.y = (pack ? packed_y : reinterpret_cast<const T*>(tile.y)) + from;
    rows.direction_x = (pack ? packed_x : reinterpret_cast<T*>(tile.direction_x)) + from;
    rows.direction_y = (pack ? packed_y : reinterpret_cast<T*>(tile.direction_y)) + from;
    Lanes<T> lanes;
    std::copy_n(inverse_x + from, kLanes, lanes.inverse_x);
    std::copy_n(inverse_y + from, kLanes, lanes.inverse_y);
    if (tile.direction_y) {
      add_distances<F, true>(rows, tile.weights, tile.channels, rectifier, lanes);
    } else {
      add_distances<F, false>(rows, tile.weights, tile.channels, rectifier, lanes);
    }
    const int64_t end = std::min<int64_t>(kLanes, tile.count - from);
    for (int64_t i = begin - from; i < end; ++i) sum += lanes.distance[i];
    for (int i = 0; i < kLanes; ++i) {
      lanes.along_x[i] *= rate_x[from + i];
      lanes.along_y[i] *= rate_y[from + i];
    }
    write_directions<F>(rows, tile, lanes);
  }
  if (pack) unpack(tile, packed_x, packed_y, packed_stride);
  return sum;
}

}  // namespace

template <typename T>
double sweep_planes(const FeatureOptions& options, const FeatureTile<T>& tile, T* buffer) {
  return with_formula(options, [&](auto formula) { return sweep<decltype(formula)>(tile, buffer); });
}

template double sweep_planes(const FeatureOptions&, const FeatureTile<float>&, float*);
template double sweep_planes(const FeatureOptions&, const FeatureTile<double>&, double*);

int64_t planes_scratch(int64_t channels, int64_t count) {
  const int64_t padded = whole_lanes(count);
  return 4 * padded + 2 * channels * (padded + kSkew);
}

int64_t planes_tile(int64_t channels, int64_t pixels, int64_t element_size) {
  const bool direct = element_size > 0 && !shares_cache_sets(pixels, element_size);
  const int64_t elements = direct ? kDirectTile : kPackedTile;
  const int64_t tile = std::clamp<int64_t>(elements / channels / kLanes * kLanes, kLanes, kMostPixels);
  // A remainder of fewer than kLanes pixels is not worth a tile of its own.
  return direct && pixels < tile + kLanes ? pixels : tile;
}

}  // namespace fastgan
