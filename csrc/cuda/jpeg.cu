// The CUDA kernels of the JPEG round trip: which thread does what. The work itself is in jpeg_tile_*.h.
#include <optional>
#include <tuple>
#include <vector>

#include "../stable_cuda.h"
#include "jpeg_tile_backward.h"
#include "jpeg_tile_forward.h"

namespace fastgan {
namespace {

template <Rounding kRounding, typename S, typename In>
__global__ void __launch_bounds__(tile::kThreads, 2) encode_kernel(tile::Job<S, In> job) {
  __shared__ tile::Shared<S> shared;
  const tile::Place place(job.sizes, blockIdx.x);
  tile::load(job, place, threadIdx.x, shared);
  __syncthreads();
  tile::forward_row<kRounding>(job.sizes, threadIdx.x, shared);
  __syncthreads();
  tile::code_column<kRounding>(job, place, threadIdx.x, shared);
  __syncthreads();
  tile::inverse_row<kRounding>(job.sizes, threadIdx.x, shared);
  __syncthreads();
  tile::store(job, place, threadIdx.x, shared);
}

// This thread's item where items are numbered along the rows of all images; some threads of the last block have none.
struct Item {
  int64_t image, row, column;
  bool exists;

  __device__ Item(int64_t images, int64_t height, int64_t width) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, line = index / width;
    image = line / height;
    row = line % height;
    column = index % width;
    exists = image < images;
  }
};

template <typename S, typename In>
__global__ void merge_kernel(tile::Job<S, In> job) {
  const Item pixel(job.sizes.images, job.sizes.height, job.sizes.width);
  if (pixel.exists) tile::merge(job, pixel.image, pixel.row, pixel.column);
}

template <typename S, typename In>
__global__ void chroma_gradient_kernel(tile::Job<S, In> job) {
  const Item sample(job.sizes.images, 8 * job.sizes.mcu_rows, job.sizes.chroma_stride);
  if (sample.exists) tile::chroma_gradient(job, sample.image, sample.row, sample.column);
}

template <Rounding kRounding, typename S, typename In>
__global__ void __launch_bounds__(tile::kThreads, 2) code_gradient_kernel(tile::Job<S, In> job) {
  __shared__ tile::Shared<S> shared;
  __shared__ tile::Shared<float> grads;
  const tile::Place place(job.sizes, blockIdx.x);
  tile::load(job, place, threadIdx.x, shared);
  tile::load_gradient(job, place, threadIdx.x, grads);
  __syncthreads();
  tile::forward_row<kRounding>(job.sizes, threadIdx.x, shared);
  tile::forward_row<kRounding>(job.sizes, threadIdx.x, grads);
  __syncthreads();
  tile::code_gradient_column<kRounding>(job, place, threadIdx.x, shared, grads);
  __syncthreads();
  tile::sum_steps(job, blockIdx.x, threadIdx.x, shared);
  if (!slope_varies(kRounding)) return;
  tile::inverse_row<kRounding>(job.sizes, threadIdx.x, grads);
  __syncthreads();
  tile::store_gradient(job, place, threadIdx.x, grads);
}

template <typename S, typename In>
__global__ void image_gradient_kernel(tile::Job<S, In> job) {
  const Item pixel(job.sizes.images, job.sizes.height, job.sizes.width);
  if (pixel.exists) tile::image_gradient(job, pixel.image, pixel.row, pixel.column);
}

// One thread per step of a table, tile after tile: the same bits on every run.
__global__ void sum_tables_kernel(const float* parts, int64_t tiles, int64_t tiles_per_table, float* tables) {
  const int64_t first = int64_t(blockIdx.x) * tiles_per_table;
  double sum = 0;
  for (int64_t t = first; t < first + tiles_per_table && t < tiles; ++t) sum += parts[128 * t + threadIdx.x];
  tables[128 * int64_t(blockIdx.x) + threadIdx.x] = static_cast<float>(sum);
}

constexpr int kItemThreads = 256;

int64_t item_blocks(int64_t items) { return (items + kItemThreads - 1) / kItemThreads; }

template <typename In>
tile::Pixels<In> pixels(const Tensor& image) {
  tile::Pixels<In> result;
  result.data = static_cast<In*>(image.data_ptr());
  for (int i = 0; i < 4; ++i) result.strides[i] = image.stride(i);
  return result;
}

template <typename S, typename In>
tile::Job<S, In> new_job(
    const JpegSizes& sizes, const Tensor& tables, const std::optional<Tensor>& seed, int64_t rounding) {
  tile::Job<S, In> job = {sizes};
  job.tables = static_cast<const float*>(tables.data_ptr());
  job.table_stride = tables.size(0) > 1 ? 128 : 0;
  job.truncate = rounding == kStraightThroughTruncated;
  job.seed = seed ? static_cast<const int64_t*>(seed->data_ptr()) : nullptr;
  return job;
}

template <typename S, typename In>
void set_masks(tile::Job<S, In>& job, const Tensor& masks, const Tensor& chroma_masks) {
  if (masks.numel() == 0) return;
  job.masks = static_cast<uint8_t*>(masks.data_ptr());
  job.chroma_masks = static_cast<uint8_t*>(chroma_masks.data_ptr());
}

Tensor scratch(const Tensor& like, int64_t elements, ScalarType dtype) {
  const std::vector<int64_t> size = {elements};
  return torch::stable::new_empty(like, size, dtype);
}

Rounding rounding_of(int64_t rounding) {
  return rounding == kStraightThroughTruncated ? Rounding::kStraightThrough : static_cast<Rounding>(rounding);
}

// Calls body(std::integral_constant<Rounding, ...>, S()) with the arithmetic S of the rounding.
template <typename Body>
void with_rounding(int64_t rounding, Body body) {
  switch (rounding_of(rounding)) {
    case Rounding::kStraightThrough:
      return body(std::integral_constant<Rounding, Rounding::kStraightThrough>(), int32_t());
    case Rounding::kCubic: return body(std::integral_constant<Rounding, Rounding::kCubic>(), float());
    case Rounding::kAtZero: return body(std::integral_constant<Rounding, Rounding::kAtZero>(), float());
    case Rounding::kNoise: return body(std::integral_constant<Rounding, Rounding::kNoise>(), float());
    case Rounding::kNone: return body(std::integral_constant<Rounding, Rounding::kNone>(), float());
  }
}

template <typename Body>
void with_pixel_type(ScalarType dtype, Body body) {
  switch (dtype_of(dtype)) {
    case Dtype::kFloat32: return body(float());
    case Dtype::kBFloat16: return body(BFloat16());
    case Dtype::kFloat16: return body(Float16());
    default: STD_TORCH_CHECK(false, "fastgan's CUDA kernels take float16, bfloat16 and float32 images");
  }
}

JpegSizes sizes_of(const Tensor& image, const JpegOptions& options) {
  return JpegSizes(image.size(0), image.size(2), image.size(3), options);
}

JpegOptions options_of(int64_t horizontal, int64_t vertical, bool fancy) {
  JpegOptions options;
  options.horizontal = static_cast<int>(horizontal);
  options.vertical = static_cast<int>(vertical);
  options.fancy = fancy;
  return options;
}

std::tuple<Tensor, Tensor, Tensor> jpeg_cuda(
    const Tensor& image, const Tensor& tables, const std::optional<Tensor>& seed, int64_t horizontal, int64_t vertical,
    bool fancy, int64_t rounding, bool with_masks) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  const cudaStream_t stream = current_cuda_stream(image);
  const JpegSizes sizes = sizes_of(image, options_of(horizontal, vertical, fancy));
  const std::vector<int64_t> none = {0}, size = {sizes.images, sizes.height, sizes.width},
                             chroma_size = {sizes.images, sizes.chroma_height, sizes.chroma_width};
  Tensor decoded = empty_like(image, image.scalar_type());
  Tensor masks = torch::stable::new_empty(image, with_masks ? size : none, ScalarType::Byte);
  Tensor chroma_masks = torch::stable::new_empty(image, with_masks ? chroma_size : none, ScalarType::Byte);

  const bool exact = rounding_of(rounding) == Rounding::kStraightThrough;
  const ScalarType sample = exact ? ScalarType::Char : ScalarType::Float;
  const int64_t rows = sizes.images * sizes.mcu_rows, mcus = rows * sizes.mcu_columns;
  Tensor luma = scratch(image, rows * sizes.mcu_height * sizes.luma_stride, sample);
  Tensor chroma = scratch(image, rows * 16 * sizes.chroma_stride, sample);
  Tensor nan = scratch(image, mcus, ScalarType::Byte);
  set_zero("jpeg", nan.data_ptr(), mcus, stream);

  with_rounding(rounding, [&](auto kind, auto arithmetic) {
    with_pixel_type(image.scalar_type(), [&](auto pixel) {
      using S = decltype(arithmetic);
      using In = decltype(pixel);
      auto job = new_job<S, In>(sizes, tables, seed, rounding);
      job.image = pixels<In>(image);
      job.decoded = pixels<In>(decoded);
      job.planes = {static_cast<Plane<S>*>(luma.data_ptr()), static_cast<Plane<S>*>(chroma.data_ptr())};
      job.nan = static_cast<uint8_t*>(nan.data_ptr());
      set_masks(job, masks, chroma_masks);
      const int64_t tiles = tile::Place::count(sizes), blocks = item_blocks(sizes.images * sizes.height * sizes.width);
      launch("jpeg encode", encode_kernel<decltype(kind)::value, S, In>, tiles, tile::kThreads, stream, job);
      launch("jpeg merge", merge_kernel<S, In>, blocks, kItemThreads, stream, job);
    });
  });
  return {decoded, masks, chroma_masks};
}

std::tuple<Tensor, Tensor> jpeg_backward_cuda(
    const Tensor& grad, const std::optional<Tensor>& image, const Tensor& tables, const std::optional<Tensor>& seed,
    const Tensor& masks, const Tensor& chroma_masks, int64_t horizontal, int64_t vertical, bool fancy, int64_t rounding,
    bool grad_image_wanted, bool grad_tables_wanted) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const cudaStream_t stream = current_cuda_stream(grad);
  const JpegSizes sizes = sizes_of(grad, options_of(horizontal, vertical, fancy));
  const std::vector<int64_t> none = {0};
  Tensor grad_image = grad_image_wanted ? empty_like(grad, grad.scalar_type())
                                        : torch::stable::new_empty(grad, none, grad.scalar_type());
  Tensor grad_tables = grad_tables_wanted ? empty_like(tables, ScalarType::Float)
                                          : torch::stable::new_empty(tables, none, ScalarType::Float);
  const Rounding kind_of_rounding = rounding_of(rounding);
  // What no table changes has no gradient for one.
  const bool sums_steps = grad_tables_wanted && kind_of_rounding != Rounding::kNone;
  const bool changes_gradient = slope_varies(kind_of_rounding), through_coefficients = sums_steps || changes_gradient;
  const int64_t rows = sizes.images * sizes.mcu_rows, tiles = tile::Place::count(sizes);
  Tensor chroma = scratch(grad, rows * 16 * sizes.chroma_stride, ScalarType::Float);
  Tensor luma = scratch(grad, changes_gradient ? rows * sizes.mcu_height * sizes.luma_stride : 0, ScalarType::Float);
  Tensor parts = scratch(grad, sums_steps ? 128 * tiles : 0, ScalarType::Float);

  with_rounding(rounding, [&](auto kind, auto arithmetic) {
    with_pixel_type(grad.scalar_type(), [&](auto pixel) {
      using S = decltype(arithmetic);
      using In = decltype(pixel);
      auto job = new_job<S, In>(sizes, tables, seed, rounding);
      job.grad = pixels<In>(grad);
      job.grad_planes = {nullptr, static_cast<float*>(chroma.data_ptr())};
      set_masks(job, masks, chroma_masks);
      const int64_t samples = 8 * rows * sizes.chroma_stride;
      launch("jpeg chroma gradient", chroma_gradient_kernel<S, In>, item_blocks(samples), kItemThreads, stream, job);
      if (through_coefficients) {
        job.image = pixels<In>(*image);
        if (changes_gradient) job.grad_planes.luma = static_cast<float*>(luma.data_ptr());
        job.grad_tables = sums_steps ? static_cast<float*>(parts.data_ptr()) : nullptr;
        launch(
            "jpeg code gradient", code_gradient_kernel<decltype(kind)::value, S, In>, tiles, tile::kThreads, stream,
            job);
      }
      if (!grad_image_wanted) return;
      job.grad_image = pixels<In>(grad_image);
      const int64_t blocks = item_blocks(sizes.images * sizes.height * sizes.width);
      launch("jpeg image gradient", image_gradient_kernel<S, In>, blocks, kItemThreads, stream, job);
    });
  });
  if (grad_tables_wanted && !sums_steps) {
    set_zero("jpeg table gradient", grad_tables.data_ptr(), sizeof(float) * tables.numel(), stream);
  }
  if (sums_steps) {
    const int64_t count = tables.size(0);
    launch(
        "jpeg table gradient", sum_tables_kernel, count, 128, stream, static_cast<const float*>(parts.data_ptr()),
        tiles, count > 1 ? tiles / count : tiles, static_cast<float*>(grad_tables.data_ptr()));
  }
  return {grad_image, grad_tables};
}

}  // namespace
}  // namespace fastgan

FASTGAN_CUDA_OPERATORS(library) {
  library.impl("jpeg", TORCH_BOX(&fastgan::jpeg_cuda));
  library.impl("jpeg_backward", TORCH_BOX(&fastgan::jpeg_backward_cuda));
}
