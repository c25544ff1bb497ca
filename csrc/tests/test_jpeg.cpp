#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "../cpu/jpeg_sweep.h"
#include "../cuda/jpeg_tile_backward.h"
#include "../cuda/jpeg_tile_forward.h"
#include "check.h"

using namespace fastgan;

namespace {

// Every coefficient with every step: multiplying by the reciprocal equals integer division, even with the errors that a
// GPU's reciprocal may have.
void quantization_is_integer_division() {
  for (int32_t step = 1; step <= 255; ++step) {
    for (const float error : {-0x1p-19f, 0.0f, 0x1p-19f}) {
      const float reciprocal = reciprocal_above(step) * (1 + error);
      for (int32_t c = 0; c < 1 << 16; ++c) {
        const int32_t level = (c + 4 * step) / (8 * step);
        if (quantize(c, reciprocal) != level || quantize(-c, reciprocal) != -level) {
          std::fprintf(stderr, "%d over %d\n", c, 8 * step);
          std::exit(1);
        }
      }
    }
  }
}

// Instead of grey levels, kernels pass the bits of floats from which `whole` would extract them: the multiple of 2^16
// that these bits have in common changes nothing.
void colour_conversion_works_modulo_65536() {
  const uint32_t common = bits_of_float(kWholeNumbers);
  CHECK(common % 65536 == 0);
  std::mt19937 random(3);
  for (int i = 0; i < 1 << 20; ++i) {
    const uint32_t rgb = random(), red = rgb & 255, green = rgb >> 8 & 255, blue = rgb >> 16 & 255;
    const YCbCr<int32_t> a = to_ycbcr(red, green, blue), b = to_ycbcr(red + common, green + common, blue + common);
    if (a.y != b.y || a.cb != b.cb || a.cr != b.cr) std::exit(1);
  }
}

void input_masks_match_comparisons() {
  const float least = std::numeric_limits<float>::denorm_min(), inf = INFINITY;
  const float special[] = {
      0,    -0.0f, least, -least, 1e-30f, -1e-30f, 0.5f, std::nextafter(1.0f, 0.0f), 1, std::nextafter(1.0f, 2.0f),
      1.5f, -1,    1e30f, -1e30f, inf,    -inf};
  for (const float x : special) {
    for (int c = 0; c < 3; ++c) {
      for (int i = 0; i < 4; ++i) {
        float values[3][4] = {}, clamped[3][4] = {};
        values[c][i] = x;
        clamped[c][i] = tile::clamped_to_one(x);
        uint32_t suspects = 0;
        const uint32_t bits = tile::input_bits(values, clamped, suspects);
        CHECK(bits == (passes(x, 0.0f, 1.0f) ? 0x07070707u : 0x07070707u & ~(kMaskInput << c << 8 * i)));
        values[c][i] = NAN;
        tile::input_bits(values, clamped, suspects);
        CHECK(suspects & tile::kSuspects);
      }
    }
  }
}

// The words that numpy.random.Philox and Random123's known-answer tests give for key and counter zero.
void philox_gives_the_published_words() {
  const Philox words = philox(0, 0);
  CHECK(words.words[0] == 0x6627e8d5u && words.words[1] == 0xe169c58du);
  CHECK(words.words[2] == 0xbc57ac4cu && words.words[3] == 0x9b00dbd8u);
}

void transform_and_inverse_cancel() {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(-128, 127);
  double v[8], original[8];
  for (double& x : v) x = uniform(random);
  std::copy(v, v + 8, original);
  forward_dct<0>(v);
  inverse_dct<1>(v);
  for (int i = 0; i < 8; ++i) CHECK_CLOSE(v[i], original[i], 1e-6);  // 8 from the transforms, 1/8 from pass 1
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

// Accessed as vectors of four pixels if the width is a multiple of four.
tile::Pixels<float> pixels(std::vector<float>& data, const Case& c) {
  const int64_t plane = c.height * c.width;
  return {data.data(), {3 * plane, plane, c.width, 1}, c.width % 4 == 0 ? tile::Fours::kPlanar : tile::Fours::kNone};
}

template <typename Body>
void all_threads(Body body, int threads = tile::kThreads) {
  for (int thread = 0; thread < threads; ++thread) body(thread);
}

template <Rounding kRounding, typename S>
void all_chroma_rows(const tile::Job<S, float>& job, const tile::Place& place, tile::Shared<S>& shared) {
  if (job.form.horizontal() == 1) return;
  S rows[tile::kThreads][8];
  all_threads([&](int t) { tile::get_chroma_row(job.form, job, place, t, shared, rows[t]); });
  all_threads([&](int t) { tile::put_chroma_row<kRounding>(job.form, t, shared, rows[t]); });
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(std::isnan(a[i]) == std::isnan(b[i]));
    if (!std::isnan(a[i])) largest = std::max<double>(largest, std::fabs(a[i] - b[i]));
  }
  return largest;
}

// Runs the CUDA kernels' threads one after the other, and compares with the CPU kernels.
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

  tile::Job<S, float> job(sizes);
  job.image = pixels(image, c);
  job.decoded = pixels(decoded_tiles, c);
  job.tables = tables.data();
  job.table_stride = c.images > 1 ? 128 : 0;
  job.seed = &seed;
  job.masks = mask_tiles.data();
  job.chroma_masks = chroma_tiles.data();
  // Vectors allocate with malloc's alignment, which suffices for vector loads.
  std::vector<Plane<S>> luma(mcu_rows * sizes.mcu_height * sizes.luma_stride);
  std::vector<Plane<S>> chroma(mcu_rows * 16 * sizes.chroma_stride);
  std::vector<uint8_t> nan(mcu_rows * sizes.mcu_columns + 1);
  job.planes = {luma.data(), chroma.data()};
  job.nan = nan.data();
  const Divisor across(tile::Place::across(sizes)), down(sizes.mcu_rows);
  for (int64_t index = 0; index < tile::Place::count(sizes); ++index) {
    const tile::Place place(across, down, static_cast<uint32_t>(index));
    tile::Shared<S> shared;
    tile::Steps<S> steps;
    tile::InputBits bits[tile::kThreads];
    all_threads([&](int t) { tile::load_steps<kRounding>(job.form, job, place, t, steps); });
    all_threads([&](int t) { tile::load<kRounding>(job.form, job, place, t, shared, bits[t]); });
    all_chroma_rows<kRounding>(job, place, shared);
    all_threads([&](int t) { tile::code_columns<kRounding>(job.form, job, place, t, steps, shared); });
    if (sizes.horizontal == 1) {
      all_threads([&](int t) { tile::store_pixels<kRounding>(job.form, job, place, t, shared, bits[t]); });
      continue;
    }
    all_threads([&](int t) { tile::store_samples<kRounding>(job.form, job, place, t, shared, bits[t]); });
    all_threads([&](int t) { tile::store_chroma_masks(job.form, job, place, t, shared); });
  }
  tile::with_form(sizes, [&](auto form) {
    if (form.horizontal() == 1) return;
    const Divisor fours(tile::FourPixels::across(sizes)), rows(c.height);
    for (int64_t index = 0; index < tile::FourPixels::count(sizes) + 3; ++index) {
      const tile::FourPixels at(fours, rows, static_cast<int>(c.images), static_cast<uint32_t>(index));
      if (at.exist) tile::merge(form, job, at);
    }
  });
  CHECK(largest_difference(decoded, decoded_tiles) <= (exact ? 0 : 1e-5));
  CHECK(!c.nan_in_table || std::isnan(decoded[0]));
  if (exact) CHECK(mask == mask_tiles);
  if (exact) CHECK(chroma_mask == chroma_tiles);

  for (const bool with_table_grads : {false, true}) {
    std::vector<float> grad_image(image.size()), grad_image_tiles(image.size());
    JpegBackward backward(
        view(grad, c), view(image, c), cpu_tables, c.options, seed, view(grad_image, c), with_table_grads,
        {mask.data(), chroma_mask.data()});
    for (int64_t block = 0; block < backward.blocks(); ++block) backward.run(block);

    std::vector<float> luma_grad(luma.size()), chroma_grad(chroma.size(), NAN), parts(128 * tile::Place::count(sizes));
    const bool needs_image = JpegBackward::needs_image(c.options, with_table_grads), varies = slope_varies(kRounding);
    job.masks = mask.data();
    job.chroma_masks = chroma_mask.data();
    job.nan = nullptr;
    job.grad = pixels(grad, c);
    job.grad_planes = {varies ? luma_grad.data() : nullptr, needs_image ? chroma_grad.data() : nullptr};
    job.grad_tables = with_table_grads ? parts.data() : nullptr;
    tile::Job<S, float> direct = job;
    job.grad_image = pixels(grad_image_tiles, c);
    if (!varies) direct.grad_image = job.grad_image;
    tile::with_form(sizes, [&](auto form) {
      const Divisor right(tile::GradientPlace::across(sizes)), below(tile::GradientPlace::down(sizes));
      for (int64_t index = 0; index < tile::GradientPlace::count(sizes); ++index) {
        const tile::GradientPlace place(right, below, static_cast<uint32_t>(index));
        tile::GradientShared shared;
        all_threads([&](int t) { tile::spread(form, direct, place, t, shared); }, tile::kGradientThreads);
        all_threads([&](int t) { tile::gather(form, direct, place, t, shared); }, tile::kGradientThreads);
        if (varies) continue;
        all_threads([&](int t) { tile::to_image(form, direct, place, t, shared); }, tile::kGradientThreads);
      }
    });
    if (needs_image) {
      for (int64_t index = 0; index < tile::Place::count(sizes); ++index) {
        const tile::Place place(across, down, static_cast<uint32_t>(index));
        const tile::AnyForm form = job.form;
        tile::Shared<S> shared;
        tile::Shared<float> grads;
        tile::Steps<S> steps;
        all_threads([&](int t) { tile::load_steps<kRounding>(form, job, place, t, steps); });
        tile::InputBits bits[tile::kThreads];
        all_threads([&](int t) { tile::load<kRounding>(form, job, place, t, shared, bits[t]); });
        all_threads([&](int t) { tile::load_gradient(form, job, place, t, grads); });
        all_chroma_rows<kRounding>(job, place, shared);
        all_threads([&](int t) { tile::forward_gradient_rows(form, t, grads); });
        all_threads([&](int t) { tile::code_gradient_columns<kRounding>(form, job, place, t, steps, shared, grads); });
        all_threads([&](int t) { tile::sum_steps(form, job, static_cast<uint32_t>(index), t, shared); });
        if (!varies) continue;
        all_threads([&](int t) { tile::inverse_gradient_rows(form, t, grads); });
        all_threads([&](int t) { tile::store_gradient(form, job, place, t, grads); });
      }
    }
    for (int n = 0; varies && n < c.images; ++n) {
      for (int y = 0; y < c.height; ++y) {
        for (int x = 0; x < c.width; ++x) tile::image_gradient(job.form, job, n, y, x);
      }
    }
    // Cubic slopes near a half are sensitive to the order of operations.
    CHECK(largest_difference(grad_image, grad_image_tiles) <= (kRounding == Rounding::kCubic ? 1e-3 : 1e-5));
    if (!with_table_grads) continue;
    const int64_t tiles_per_image = tile::Place::count(sizes) / c.images;
    for (int64_t n = 0; n < c.images; ++n) {
      double expected[128], scale = 1e-3;
      backward.table_gradient(n, expected);
      for (double value : expected) scale = std::max(scale, std::isnan(value) ? 0 : std::fabs(value));
      for (int i = 0; i < 128; ++i) {
        double sum = 0;
        for (int64_t t = n * tiles_per_image; t < (n + 1) * tiles_per_image; ++t) sum += parts[128 * t + i];
        if (!std::isnan(expected[i])) CHECK_CLOSE(sum, expected[i], 1e-3 * scale);
      }
    }
  }
}

}  // namespace

// Checks every grey level, and random values between them.
void over_255_matches_division() {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(0, 255);
  for (int i = 0; i < 1 << 20; ++i) {
    const float x = i < 256 ? static_cast<float>(i) : uniform(random);
    CHECK(tile::over_255(x) == x / 255);
  }
}

void divisors_divide() {
  std::mt19937 random(1);
  const auto check = [](uint32_t n, uint32_t d) {
    uint32_t rest = n;
    CHECK(Divisor(d).divide(rest) == n / d && rest == n % d);
  };
  const uint32_t ends[] = {0, 1, 2, 3, 7, 63, 64, 65, 1079, 1080, 0x3fffffffu, 0x40000000u, 0x7ffffffeu, 0x7fffffffu};
  for (uint32_t d : ends) {
    for (uint32_t n : ends) {
      if (d > 0) check(n, d);
    }
  }
  for (int i = 0; i < 1 << 20; ++i) check(random() >> 1, (random() >> (1 + random() % 31)) + 1);
}

// Sizes that can only come from calling the operators directly: the public function rejects them.
void images_without_pixels_have_no_blocks() {
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>(0, 8), {8, 0}, {0, 0}}) {
    const JpegSizes sizes(2, height, width, {});
    CHECK(JpegBlocks(sizes).count == 0 && tile::Place::count(sizes) == 0 && tile::FourPixels::count(sizes) == 0);
  }
  uint32_t nothing = 0;
  CHECK(Divisor(0).divide(nothing) == 0 && nothing == 0);
}

int main() {
  quantization_is_integer_division();
  colour_conversion_works_modulo_65536();
  input_masks_match_comparisons();
  over_255_matches_division();
  divisors_divide();
  images_without_pixels_have_no_blocks();
  philox_gives_the_published_words();
  transform_and_inverse_cancel();
  int cases = 0;
  const int64_t sizes[][3] = {{1, 1, 1},    {2, 8, 8},   {1, 5, 3},  {2, 17, 33},
                              {1, 40, 130}, {1, 33, 64}, {2, 9, 70}, {2, 36, 68}};
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
  std::printf("%d cases passed\n", 6 + cases);
}
