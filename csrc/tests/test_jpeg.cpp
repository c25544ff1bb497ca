#include <random>
#include <vector>

#include "../cpu/jpeg_sweep.h"
#include "../cuda/jpeg_tile_backward.h"
#include "../cuda/jpeg_tile_forward.h"
#include "check.h"

using namespace fastgan;

namespace {

// Every coefficient against every step: the product with the reciprocal is integer division.
void quantization_is_integer_division() {
  for (int32_t step = 1; step <= 255; ++step) {
    const float reciprocal = 1.0f / static_cast<float>(8 * step);
    for (int32_t c = 0; c < 1 << 16; ++c) {
      const int32_t level = (c + 4 * step) / (8 * step);
      if (quantize(c, step, reciprocal) != level || quantize(-c, step, reciprocal) != -level) {
        std::fprintf(stderr, "%d over %d\n", c, 8 * step);
        std::exit(1);
      }
    }
  }
}

// What numpy.random.Philox and Random123's known-answer test have for key and counter zero.
void philox_gives_the_published_words() {
  const Philox words = philox(0, 0);
  CHECK(words.words[0] == 0x6627e8d5u && words.words[1] == 0xe169c58du);
  CHECK(words.words[2] == 0xbc57ac4cu && words.words[3] == 0x9b00dbd8u);
}

void transform_and_inverse_cancel() {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(-128, 127);
  double v[8], kept[8];
  for (double& x : v) x = uniform(random);
  std::copy(v, v + 8, kept);
  forward_dct<0>(v);
  inverse_dct<1>(v);
  for (int i = 0; i < 8; ++i) CHECK_CLOSE(v[i], kept[i], 1e-6);  // 8 from the transforms, 1/8 from pass 1
}

struct Case {
  int64_t images, height, width;
  JpegOptions options;
  bool nan_in_table = false;
};

ImageView view(std::vector<float>& data, const Case& c) {
  ImageView view;
  view.data = data.data();
  const int64_t sizes[4] = {c.images, 3, c.height, c.width};
  for (int i = 3, stride = 1; i >= 0; stride *= sizes[i--]) {
    view.sizes[i] = sizes[i];
    view.strides[i] = stride;
  }
  return view;
}

tile::Pixels<float> pixels(std::vector<float>& data, const Case& c) {
  const int64_t plane = c.height * c.width;
  return {data.data(), {3 * plane, plane, c.width, 1}};
}

template <typename Body>
void all_threads(Body body) {
  for (int thread = 0; thread < tile::kThreads; ++thread) body(thread);
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(std::isnan(a[i]) == std::isnan(b[i]));
    if (!std::isnan(a[i])) most = std::max<double>(most, std::fabs(a[i] - b[i]));
  }
  return most;
}

// The CUDA kernels' threads, one after the other, against the CPU kernels.
template <Rounding kRounding, typename S>
void tiles_equal_sweeps(Case c) {
  c.options.rounding = kRounding;
  const JpegSizes sizes(c.images, c.height, c.width, c.options);
  const bool exact = IsExact<S>::value;
  const int64_t pixel_count = c.images * c.height * c.width, mcu_rows = c.images * sizes.mcu_rows;
  const int64_t chroma_count = c.images * sizes.chroma_height * sizes.chroma_width;
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-0.2f, 1.2f), steps(1, 60);
  std::vector<float> image(3 * pixel_count), grad(image.size()), tables(128 * c.images);
  for (float& x : image) x = uniform(random);
  for (float& x : grad) x = uniform(random);
  for (float& x : tables) x = steps(random);
  image[image.size() / 2] = NAN;
  if (c.nan_in_table) tables[37] = NAN;
  const int64_t seed = 12345;

  std::vector<float> decoded(image.size()), decoded_tiles(image.size());
  std::vector<uint8_t> mask(pixel_count), chroma_mask(chroma_count), mask_tiles(pixel_count),
      chroma_tiles(chroma_count);
  const JpegTables cpu_tables = {std::vector<double>(tables.begin(), tables.end()), c.images > 1 ? 128 : 0};
  JpegForward forward(view(image, c), cpu_tables, c.options, seed, view(decoded, c), {mask.data(), chroma_mask.data()});
  for (int64_t block = 0; block < forward.blocks(); ++block) forward.encode(block);
  for (int64_t block = 0; block < forward.blocks(); ++block) forward.merge(block);

  tile::Job<S, float> job = {sizes};
  job.image = pixels(image, c);
  job.decoded = pixels(decoded_tiles, c);
  job.tables = tables.data();
  job.table_stride = c.images > 1 ? 128 : 0;
  job.seed = &seed;
  job.masks = mask_tiles.data();
  job.chroma_masks = chroma_tiles.data();
  std::vector<Plane<S>> luma(mcu_rows * sizes.mcu_height * sizes.luma_stride);
  std::vector<Plane<S>> chroma(mcu_rows * 16 * sizes.chroma_stride);
  std::vector<uint8_t> nan(mcu_rows * sizes.mcu_columns);
  job.planes = {luma.data(), chroma.data()};
  job.nan = nan.data();
  for (int64_t index = 0; index < tile::Place::count(sizes); ++index) {
    const tile::Place place(sizes, index);
    tile::Shared<S> shared;
    all_threads([&](int t) { tile::load(job, place, t, shared); });
    all_threads([&](int t) { tile::forward_row<kRounding>(sizes, t, shared); });
    all_threads([&](int t) { tile::code_column<kRounding>(job, place, t, shared); });
    all_threads([&](int t) { tile::finish_row<kRounding>(sizes, t, shared); });
    all_threads([&](int t) { tile::store(job, place, t, shared); });
  }
  const auto all_pixels = [&](auto body) {
    for (int64_t n = 0; n < c.images; ++n) {
      for (int64_t y = 0; y < c.height; ++y) {
        for (int64_t x = 0; x < c.width; ++x) body(n, y, x);
      }
    }
  };
  all_pixels([&](int64_t n, int64_t y, int64_t x) { tile::merge(job, n, y, x); });
  CHECK(largest_difference(decoded, decoded_tiles) <= (exact ? 0 : 1e-5));
  CHECK(!c.nan_in_table || std::isnan(decoded[0]));
  if (exact) CHECK(mask == mask_tiles);

  for (const bool of_tables : {false, true}) {
    std::vector<float> grad_image(image.size()), grad_image_tiles(image.size());
    JpegBackward backward(
        view(grad, c), view(image, c), cpu_tables, c.options, seed, view(grad_image, c), of_tables,
        {mask.data(), chroma_mask.data()});
    for (int64_t block = 0; block < backward.blocks(); ++block) backward.run(block);

    std::vector<float> luma_grad(luma.size()), chroma_grad(chroma.size()), parts(128 * tile::Place::count(sizes));
    job.masks = mask.data();
    job.chroma_masks = chroma_mask.data();
    job.nan = nullptr;
    job.grad = pixels(grad, c);
    job.grad_image = pixels(grad_image_tiles, c);
    job.grad_planes = {nullptr, chroma_grad.data()};
    for (int64_t n = 0; n < c.images; ++n) {
      for (int64_t y = 0; y < 8 * sizes.mcu_rows; ++y) {
        for (int64_t x = 0; x < sizes.chroma_stride; ++x) tile::chroma_gradient(job, n, y, x);
      }
    }
    if (JpegBackward::needs_image(c.options, of_tables)) {
      if (slope_varies(kRounding)) job.grad_planes.luma = luma_grad.data();
      job.grad_tables = of_tables ? parts.data() : nullptr;
      for (int64_t index = 0; index < tile::Place::count(sizes); ++index) {
        const tile::Place place(sizes, index);
        tile::Shared<S> shared;
        tile::Shared<float> grads;
        all_threads([&](int t) { tile::load(job, place, t, shared); });
        all_threads([&](int t) { tile::load_gradient(job, place, t, grads); });
        all_threads([&](int t) { tile::forward_row<kRounding>(sizes, t, shared); });
        all_threads([&](int t) { tile::forward_row<kRounding>(sizes, t, grads); });
        all_threads([&](int t) { tile::code_gradient_column<kRounding>(job, place, t, shared, grads); });
        all_threads([&](int t) { tile::sum_steps(job, index, t, shared); });
        if (!slope_varies(kRounding)) continue;
        all_threads([&](int t) { tile::inverse_row<kRounding>(sizes, t, grads); });
        all_threads([&](int t) { tile::store_gradient(job, place, t, grads); });
      }
    }
    all_pixels([&](int64_t n, int64_t y, int64_t x) { tile::image_gradient(job, n, y, x); });
    // Cubic slopes next to a half differ where the arithmetic's order does.
    CHECK(largest_difference(grad_image, grad_image_tiles) <= (kRounding == Rounding::kCubic ? 1e-3 : 1e-5));
    if (!of_tables) continue;
    const int64_t tiles_of_one = tile::Place::count(sizes) / c.images;
    for (int64_t n = 0; n < c.images; ++n) {
      double expected[128], scale = 1e-3;
      backward.table_gradient(n, expected);
      for (double value : expected) scale = std::max(scale, std::isnan(value) ? 0 : std::fabs(value));
      for (int i = 0; i < 128; ++i) {
        double sum = 0;
        for (int64_t t = n * tiles_of_one; t < (n + 1) * tiles_of_one; ++t) sum += parts[128 * t + i];
        if (!std::isnan(expected[i])) CHECK_CLOSE(sum, expected[i], 1e-3 * scale);
      }
    }
  }
}

}  // namespace

int main() {
  quantization_is_integer_division();
  philox_gives_the_published_words();
  transform_and_inverse_cancel();
  int cases = 0;
  const int64_t sizes[][3] = {{1, 1, 1}, {2, 8, 8}, {1, 5, 3}, {2, 17, 33}, {1, 40, 130}, {1, 33, 64}, {2, 9, 70}};
  const int subsamplings[][2] = {{1, 1}, {2, 1}, {2, 2}};
  for (const auto& size : sizes) {
    for (const auto& subsampling : subsamplings) {
      for (const bool fancy : {true, false}) {
        Case c = {size[0], size[1], size[2], {}};
        c.options.horizontal = subsampling[0];
        c.options.vertical = subsampling[1];
        c.options.fancy = fancy;
        tiles_equal_sweeps<Rounding::kStraightThrough, int32_t>(c);
        tiles_equal_sweeps<Rounding::kCubic, float>(c);
        tiles_equal_sweeps<Rounding::kAtZero, float>(c);
        tiles_equal_sweeps<Rounding::kNoise, float>(c);
        tiles_equal_sweeps<Rounding::kNone, float>(c);
        c.nan_in_table = true;
        tiles_equal_sweeps<Rounding::kStraightThrough, int32_t>(c);
        tiles_equal_sweeps<Rounding::kCubic, float>(c);
        tiles_equal_sweeps<Rounding::kNone, float>(c);
        cases += 8;
      }
    }
  }
  std::printf("%d cases passed\n", 3 + cases);
}
