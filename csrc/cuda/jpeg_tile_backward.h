#pragma once

#include "jpeg_gradient.h"
#include "jpeg_tile.h"

//     code_gradient   one tile: back through quantization, if its slope varies or the tables' gradient is wanted
//     image_gradient  one pixel, afterwards: back through subsampling and colour
namespace fastgan {
namespace tile {

// Loads the tile's gradients of decoded samples, for `code_gradient`.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void load_gradient(
    F form, const Job<S, In>& job, const Place& place, int thread, Shared<float>& grads) {
  const Extent& extent = job.extent;
  for (unsigned index = thread; index < 8u * form.vertical() * kWidth; index += kThreads) {
    const int row = index / kWidth, column = index % kWidth;
    const int y = 8 * form.vertical() * place.mcu_row + row, x = place.left + column;
    float luma = 0;
    if (y < extent.height && x < extent.width) {
      const Pixels<In>& grad = job.grad;
      luma = unmerged(
                 grad.get(place.image, 0, y, x), grad.get(place.image, 1, y, x), grad.get(place.image, 2, y, x),
                 job.mask_row(place.image, y)[x])
                 .y;
    }
    grads.samples[luma_at(row, column)] = luma;
  }
  const unsigned across = kWidth / form.horizontal();
  for (unsigned index = thread; index < 8 * across; index += kThreads) {
    const int row = index / across, column = index % across;
    const int y = 8 * place.mcu_row + row, x = place.left / form.horizontal() + column;
    for (int c = 1; c <= 2; ++c) {
      grads.samples[chroma_at(form, c, row, column)] =
          x < extent.chroma_stride ? job.grad_planes.c_row(extent, place.image, c, y)[x] : 0.0f;
    }
  }
}

template <typename F, typename Transform>
FASTGAN_HOST_DEVICE void transform_rows(F form, int thread, Shared<float>& grads, Transform transform) {
  for (int block = thread / 8; block < blocks(form); block += kThreads / 8) {
    float* row = &grads.samples[block * kBlock + thread % 8 * kRow];
    float v[8];
    get_row(row, v);
    transform(v);
    put_row(row, v);
  }
}
template <typename F>
FASTGAN_HOST_DEVICE void forward_gradient_rows(F form, int thread, Shared<float>& grads) {
  transform_rows(form, thread, grads, [](float (&v)[8]) { forward_dct<0>(v); });
}
template <typename F>
FASTGAN_HOST_DEVICE void inverse_gradient_rows(F form, int thread, Shared<float>& grads) {
  transform_rows(form, thread, grads, [](float (&v)[8]) { inverse_dct<1>(v); });
}

// Processes columns of samples and of their gradients after the DCT of their rows. Overwrites the samples with each
// coefficient's contribution to the gradient of its step.
template <Rounding kRounding, typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void code_gradient_columns(
    F form, const Job<S, In>& job, const Place& place, int thread, const Steps<S>& steps, Shared<S>& shared,
    Shared<float>& grads) {
  const int column = thread % 8;
  for (int block = thread / 8; block < blocks(form); block += kThreads / 8) {
    const Step<S>* table = &steps.steps[block >= luma_blocks(form) ? 64 : 0];
    S* samples = &shared.samples[block * kBlock + column];
    float* grad = &grads.samples[block * kBlock + column];
    S v[8];
    float g[8];
    for (int k = 0; k < 8; ++k) v[k] = samples[k * kRow];
    for (int k = 0; k < 8; ++k) g[k] = grad[k * kRow];
    forward_dct<1>(v);
    forward_dct<1>(g);
    float step_grads[8];
    for (int k = 0; k < 8; ++k) {
      const int coefficient = 8 * k + column;
      const Step<S> step = table[coefficient];
      const float quotient = static_cast<float>(v[k]) * 0.125f / static_cast<float>(step.step);
      float level, slope = 1;
      if constexpr (kRounding == Rounding::kStraightThrough) {
        level = static_cast<float>(quantize(v[k], step.reciprocal));
      } else {
        level = surrogate<kRounding>(quotient, noise_of<kRounding>(form, job, place, block, coefficient));
        slope = surrogate_slope<kRounding>(quotient);
      }
      const float coefficient_grad = g[k] * 0.125f;
      step_grads[k] = coefficient_grad * (level - slope * quotient) * (1.0f / 255);
      g[k] = coefficient_grad * slope;
    }
    inverse_dct<0>(g);
    for (int k = 0; k < 8; ++k) grad[k * kRow] = g[k];
    for (int k = 0; k < 8; ++k) {
      if constexpr (IsExact<S>::value) {
        samples[k * kRow] = static_cast<S>(bits_of_float(step_grads[k]));
      } else {
        samples[k * kRow] = step_grads[k];
      }
    }
  }
}

template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void sum_steps(F form, const Job<S, In>& job, uint32_t tile, int thread, const Shared<S>& shared) {
  if (!job.grad_tables) return;
  for (int index = thread; index < 128; index += kThreads) {
    const int chroma = index / 64, coefficient = index % 64;
    const int begin = chroma ? luma_blocks(form) : 0, end = chroma ? blocks(form) : luma_blocks(form);
    float sum = 0;
    for (int block = begin; block < end; ++block) {
      const S value = shared.samples[block * kBlock + coefficient / 8 * kRow + coefficient % 8];
      if constexpr (IsExact<S>::value) {
        sum += float_from_bits(static_cast<uint32_t>(value));
      } else {
        sum += value;
      }
    }
    job.grad_tables[128 * int64_t(tile) + index] = sum;
  }
}

template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void store_gradient(
    F form, const Job<S, In>& job, const Place& place, int thread, const Shared<float>& grads) {
  const Extent& extent = job.extent;
  for (unsigned index = thread; index < 8u * form.vertical() * kWidth; index += kThreads) {
    const int row = index / kWidth, column = index % kWidth;
    const int y = 8 * form.vertical() * place.mcu_row + row, x = place.left + column;
    if (x < extent.luma_stride) {
      job.grad_planes.y_row(extent, place.image, y)[x] = grads.samples[luma_at(row, column)];
    }
  }
  const unsigned across = kWidth / form.horizontal();
  for (unsigned index = thread; index < 8 * across; index += kThreads) {
    const int row = index / across, column = index % across;
    const int y = 8 * place.mcu_row + row, x = place.left / form.horizontal() + column;
    if (x >= extent.chroma_stride) continue;
    for (int c = 1; c <= 2; ++c) {
      job.grad_planes.c_row(extent, place.image, c, y)[x] = grads.samples[chroma_at(form, c, row, column)];
    }
  }
}

// One pixel's gradient. Padding repeats the last column and row (of pixels for luma, of samples for chroma), so that
// the gradients of the padding are added to these.
template <typename F, typename S, typename In>
FASTGAN_HOST_DEVICE void image_gradient(F form, const Job<S, In>& job, int n, int row, int column) {
  const Extent& extent = job.extent;
  const int right = column == extent.width - 1 ? extent.luma_stride : column + 1;
  const int bottom = row == extent.height - 1 ? extent.luma_rows : row + 1;
  YCbCr<float> sample = {0, 0, 0};
  for (int y = row; y < bottom; ++y) {
    const float* luma = job.grad_planes.y_row(extent, n, y);
    for (int x = column; x < right; ++x) sample.y += luma[x];
  }
  const int first = row / form.vertical();
  const int last = first == extent.chroma_height - 1 ? 8 * extent.mcu_rows : first + 1;
  // With an odd height the last row counts twice in its chroma samples.
  const bool twice = form.vertical() == 2 && row == extent.height - 1 && row % 2 == 0;
  const float share = (twice ? 2.0f : 1.0f) / static_cast<float>(form.horizontal() * form.vertical());
  for (int y = first; y < last; ++y) {
    const float* cb = job.grad_planes.c_row(extent, n, 1, y);
    const float* cr = job.grad_planes.c_row(extent, n, 2, y);
    for (int x = column; x < right; ++x) {
      sample.cb += share * cb[x / form.horizontal()];
      sample.cr += share * cr[x / form.horizontal()];
    }
  }
  const RGB<float> pixel = to_ycbcr_transposed(sample);
  const float values[3] = {pixel.red, pixel.green, pixel.blue};
  const int bits = job.mask_row(n, row)[column];
  In* to = job.grad_image.row(n, row) + column * job.grad_image.strides[3];
  for (int c = 0; c < 3; ++c)
    from_float(bits & (kMaskInput << c) ? values[c] : 0.0f, to[c * job.grad_image.strides[1]]);
}

}  // namespace tile
}  // namespace fastgan
