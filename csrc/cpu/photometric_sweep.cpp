#include "photometric_sweep.h"

#include <algorithm>
#include <utility>

#include "clones.h"
#include "philox_words.h"

namespace fastgan {
namespace {

// A chunk's rows of image, noise and result fit in the first-level cache.
constexpr int64_t kChunk = 512;
// Pixels per block: a few microseconds of work, so that threads share the load evenly.
constexpr int64_t kBlockPixels = 4096;

template <typename T>
struct Rows {
  const T* source[3];
  T* target[3];
  uint8_t* masks;  // may be null
  int64_t count;
};

// The noise of a chunk. A chunk may begin and end within a quad.
template <typename T>
struct Noise {
  // The quads that a chunk touches, rounded up to whole vectors: a scalar remainder would add half of the loop's time.
  static constexpr int64_t kVector = 16;
  static constexpr int64_t kQuads = (kChunk / kQuad + 1 + kVector) / kVector * kVector;
  alignas(64) uint32_t words[3][4][kQuads] = {};
  alignas(64) T normals[3][kQuad * kQuads] = {};
  int64_t lead = 0;  // index of the chunk's first pixel within its quad
};

template <typename T>
FASTGAN_HOST_DEVICE void make_normals(Noise<T>& noise, int64_t quads) {
  const int64_t whole = (quads + Noise<T>::kVector - 1) / Noise<T>::kVector * Noise<T>::kVector;
  for (int c = 0; c < 3; ++c) {
    const uint32_t *word0 = noise.words[c][0], *word1 = noise.words[c][1], *word2 = noise.words[c][2],
                   *word3 = noise.words[c][3];
    T* normals = noise.normals[c];
#pragma omp simd
    for (int64_t i = 0; i < whole; ++i) {
      const Quad<T> quad = normal_quad<T>(word0[i], word1[i], word2[i], word3[i]);
      normals[kQuad * i] = quad.normal[0];
      normals[kQuad * i + 1] = quad.normal[1];
      normals[kQuad * i + 2] = quad.normal[2];
      normals[kQuad * i + 3] = quad.normal[3];
    }
  }
}

FASTGAN_CLONES void normals(Noise<float>& noise, int64_t quads) { make_normals(noise, quads); }
FASTGAN_CLONES void normals(Noise<double>& noise, int64_t quads) { make_normals(noise, quads); }

// The loops below copy pointers out of the structs first: the compiler would otherwise have to assume that each store
// may change them, and not vectorize.
template <typename T>
FASTGAN_HOST_DEVICE void distort_rows(const Rows<T>& rows, const Noise<T>& noise, const Photometric<T>& p) {
  const T *red = rows.source[0], *green = rows.source[1], *blue = rows.source[2];
  const T *normal_red = noise.normals[0] + noise.lead, *normal_green = noise.normals[1] + noise.lead,
          *normal_blue = noise.normals[2] + noise.lead;
  T *to_red = rows.target[0], *to_green = rows.target[1], *to_blue = rows.target[2];
  const Photometric<T> parameters = p;
  int32_t masks[kChunk];
#pragma omp simd
  for (int64_t i = 0; i < rows.count; ++i) {
    const Pixel<T> pixel = {red[i], green[i], blue[i]};
    const Pixel<T> normal = {normal_red[i], normal_green[i], normal_blue[i]};
    const Pixel<T> distorted = photometric_pixel(pixel, normal, parameters, masks[i]);
    to_red[i] = distorted.red;
    to_green[i] = distorted.green;
    to_blue[i] = distorted.blue;
  }
  if (rows.masks) std::copy(masks, masks + rows.count, rows.masks);
}

FASTGAN_CLONES void distort(const Rows<float>& rows, const Noise<float>& noise, const Photometric<float>& p) {
  distort_rows(rows, noise, p);
}
FASTGAN_CLONES void distort(const Rows<double>& rows, const Noise<double>& noise, const Photometric<double>& p) {
  distort_rows(rows, noise, p);
}

template <typename T>
FASTGAN_HOST_DEVICE void differentiate_rows(const Rows<T>& rows, const Photometric<T>& p) {
  const T *red = rows.source[0], *green = rows.source[1], *blue = rows.source[2];
  T *to_red = rows.target[0], *to_green = rows.target[1], *to_blue = rows.target[2];
  const Photometric<T> parameters = p;
  int32_t masks[kChunk];
  std::copy(rows.masks, rows.masks + rows.count, masks);
#pragma omp simd
  for (int64_t i = 0; i < rows.count; ++i) {
    const Pixel<T> grad = {red[i], green[i], blue[i]};
    const Pixel<T> result = photometric_gradient(grad, parameters, masks[i]);
    to_red[i] = result.red;
    to_green[i] = result.green;
    to_blue[i] = result.blue;
  }
}

FASTGAN_CLONES void differentiate(const Rows<float>& rows, const Photometric<float>& p) { differentiate_rows(rows, p); }
FASTGAN_CLONES void differentiate(const Rows<double>& rows, const Photometric<double>& p) {
  differentiate_rows(rows, p);
}

bool rows_adjoin(const ImageView& view) { return view.strides[2] == view.sizes[3] * view.strides[3]; }

// Treats all rows as one, so that there are no short chunks at the ends of rows.
void join_rows(ImageView& view) {
  view.sizes[3] *= view.sizes[2];
  view.sizes[2] = 1;
}

template <typename T>
Photometric<T> cast(const Photometric<double>& p) {
  return {T(p.strength), T(p.contrast), {T(p.offset[0]), T(p.offset[1]), T(p.offset[2])}, T(p.desaturation)};
}

}  // namespace

PhotometricSweep::PhotometricSweep(
    ImageView source, ImageView target, std::vector<Photometric<double>> parameters, uint8_t* masks)
    : source_(source), target_(target), parameters_(std::move(parameters)), masks_(masks) {
  if (rows_adjoin(source_) && rows_adjoin(target_)) {
    join_rows(source_);
    join_rows(target_);
  }
  const int64_t height = source_.sizes[2], width = source_.sizes[3];
  chunks_per_row_ = (width + kChunk - 1) / kChunk;
  chunks_per_block_ = std::max<int64_t>(1, kBlockPixels / std::clamp<int64_t>(width, 1, kChunk));
  blocks_ = (source_.sizes[0] * height * chunks_per_row_ + chunks_per_block_ - 1) / chunks_per_block_;
}

// Calls run(rows, parameters of the image, index of the first pixel) for each chunk of the block.
template <typename T, typename Run>
void PhotometricSweep::for_each_chunk(int64_t block, const Run& run) const {
  const int64_t height = source_.sizes[2], width = source_.sizes[3];
  const int64_t last = std::min((block + 1) * chunks_per_block_, source_.sizes[0] * height * chunks_per_row_);
  alignas(64) T buffers[6][kChunk];
  for (int64_t index = block * chunks_per_block_; index < last; ++index) {
    const int64_t line = index / chunks_per_row_, column = index % chunks_per_row_ * kChunk;
    const int64_t image = line / height, row = line % height, pixel = line * width + column;
    Rows<T> rows;
    rows.count = std::min(kChunk, width - column);
    rows.masks = masks_ ? masks_ + pixel : nullptr;
    for (int c = 0; c < 3; ++c) {
      rows.source[c] =
          load(source_.at(image, c, row, column), source_.dtype, source_.strides[3], rows.count, buffers[c]);
      rows.target[c] = target_of(target_.at(image, c, row, column), target_.dtype, target_.strides[3], buffers[3 + c]);
    }
    run(rows, cast<T>(parameters_[image]), pixel);
    for (int c = 0; c < 3; ++c) {
      store(rows.target[c], target_.at(image, c, row, column), target_.dtype, target_.strides[3], rows.count);
    }
  }
}

void PhotometricSweep::forward(int64_t block, uint64_t seed) const {
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    Noise<T> noise;
    auto& w = noise.words;
    const StreamWords words = {
        {w[0][0], w[0][1], w[0][2], w[0][3]},
        {w[1][0], w[1][1], w[1][2], w[1][3]},
        {w[2][0], w[2][1], w[2][2], w[2][3]}};
    for_each_chunk<T>(block, [&](const Rows<T>& rows, const Photometric<T>& parameters, int64_t pixel) {
      // At strength zero the previous chunk's noise may stay: it is finite, and multiplied by zero.
      if (parameters.strength != 0) {
        noise.lead = pixel % kQuad;
        const int64_t quads = (noise.lead + rows.count + kQuad - 1) / kQuad;
        philox_words(seed, static_cast<uint64_t>(pixel / kQuad), quads, words);
        normals(noise, quads);
      }
      distort(rows, noise, parameters);
    });
  };
  source_.dtype == Dtype::kFloat64 ? run(0.0) : run(0.0f);
}

void PhotometricSweep::backward(int64_t block) const {
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    for_each_chunk<T>(block, [&](const Rows<T>& rows, const Photometric<T>& parameters, int64_t) {
      differentiate(rows, parameters);
    });
  };
  source_.dtype == Dtype::kFloat64 ? run(0.0) : run(0.0f);
}

}  // namespace fastgan
