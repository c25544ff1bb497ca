#pragma once

#include "../math/divisor.h"
#include "../math/half.h"
#include "../math/jpeg_layout.h"

// Shared by the CUDA kernels of the JPEG round trip: the arguments of a launch, and reading and writing four
// neighbouring pixels at once. Indices have 32 bits, except for the start of an image or a row: each operation on 64
// bits takes a GPU several instructions.
namespace fastgan {
namespace tile {

FASTGAN_HOST_DEVICE float to_float(float value) { return value; }
FASTGAN_HOST_DEVICE void from_float(float value, float& target) { target = value; }
FASTGAN_HOST_DEVICE void from_float(float value, BFloat16& target) { target = to_bfloat16(value); }
FASTGAN_HOST_DEVICE void from_float(float value, Float16& target) { target = to_float16(value); }

// Loaded and stored with one instruction.
template <typename T, int kCount>
struct alignas(kCount * sizeof(T)) Vector {
  T values[kCount];
};

template <int kCount, typename T>
FASTGAN_HOST_DEVICE Vector<T, kCount> read(const T* from) {
  return *reinterpret_cast<const Vector<T, kCount>*>(from);
}

// Packs byte kByte of each of four words into one word.
template <int kByte>
FASTGAN_HOST_DEVICE uint32_t gather_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
#ifdef __CUDA_ARCH__
  constexpr uint32_t kPair = kByte | (4 + kByte) << 4;
  return __byte_perm(__byte_perm(a, b, kPair), __byte_perm(c, d, kPair), 0x5410);
#else
  constexpr uint32_t kShift = 8 * kByte;
  return (a >> kShift & 255) | (b >> kShift & 255) << 8 | (c >> kShift & 255) << 16 | (d >> kShift & 255) << 24;
#endif
}

FASTGAN_HOST_DEVICE Vector<uint8_t, 4> bytes_of(uint32_t word) {
  Vector<uint8_t, 4> bytes;
  for (int i = 0; i < 4; ++i) bytes.values[i] = static_cast<uint8_t>(word >> 8 * i);
  return bytes;
}

// Pixels per chroma sample and the kind of upsampling as compile-time constants: loops are unrolled, and divisions
// become shifts.
template <int kHorizontal, int kVertical, bool kFancy>
struct Form {
  FASTGAN_HOST_DEVICE static constexpr int horizontal() { return kHorizontal; }
  FASTGAN_HOST_DEVICE static constexpr int vertical() { return kVertical; }
  FASTGAN_HOST_DEVICE static constexpr bool fancy() { return kFancy; }
};

// The same as run-time values, for kernels that are not worth compiling for each form.
struct AnyForm {
  int horizontal_pixels, vertical_pixels;
  bool is_fancy;

  FASTGAN_HOST_DEVICE int horizontal() const { return horizontal_pixels; }
  FASTGAN_HOST_DEVICE int vertical() const { return vertical_pixels; }
  FASTGAN_HOST_DEVICE bool fancy() const { return is_fancy; }
};

// Calls body(form) with the compile-time form that matches the sizes.
template <typename Body>
void with_form(const JpegSizes& sizes, Body body) {
  if (sizes.horizontal == 1) return body(Form<1, 1, false>());
  if (sizes.vertical == 1) return sizes.fancy ? body(Form<2, 1, true>()) : body(Form<2, 1, false>());
  return sizes.fancy ? body(Form<2, 2, true>()) : body(Form<2, 2, false>());
}

// Whether four neighbouring pixels of any row can be accessed as vectors: per channel (planar), with the channels of
// each pixel together (interleaved), or not at all.
enum class Fours : int { kNone, kPlanar, kInterleaved };

// A strided N 3 H W image; strides in elements.
template <typename In>
struct Pixels {
  In* data;
  int64_t strides[4];
  Fours fours;

  FASTGAN_HOST_DEVICE In* row(int image, int row) const { return data + (image * strides[0] + row * strides[2]); }
  FASTGAN_HOST_DEVICE float get(int image, int channel, int row, int column) const {
    using fastgan::to_float;
    using tile::to_float;
    return to_float(this->row(image, row)[channel * strides[1] + column * strides[3]]);
  }

  FASTGAN_HOST_DEVICE void get_planar_four(const In* from, float (&values)[3][4]) const {
    using fastgan::to_float;
    using tile::to_float;
    for (int c = 0; c < 3; ++c) {
      const Vector<In, 4> four = read<4>(from + c * strides[1]);
      for (int i = 0; i < 4; ++i) values[c][i] = to_float(four.values[i]);
    }
  }

  // Reads pixels first .. first + 3 of a row. Values of pixels from `width` on are left as they are. `first` is a
  // multiple of four.
  FASTGAN_HOST_DEVICE void get_four(int image, int row, int first, int width, float (&values)[3][4]) const {
    using fastgan::to_float;
    using tile::to_float;
    const In* from = this->row(image, row);
    if (fours == Fours::kPlanar) {
      get_planar_four(from + first, values);
    } else if (fours == Fours::kInterleaved) {
      for (int part = 0; part < 3; ++part) {
        const Vector<In, 4> four = read<4>(from + 3 * first + 4 * part);
        for (int i = 0; i < 4; ++i) values[(4 * part + i) % 3][(4 * part + i) / 3] = to_float(four.values[i]);
      }
    } else {
      for (int i = 0; i < 4; ++i) {
        for (int c = 0; c < 3; ++c) {
          if (first + i < width) values[c][i] = to_float(from[c * strides[1] + (first + i) * strides[3]]);
        }
      }
    }
  }

  // The same, but pixels from `width` on get the last pixel's values.
  FASTGAN_HOST_DEVICE void get_four_repeated(int image, int row, int first, int width, float (&values)[3][4]) const {
    if (fours != Fours::kNone && first < width) {
      get_four(image, row, first, width, values);
      return;
    }
    for (int i = 0; i < 4; ++i) {
      const int column = first + i < width ? first + i : width - 1;
      for (int c = 0; c < 3; ++c) values[c][i] = get(image, c, row, column);
    }
  }

  FASTGAN_HOST_DEVICE void put_four(int image, int row, int first, int width, const float (&values)[3][4]) const {
    In* to = this->row(image, row);
    if (fours == Fours::kPlanar) {
      for (int c = 0; c < 3; ++c) {
        Vector<In, 4> four;
        for (int i = 0; i < 4; ++i) from_float(values[c][i], four.values[i]);
        *reinterpret_cast<Vector<In, 4>*>(to + c * strides[1] + first) = four;
      }
    } else if (fours == Fours::kInterleaved) {
      for (int part = 0; part < 3; ++part) {
        Vector<In, 4> four;
        for (int i = 0; i < 4; ++i) from_float(values[(4 * part + i) % 3][(4 * part + i) / 3], four.values[i]);
        *reinterpret_cast<Vector<In, 4>*>(to + 3 * first + 4 * part) = four;
      }
    } else {
      for (int i = 0; i < 4; ++i) {
        for (int c = 0; c < 3; ++c) {
          if (first + i < width) from_float(values[c][i], to[c * strides[1] + (first + i) * strides[3]]);
        }
      }
    }
  }
};

// JpegSizes in 32 bits.
struct Extent {
  explicit Extent(const JpegSizes& sizes)
      : height(static_cast<int>(sizes.height)),
        width(static_cast<int>(sizes.width)),
        chroma_height(static_cast<int>(sizes.chroma_height)),
        chroma_width(static_cast<int>(sizes.chroma_width)),
        mcu_rows(static_cast<int>(sizes.mcu_rows)),
        mcu_columns(static_cast<int>(sizes.mcu_columns)),
        luma_rows(static_cast<int>(sizes.mcu_rows * sizes.mcu_height)),
        luma_stride(static_cast<int>(sizes.luma_stride)),
        chroma_stride(static_cast<int>(sizes.chroma_stride)) {}

  int height, width, chroma_height, chroma_width, mcu_rows, mcu_columns, luma_rows, luma_stride, chroma_stride;
};

// Planes of samples, padded to whole MCUs: luma (N, H, W) and chroma (N, 2, H / vertical, W / horizontal).
template <typename P>
struct Planes {
  P *luma, *chroma;

  FASTGAN_HOST_DEVICE P* y_row(const Extent& extent, int image, int row) const {
    return luma + (int64_t(image) * extent.luma_rows + row) * extent.luma_stride;
  }
  FASTGAN_HOST_DEVICE P* c_row(const Extent& extent, int image, int component, int row) const {
    return chroma + ((2 * int64_t(image) + component - 1) * (8 * extent.mcu_rows) + row) * extent.chroma_stride;
  }
};

// The arguments of a launch. S is the arithmetic, int32_t or float.
template <typename S, typename In>
struct Job {
  explicit Job(const JpegSizes& sizes)
      : sizes(sizes), extent(sizes), form{sizes.horizontal, sizes.vertical, sizes.fancy} {}

  JpegSizes sizes;  // for block numbers, which need 64 bits
  Extent extent;
  AnyForm form;
  Pixels<In> image = {};
  const float* tables = nullptr;  // (N or 1, 2, 8, 8)
  int table_stride = 0;           // 128 or 0
  const int64_t* seed = nullptr;  // of the noise; may be null
  bool truncate = false;          // integer grey levels are rounded down
  Planes<Plane<S>> planes = {};   // decoded samples
  Pixels<In> decoded = {};
  uint8_t *masks = nullptr, *chroma_masks = nullptr;  // may be null
  // Integer arithmetic only, may be null: flags of the MCUs that contain NaN, (N, mcu_rows, mcu_columns), followed by
  // one that is set if any of them does.
  uint8_t* nan = nullptr;

  Pixels<In> grad = {}, grad_image = {};
  Planes<float> grad_planes = {};  // luma only if the rounding's slope varies
  float* grad_tables = nullptr;    // (tiles, 2, 8, 8); may be null

  FASTGAN_HOST_DEVICE uint8_t* mask_row(int image, int row) const {
    return masks + (int64_t(image) * extent.height + row) * extent.width;
  }
  FASTGAN_HOST_DEVICE uint8_t* chroma_mask_row(int image, int row) const {
    return chroma_masks + (int64_t(image) * extent.chroma_height + row) * extent.chroma_width;
  }
  FASTGAN_HOST_DEVICE uint8_t* nan_row(int image, int mcu_row) const {
    return nan + (int64_t(image) * extent.mcu_rows + mcu_row) * extent.mcu_columns;
  }
  FASTGAN_HOST_DEVICE uint8_t& any_nan() const { return nan[sizes.images * sizes.mcu_rows * sizes.mcu_columns]; }
};

// Bytes first .. first + 3 of a row of masks, which has `width` bytes.
FASTGAN_HOST_DEVICE Vector<uint8_t, 4> get_bytes(const uint8_t* row, int first, int width) {
  if (width % 4 == 0) return read<4>(row + first);
  Vector<uint8_t, 4> four = {};
  for (int i = 0; i < 4; ++i) {
    if (first + i < width) four.values[i] = row[first + i];
  }
  return four;
}
FASTGAN_HOST_DEVICE void put_bytes(uint8_t* row, int first, int width, Vector<uint8_t, 4> four) {
  if (width % 4 == 0) {
    *reinterpret_cast<Vector<uint8_t, 4>*>(row + first) = four;
    return;
  }
  for (int i = 0; i < 4; ++i) {
    if (first + i < width) row[first + i] = four.values[i];
  }
}

}  // namespace tile
}  // namespace fastgan
