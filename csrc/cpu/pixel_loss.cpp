#include <algorithm>
#include <initializer_list>

#include "outputs.h"
#include "pixel_loss_sweep.h"

namespace fastgan {
namespace {

// A block takes a few microseconds; waking a thread pays off from four blocks on.
constexpr int64_t kGrainBlocks = 4;

bool have_equal_strides(const ImageView& one, const ImageView& other) {
  for (int i = 0; i < 4; ++i)
    if (one.sizes[i] != 1 && one.strides[i] != other.strides[i]) return false;
  return true;
}

// Where every element counts the same, images of equal layouts are rows of numbers.
bool are_numbers(const ImageView& x, const ImageView& y, const ImageView& direction, const PixelLossOptions& options) {
  return options.colour == PixelColour::kRgb && options.edge_gain == 0 && !options.has_sobel && !options.has_tv &&
         is_dense(x.sizes, x.strides, 4) && have_equal_strides(x, y) &&
         (!direction.data || have_equal_strides(x, direction));
}

// Rows without gaps between them, and with nothing that depends on where a pixel lies, are one.
void join_rows(std::initializer_list<ImageView*> views, const PixelLossOptions& options) {
  if (options.edge_gain != 0 || options.has_sobel || options.has_tv) return;
  for (const ImageView* view : views)
    if (view->data && view->strides[2] != view->sizes[3] * view->strides[3]) return;
  for (ImageView* view : views) {
    view->sizes[3] *= view->sizes[2];
    view->sizes[2] = 1;
  }
}

void flatten(ImageView& view) {
  const int64_t count = view.sizes[0] * view.sizes[1] * view.sizes[2] * view.sizes[3];
  for (int i = 0; i < 4; ++i) view.sizes[i] = i == 3 ? count : 1, view.strides[i] = i == 3 ? 1 : count;
}

void check_choice(const char* name, int64_t choice, int64_t choices) {
  STD_TORCH_CHECK(
      choice >= 0 && choice < choices, name, " must be at least 0 and less than ", choices, ", got ", choice);
}

std::tuple<Tensor, Tensor, Tensor> pixel_loss_cpu(
    const Tensor& x, const std::optional<Tensor>& y, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& edge_gain, const std::optional<Tensor>& weight_means, double edge_gain_number,
    int64_t kind, int64_t tv_kind, int64_t color, double eps, double delta, double scale_y, double scale_u,
    double scale_v, double sobel_weight, double tv_weight, double loss_weight, bool mean, int64_t direction_sign,
    std::optional<ScalarType> direction_dtype) {
  check_choice("pixel_loss: kind", kind, 4);
  check_choice("pixel_loss: tv_kind", tv_kind, 4);
  check_choice("pixel_loss: color", color, 3);
  STD_TORCH_CHECK(y || tv_weight != 0, "pixel_loss: without y, tv_weight must not be 0");
  PixelLossOptions options;
  options.kind = static_cast<PixelKind>(kind), options.tv_kind = static_cast<PixelKind>(tv_kind);
  options.colour = static_cast<PixelColour>(color);
  options.eps = eps, options.delta = delta;
  options.scales[0] = scale_y, options.scales[1] = scale_u, options.scales[2] = scale_v;
  options.has_sobel = sobel_weight != 0 && y, options.has_tv = tv_weight != 0;
  const bool is_rgb = options.colour == PixelColour::kRgb;
  if (!is_rgb) check_colour("pixel_loss: x", x);
  if (y) check_alike("pixel_loss: y", *y, x);
  ImageView input = image_view(x), other = y ? image_view(*y) : ImageView(), weights;
  const int64_t batch = input.sizes[0], height = input.sizes[2], width = input.sizes[3];
  if (weight) {
    weights = image_view(*weight);
    const int64_t sizes[4] = {batch, options.colour == PixelColour::kLuma ? 1 : input.sizes[1], height, width};
    for (int i = 0; i < 4; ++i)
      STD_TORCH_CHECK(
          weights.sizes[i] == sizes[i], "pixel_loss: weight must have size ", sizes[i], " in dimension ", i);
  }
  if (y) options.edge_gain = edge_gain ? numbers_in("pixel_loss: edge_gain", *edge_gain, 1)[0] : edge_gain_number;
  const std::vector<double> means =
      weight_means ? numbers_in("pixel_loss: weight_means", *weight_means, 3) : std::vector<double>(3, 1.0);
  // By term: what its sum is divided by. A direction without neighbours has a sum of 0.
  const double channels = is_rgb ? static_cast<double>(input.sizes[1]) : 1;
  const double all = mean ? channels * static_cast<double>(batch * height * width) * means[0] : 1;
  const double divisors[4] = {
      all, all, mean ? channels * static_cast<double>(batch * std::max<int64_t>(height - 1, 1) * width) * means[1] : 1,
      mean ? channels * static_cast<double>(batch * height * std::max<int64_t>(width - 1, 1)) * means[2] : 1};
  const double factors[4] = {loss_weight, loss_weight * sobel_weight, loss_weight * tv_weight, loss_weight * tv_weight};
  const double sign = direction_sign < 0 ? -1 : 1;
  for (int term = 0; term < 4; ++term) options.factors[term] = sign * factors[term] / divisors[term];

  const bool is_double = x.scalar_type() == ScalarType::Double || (y && y->scalar_type() == ScalarType::Double);
  const ScalarType result_dtype = is_double ? ScalarType::Double : ScalarType::Float;
  Tensor direction = direction_dtype ? new_output(x, *direction_dtype) : torch::stable::new_empty(x, {0}, result_dtype);
  ImageView output = direction_dtype ? image_view(direction) : ImageView();
  if (y && !weight && are_numbers(input, other, output, options)) {
    for (ImageView* view : {&input, &other}) flatten(*view);
    if (output.data) flatten(output);
  } else {
    join_rows({&input, &other, &weights, &output}, options);
  }
  PixelLossSweep sweep(input, other, weights, output, options);
  torch::stable::parallel_for(
      0, sweep.blocks(), kGrainBlocks, [&](int64_t begin, int64_t end) { sweep.run(begin, end); });
  double sums[4];
  sweep.sums(sums);
  for (int term = 0; term < 4; ++term) sums[term] /= divisors[term];
  const double parts[3] = {y ? sums[0] : 0, options.has_sobel ? sums[1] : 0, options.has_tv ? sums[2] + sums[3] : 0};
  const double loss = loss_weight * (parts[0] + sobel_weight * parts[1] + tv_weight * parts[2]);
  Tensor loss_tensor = torch::stable::new_empty(x, {}, result_dtype);
  Tensor parts_tensor = torch::stable::new_empty(x, {3}, result_dtype);
  store(&loss, loss_tensor.data_ptr(), dtype_of(result_dtype), 1, 1);
  store(parts, parts_tensor.data_ptr(), dtype_of(result_dtype), 1, 3);
  return {loss_tensor, parts_tensor, direction};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) { library.impl("pixel_loss", TORCH_BOX(&fastgan::pixel_loss_cpu)); }
