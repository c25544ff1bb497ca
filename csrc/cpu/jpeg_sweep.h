#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "../math/jpeg.h"
#include "pixels.h"

// The CPU kernels of the JPEG round trip without torch, as blocks of work that any thread may run.
//
//     encode    some rows of MCUs: colour, chroma subsampling, DCT, quantization and back, into planes of samples
//     merge     the same rows of pixels: chroma upsampling, colour
//     backward  some rows of MCUs: the transposes of all that, in reverse
//
// An MCU is what one chroma block covers: 8x8, 16x8 or 16x16 pixels. The planes hold one byte per sample in exact
// arithmetic, so they stay in the cache between the first two steps; backward reads its neighbours' gradients again
// instead of passing anything on. Bounds depend on the shape alone: the same bits for any number of threads.
namespace fastgan {

struct JpegOptions {
  int horizontal = 2, vertical = 2;  // pixels per chroma sample
  bool fancy = true;                 // triangle upsampling, as libjpeg's default; else nearest
  Rounding rounding = Rounding::kStraightThrough;
  uint64_t seed = 0;  // of Rounding::kNoise
};

// The sizes that follow from an image's and the subsampling.
struct JpegSizes {
  JpegSizes(const ImageView& image, const JpegOptions& options);

  int64_t images, height, width;
  int64_t chroma_height, chroma_width;  // samples that the image covers
  int64_t mcu_height, mcu_width, mcu_rows, mcu_columns;
  int64_t luma_stride, chroma_stride;  // widths up to whole MCUs
  int64_t rows_per_block, blocks_per_image;
  bool fancy;  // libjpeg replicates where a row has at most two chroma samples

  int64_t blocks() const { return images * blocks_per_image; }
  // The noise of a block is that of coefficients 64 number, 64 number + 1, ...
  uint64_t block_number(int64_t image, int component, int64_t row, int64_t column, int64_t columns) const;
};

// Bits of `pixels`, which say where clamps let gradients pass: to [0, 1] on the way in (shifted by the channel) and
// out, and of the decoded luma. Bits of `chroma`: of the decoded samples.
constexpr uint8_t kMaskInput = 1, kMaskOutput = 8, kMaskLuma = 64;
constexpr uint8_t kMaskCb = 1, kMaskCr = 2;

struct JpegMasks {
  uint8_t *pixels = nullptr, *chroma = nullptr;  // (N, H, W) and (N, chroma_height, chroma_width), or null
};

// Quantization tables (N or 1, 2, 8, 8): luma and chroma.
struct JpegTables {
  std::vector<double> values;
  int64_t stride = 0;  // from one image's to the next: 128 or 0

  const double* of(int64_t image, int component) const { return &values[image * stride + (component ? 64 : 0)]; }
};

class JpegForward {
 public:
  JpegForward(ImageView image, JpegTables tables, JpegOptions options, ImageView decoded, JpegMasks masks);

  int64_t blocks() const { return sizes_.blocks(); }

  // All encode blocks come before the first merge block.
  void encode(int64_t block);
  void merge(int64_t block);

 private:
  template <typename S, typename In>
  void encode_typed(int64_t block);
  template <typename S, typename In>
  void merge_typed(int64_t block);
  template <typename S>
  S* plane_row(int64_t image, int component, int64_t row);
  template <typename S>
  const S* upsampled_row(int64_t image, int component, int64_t row, S* sums, S* buffer);
  template <typename In>
  void spread_nan(int64_t image, int64_t row);
  bool touches_nan(int64_t image, int64_t row, int64_t column) const;

  ImageView image_;
  JpegTables tables_;
  JpegOptions options_;
  ImageView decoded_;
  JpegMasks masks_;
  JpegSizes sizes_;
  std::vector<char> luma_, chroma_;  // planes of decoded samples: (N, H, W) and (N, 2, ...) up to whole MCUs
  // Integers cannot carry NaN: which MCUs hold one.
  std::vector<uint8_t> nan_;
  std::atomic<bool> any_nan_{false};
};

// `image` and `tables` are needed where `needs_image(options, grad_tables)`.
class JpegBackward {
 public:
  static bool needs_image(const JpegOptions& options, bool grad_tables);

  JpegBackward(
      ImageView grad, ImageView image, JpegTables tables, JpegOptions options, ImageView grad_image, bool grad_tables,
      JpegMasks masks);

  int64_t blocks() const { return sizes_.blocks(); }
  void run(int64_t block);

  // After all blocks: the gradient of one image's tables, 128 values.
  void table_gradient(int64_t image, double* grad) const;

 private:
  template <typename S, typename In>
  void run_typed(int64_t block);

  ImageView grad_, image_;
  JpegTables tables_;
  JpegOptions options_;
  ImageView grad_image_;
  JpegMasks masks_;
  JpegSizes sizes_;
  std::vector<double> partial_;  // [blocks, 2, 8, 8], or empty
};

}  // namespace fastgan
