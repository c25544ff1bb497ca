#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "../math/jpeg_layout.h"
#include "pixels.h"
#include "scratch.h"

// The CPU kernels of the JPEG round trip without torch, as blocks of work that any thread may run.
//
//     encode    some rows of MCUs: colour, chroma subsampling, DCT, quantization and their inverses, into planes of
//               decoded samples
//     merge     the same rows as pixels: chroma upsampling, colour
//     backward  some rows of MCUs: the transposes of all these steps, in reverse order
//
// An MCU is what one chroma block covers: 8x8, 16x8 or 16x16 pixels. The planes hold one byte per sample in exact
// arithmetic, so they stay in the cache between the first two steps. A backward block reads the gradients of
// neighbouring rows itself, so that blocks do not exchange anything. Block bounds depend on the shape alone: results
// are bit-identical for any number of threads.
namespace fastgan {

// How rows of MCUs are divided into blocks of work.
struct JpegBlocks {
  explicit JpegBlocks(const JpegSizes& sizes)
      // Enough adjacent 8x8 blocks to fill vectors; more would not fit in the first-level cache.
      : rows(is_empty(sizes) ? 1 : std::min(sizes.mcu_rows, (63 + sizes.mcu_columns) / sizes.mcu_columns)),
        per_image(is_empty(sizes) ? 0 : (sizes.mcu_rows + rows - 1) / rows),
        count(sizes.images * per_image) {}
  static bool is_empty(const JpegSizes& sizes) { return sizes.mcu_rows == 0 || sizes.mcu_columns == 0; }

  int64_t rows, per_image, count;
};

struct JpegMasks {
  uint8_t *pixels = nullptr, *chroma = nullptr;  // (N, H, W) and (N, chroma_height, chroma_width), or null
};

// Quantization tables (N or 1, 2, 8, 8): luma and chroma.
struct JpegTables {
  JpegTables() = default;
  // `stride` is the distance from one image's to the next: 128 or 0.
  JpegTables(std::vector<double> numbers, int64_t stride) : values(std::move(numbers)), stride(stride) {
    whole_steps.resize(values.size());
    not_whole.assign(values.size() / 128, 0);
    for (size_t i = 0; i < values.size(); ++i) {
      bool valid;
      whole_steps[i] = whole_step(values[i], valid);
      if (!valid) not_whole[i / 128] = 1;
    }
  }

  int64_t at(int64_t image, int component) const { return image * stride + (component ? 64 : 0); }
  // Whether all of the image's steps are ones that integer arithmetic can divide by.
  bool are_whole(int64_t image) const { return !not_whole[image * stride / 128]; }

  std::vector<double> values;
  int64_t stride = 0;
  std::vector<int32_t> whole_steps;  // the divisors of integer arithmetic
  std::vector<uint8_t> not_whole;    // one per pair of tables
};

class JpegForward {
 public:
  JpegForward(
      ImageView image, JpegTables tables, JpegOptions options, uint64_t seed, ImageView decoded, JpegMasks masks);

  int64_t blocks() const { return blocks_.count; }

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
  void upsample(int64_t image, int64_t row, S* sums, S* upsampled);
  template <typename In>
  void spread_nan(int64_t image, int64_t row);
  void pass_nan(int64_t image, int64_t mcu_row, int64_t per_mcu, int64_t count, uint8_t* mask, uint8_t bits) const;

  ImageView image_;
  JpegTables tables_;
  JpegOptions options_;
  uint64_t seed_;  // for Rounding::kNoise
  ImageView decoded_;
  JpegMasks masks_;
  JpegSizes sizes_;
  JpegBlocks blocks_;
  Scratch<char> luma_, chroma_;  // planes of decoded samples: (N, H, W) and (N, 2, ...) up to whole MCUs
  // Which MCUs contain NaN, since integers cannot represent it: 1 or 0, (N, mcu_rows, mcu_columns).
  std::vector<uint8_t> nan_;
  std::atomic<bool> any_nan_{false};
};

// `image` and `tables` are only read if `needs_image(options, grad_tables)`.
class JpegBackward {
 public:
  static bool needs_image(const JpegOptions& options, bool grad_tables);

  JpegBackward(
      ImageView grad, ImageView image, JpegTables tables, JpegOptions options, uint64_t seed, ImageView grad_image,
      bool grad_tables, JpegMasks masks);

  int64_t blocks() const { return blocks_.count; }
  void run(int64_t block);

  // Once all blocks have run: the gradient of one image's tables, 128 values.
  void table_gradient(int64_t image, double* grad) const;

 private:
  template <typename S, typename In>
  void run_typed(int64_t block);

  ImageView grad_, image_;
  JpegTables tables_;
  JpegOptions options_;
  uint64_t seed_;  // for Rounding::kNoise
  ImageView grad_image_;
  JpegMasks masks_;
  JpegSizes sizes_;
  JpegBlocks blocks_;
  std::vector<double> partial_;  // [blocks, 2, 8, 8], or empty
};

}  // namespace fastgan
