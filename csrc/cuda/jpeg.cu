// The CUDA kernels of the JPEG round trip and their launches. What each thread computes is in jpeg_tile_*.h and
// jpeg_gradient.h.
#include <optional>
#include <tuple>
#include <vector>

#include "../jpeg_arguments.h"
#include "../stable_cuda.h"
#include "jpeg_tile_backward.h"
#include "jpeg_tile_forward.h"

namespace fastgan {
namespace {

template <Rounding kRounding, typename F, typename S, typename In>
__global__ void __launch_bounds__(tile::kThreads, IsExact<S>::value ? 16 : 1)  // 16: at most 64 registers
    encode_kernel(F form, tile::Job<S, In> job, Divisor across, Divisor mcu_rows) {
  __shared__ tile::Shared<S> shared;
  __shared__ tile::Steps<S> steps;
  const tile::Place place(across, mcu_rows, blockIdx.x);
  tile::InputBits bits;
  tile::load_steps<kRounding>(form, job, place, threadIdx.x, steps);
  tile::load<kRounding>(form, job, place, threadIdx.x, shared, bits);
  __syncthreads();
  if (form.horizontal() == 2) {
    S row[8];
    tile::get_chroma_row(form, job, place, threadIdx.x, shared, row);
    __syncwarp();
    tile::put_chroma_row<kRounding>(form, threadIdx.x, shared, row);
    __syncthreads();
  }
  tile::code_columns<kRounding>(form, job, place, threadIdx.x, steps, shared);
  __syncthreads();
  if (form.horizontal() == 1) {
    tile::store_pixels<kRounding>(form, job, place, threadIdx.x, shared, bits);
    return;
  }
  tile::store_samples<kRounding>(form, job, place, threadIdx.x, shared, bits);
  __syncthreads();
  tile::store_chroma_masks(form, job, place, threadIdx.x, shared);
}

template <typename F, typename S, typename In>
__global__ void merge_kernel(F form, tile::Job<S, In> job, Divisor across, Divisor height) {
  const tile::FourPixels pixels(
      across, height, static_cast<int>(job.sizes.images), blockIdx.x * blockDim.x + threadIdx.x);
  if (pixels.exist) tile::merge(form, job, pixels);
}

template <typename F, typename In>
__global__ void __launch_bounds__(tile::kGradientThreads)
    gradient_kernel(F form, tile::Job<float, In> job, Divisor across, Divisor down) {
  __shared__ tile::GradientShared shared;
  const tile::GradientPlace place(across, down, blockIdx.x);
  tile::spread(form, job, place, threadIdx.x, shared);
  __syncthreads();
  tile::gather(form, job, place, threadIdx.x, shared);
  if (!job.grad_image.data) return;
  __syncthreads();
  tile::to_image(form, job, place, threadIdx.x, shared);
}

template <Rounding kRounding, typename S, typename In>
__global__ void __launch_bounds__(tile::kThreads, 2)
    code_gradient_kernel(tile::Job<S, In> job, Divisor across, Divisor mcu_rows) {
  __shared__ tile::Shared<S> shared;
  __shared__ tile::Shared<float> grads;
  __shared__ tile::Steps<S> steps;
  const tile::Place place(across, mcu_rows, blockIdx.x);
  const tile::AnyForm form = job.form;
  tile::load_steps<kRounding>(form, job, place, threadIdx.x, steps);
  tile::InputBits bits;
  tile::load<kRounding>(form, job, place, threadIdx.x, shared, bits);
  tile::load_gradient(form, job, place, threadIdx.x, grads);
  __syncthreads();
  if (form.horizontal() == 2) {
    S row[8];
    tile::get_chroma_row(form, job, place, threadIdx.x, shared, row);
    __syncwarp();
    tile::put_chroma_row<kRounding>(form, threadIdx.x, shared, row);
  }
  tile::forward_gradient_rows(form, threadIdx.x, grads);
  __syncthreads();
  tile::code_gradient_columns<kRounding>(form, job, place, threadIdx.x, steps, shared, grads);
  __syncthreads();
  tile::sum_steps(form, job, blockIdx.x, threadIdx.x, shared);
  if (!slope_varies(kRounding)) return;
  tile::inverse_gradient_rows(form, threadIdx.x, grads);
  __syncthreads();
  tile::store_gradient(form, job, place, threadIdx.x, grads);
}

template <typename In>
__global__ void image_gradient_kernel(tile::Job<float, In> job, Divisor width, Divisor height) {
  uint32_t column = blockIdx.x * blockDim.x + threadIdx.x, row = width.divide(column);
  const int image = static_cast<int>(height.divide(row));
  if (image >= job.sizes.images) return;
  tile::image_gradient(job.form, job, image, static_cast<int>(row), static_cast<int>(column));
}

// The tables' gradients are summed by two launches in a fixed order, so that every run gives the same bits: first over
// parts of up to kTilesPerPart tiles, then over the parts. One thread per step of a table.
#ifdef FASTGAN_SMALL_LAUNCHES  // tests: small images have several parts
constexpr int64_t kTilesPerPart = 3;
#else
constexpr int64_t kTilesPerPart = 128;
#endif

__global__ void sum_tiles_kernel(const float* tiles, int64_t tiles_per_table, int64_t parts_per_table, double* parts) {
  const int64_t table = blockIdx.x / parts_per_table, begin = blockIdx.x % parts_per_table * kTilesPerPart;
  const int64_t end = begin + kTilesPerPart < tiles_per_table ? begin + kTilesPerPart : tiles_per_table;
  double sum = 0;
  for (int64_t t = begin; t < end; ++t) sum += tiles[128 * (table * tiles_per_table + t) + threadIdx.x];
  parts[128 * int64_t(blockIdx.x) + threadIdx.x] = sum;
}

__global__ void sum_parts_kernel(const double* parts, int64_t parts_per_table, float* tables) {
  const int64_t table = blockIdx.x;
  double sum = 0;
  for (int64_t p = 0; p < parts_per_table; ++p) sum += parts[128 * (table * parts_per_table + p) + threadIdx.x];
  tables[128 * table + threadIdx.x] = static_cast<float>(sum);
}

constexpr int kItemThreads = 256;

int64_t item_blocks(int64_t items) { return (items + kItemThreads - 1) / kItemThreads; }

template <typename In>
tile::Pixels<In> pixels(const Tensor& image) {
  tile::Pixels<In> result;
  result.data = static_cast<In*>(image.data_ptr());
  for (int i = 0; i < 4; ++i) result.strides[i] = image.stride(i);
  const int64_t* strides = result.strides;
  const bool is_aligned = reinterpret_cast<uintptr_t>(result.data) % (4 * sizeof(In)) == 0 && image.size(3) % 4 == 0 &&
                          strides[0] % 4 == 0 && strides[2] % 4 == 0;
  result.fours = tile::Fours::kNone;
  if (is_aligned && strides[3] == 1 && strides[1] % 4 == 0) result.fours = tile::Fours::kPlanar;
  if (is_aligned && strides[3] == 3 && strides[1] == 1) result.fours = tile::Fours::kInterleaved;
  return result;
}

template <typename S, typename In>
tile::Job<S, In> new_job(
    const JpegSizes& sizes, const Tensor& tables, const std::optional<Tensor>& seed, int64_t rounding) {
  tile::Job<S, In> job(sizes);
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

// The kernels' indices have 31 bits.
void check_size(const JpegSizes& sizes) {
  STD_TORCH_CHECK(
      sizes.images * (sizes.mcu_rows * sizes.mcu_height) * sizes.luma_stride < int64_t(1) << 31,
      "jpeg: all images together must have fewer than 2^31 pixels, got ", sizes.images, " of ", sizes.height, " x ",
      sizes.width);
}

std::tuple<Tensor, Tensor, Tensor> jpeg_cuda(
    const Tensor& image, const Tensor& tables, const std::optional<Tensor>& seed, int64_t horizontal, int64_t vertical,
    bool fancy, int64_t rounding, bool with_masks) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  const cudaStream_t stream = current_cuda_stream(image);
  check_jpeg(image, tables, seed, horizontal, vertical);
  const JpegSizes sizes = sizes_of(image, options_of(horizontal, vertical, fancy));
  check_size(sizes);
  const std::vector<int64_t> none = {0}, size = {sizes.images, sizes.height, sizes.width},
                             chroma_size = {sizes.images, sizes.chroma_height, sizes.chroma_width};
  Tensor decoded = empty_like(image, image.scalar_type());
  Tensor masks = torch::stable::new_empty(image, with_masks ? size : none, ScalarType::Byte);
  Tensor chroma_masks = torch::stable::new_empty(image, with_masks ? chroma_size : none, ScalarType::Byte);

  const bool exact = rounding_of(rounding) == Rounding::kStraightThrough;
  const ScalarType sample = exact ? ScalarType::Char : ScalarType::Float;
  const int64_t rows = sizes.images * sizes.mcu_rows, mcus = rows * sizes.mcu_columns;
  const bool merges = sizes.horizontal > 1;  // without subsampling, `encode` writes the image itself
  Tensor luma = scratch(image, merges ? rows * sizes.mcu_height * sizes.luma_stride : 0, sample);
  Tensor chroma = scratch(image, merges ? rows * 16 * sizes.chroma_stride : 0, sample);
  Tensor nan = scratch(image, exact ? mcus + 1 : 0, ScalarType::Byte);
  if (exact) set_zero("jpeg", nan.data_ptr(), mcus + 1, stream);

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
      const int64_t tiles = tile::Place::count(sizes);
      const Divisor across(tile::Place::across(sizes)), mcu_rows(sizes.mcu_rows);
      tile::with_form(sizes, [&](auto form) {
        // The exact codec is compiled for each form; the surrogates are many, and each is compiled once for all forms.
        constexpr Rounding kRounding = decltype(kind)::value;
        if constexpr (IsExact<S>::value) {
          using F = tile::Form<form.horizontal(), form.vertical(), false>;  // nothing is upsampled yet
          launch(
              "jpeg encode", encode_kernel<kRounding, F, S, In>, tiles, tile::kThreads, stream, F(), job, across,
              mcu_rows);
        } else {
          launch(
              "jpeg encode", encode_kernel<kRounding, tile::AnyForm, S, In>, tiles, tile::kThreads, stream, job.form,
              job, across, mcu_rows);
        }
        if constexpr (form.horizontal() > 1) {
          launch(
              "jpeg merge", merge_kernel<decltype(form), S, In>, item_blocks(tile::FourPixels::count(sizes)),
              kItemThreads, stream, form, job, Divisor(tile::FourPixels::across(sizes)), Divisor(sizes.height));
        }
      });
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
  check_jpeg(grad, tables, seed, horizontal, vertical);
  const JpegSizes sizes = sizes_of(grad, options_of(horizontal, vertical, fancy));
  check_size(sizes);
  check_jpeg_masks(sizes, masks, chroma_masks);
  const std::vector<int64_t> none = {0};
  Tensor grad_image = grad_image_wanted ? empty_like(grad, grad.scalar_type())
                                        : torch::stable::new_empty(grad, none, grad.scalar_type());
  Tensor grad_tables = grad_tables_wanted ? empty_like(tables, ScalarType::Float)
                                          : torch::stable::new_empty(tables, none, ScalarType::Float);
  const Rounding rounding_kind = rounding_of(rounding);
  // Without rounding the tables have no influence, and so no gradient.
  const bool sums_steps = grad_tables_wanted && rounding_kind != Rounding::kNone;
  const bool changes_gradient = slope_varies(rounding_kind), through_coefficients = sums_steps || changes_gradient;
  check_jpeg_image(image, grad, through_coefficients);
  const int64_t rows = sizes.images * sizes.mcu_rows, tiles = tile::Place::count(sizes);
  Tensor chroma = scratch(grad, through_coefficients ? rows * 16 * sizes.chroma_stride : 0, ScalarType::Float);
  Tensor luma = scratch(grad, changes_gradient ? rows * sizes.mcu_height * sizes.luma_stride : 0, ScalarType::Float);
  Tensor parts = scratch(grad, sums_steps ? 128 * tiles : 0, ScalarType::Float);

  with_pixel_type(grad.scalar_type(), [&](auto pixel) {
    using In = decltype(pixel);
    const auto with_gradient = [&](auto job) {
      job.grad = pixels<In>(grad);
      job.grad_planes = {
          changes_gradient ? static_cast<float*>(luma.data_ptr()) : nullptr,
          through_coefficients ? static_cast<float*>(chroma.data_ptr()) : nullptr};
      set_masks(job, masks, chroma_masks);
      return job;
    };
    auto job = with_gradient(new_job<float, In>(sizes, tables, seed, rounding));
    auto direct = job;
    if (grad_image_wanted) job.grad_image = pixels<In>(grad_image);
    if (grad_image_wanted && !changes_gradient) direct.grad_image = job.grad_image;
    if (through_coefficients || direct.grad_image.data) {
      tile::with_form(sizes, [&](auto form) {
        launch(
            "jpeg gradient", gradient_kernel<decltype(form), In>, tile::GradientPlace::count(sizes),
            tile::kGradientThreads, stream, form, direct, Divisor(tile::GradientPlace::across(sizes)),
            Divisor(tile::GradientPlace::down(sizes)));
      });
    }
    if (!through_coefficients) return;
    with_rounding(rounding, [&](auto kind, auto arithmetic) {
      using S = decltype(arithmetic);
      auto coded = with_gradient(new_job<S, In>(sizes, tables, seed, rounding));
      coded.image = pixels<In>(*image);
      coded.grad_tables = sums_steps ? static_cast<float*>(parts.data_ptr()) : nullptr;
      launch(
          "jpeg code gradient", code_gradient_kernel<decltype(kind)::value, S, In>, tiles, tile::kThreads, stream,
          coded, Divisor(tile::Place::across(sizes)), Divisor(sizes.mcu_rows));
    });
    if (!changes_gradient || !grad_image_wanted) return;
    launch(
        "jpeg image gradient", image_gradient_kernel<In>, item_blocks(sizes.images * sizes.height * sizes.width),
        kItemThreads, stream, job, Divisor(sizes.width), Divisor(sizes.height));
  });
  if (grad_tables_wanted && !sums_steps) {
    set_zero("jpeg table gradient", grad_tables.data_ptr(), sizeof(float) * tables.numel(), stream);
  }
  if (sums_steps) {
    const int64_t count = tables.size(0), tiles_per_table = count > 0 ? tiles / count : 0;
    const int64_t parts_per_table = (tiles_per_table + kTilesPerPart - 1) / kTilesPerPart;
    Tensor sums = scratch(grad, 128 * count * parts_per_table, ScalarType::Double);
    launch(
        "jpeg sums of tiles", sum_tiles_kernel, count * parts_per_table, 128, stream,
        static_cast<const float*>(parts.data_ptr()), tiles_per_table, parts_per_table,
        static_cast<double*>(sums.data_ptr()));
    launch(
        "jpeg table gradient", sum_parts_kernel, count, 128, stream, static_cast<const double*>(sums.data_ptr()),
        parts_per_table, static_cast<float*>(grad_tables.data_ptr()));
  }
  return {grad_image, grad_tables};
}

}  // namespace
}  // namespace fastgan

FASTGAN_CUDA_OPERATORS(library) {
  library.impl("jpeg", TORCH_BOX(&fastgan::jpeg_cuda));
  library.impl("jpeg_backward", TORCH_BOX(&fastgan::jpeg_backward_cuda));
}
