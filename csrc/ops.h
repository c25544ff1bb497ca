#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "stable.h"

// Every CPU kernel that csrc/ops.cpp registers. What each computes is told once, in fastgan/ops/<name>.py.
namespace fastgan {

std::tuple<Tensor, Tensor, Tensor> yuv_l2_cpu(
    const Tensor& x, const Tensor& y, const std::optional<Tensor>& edge_gain, double edge_gain_number, double scale_y,
    double scale_u, double scale_v, int64_t direction_sign, std::optional<ScalarType> direction_dtype);

Tensor yuv_l2_backward_cpu(
    const Tensor& direction, const Tensor& grad_loss, int64_t sign, bool scaled, ScalarType dtype);

void yuv_l2_backward_cpu_(const Tensor& direction, const Tensor& grad_loss, int64_t sign, bool scaled);

std::tuple<Tensor, Tensor, Tensor> jpeg_cpu(
    const Tensor& image, const Tensor& tables, const std::optional<Tensor>& seed, int64_t horizontal, int64_t vertical,
    bool fancy, int64_t rounding, bool with_masks);

std::tuple<Tensor, Tensor> jpeg_backward_cpu(
    const Tensor& grad, const std::optional<Tensor>& image, const Tensor& tables, const std::optional<Tensor>& seed,
    const Tensor& masks, const Tensor& chroma_masks, int64_t horizontal, int64_t vertical, bool fancy, int64_t rounding,
    bool grad_image_wanted, bool grad_tables_wanted);

std::tuple<Tensor, Tensor> photometric_cpu(
    const Tensor& image, const Tensor& parameters, const Tensor& seed, bool with_masks);

Tensor photometric_backward_cpu(const Tensor& grad, const Tensor& parameters, const Tensor& masks);

Tensor blur_cpu(const Tensor& image, const Tensor& kernels, bool turned);

Tensor perspective_warp_cpu(const Tensor& image, const Tensor& matrix, const std::optional<Tensor>& fill);

Tensor perspective_warp_backward_cpu(const Tensor& grad, const Tensor& matrix);

Tensor squared_norm_cpu(const Tensor& x);

Tensor squared_norm_backward_cpu(const Tensor& x, const Tensor& grad);

std::tuple<Tensor, Tensor> bias_leaky_relu_cpu(
    const Tensor& x, const std::optional<Tensor>& bias, double slope, double gain, double clamp, bool with_codes);

std::tuple<Tensor, Tensor> bias_leaky_relu_backward_cpu(
    const Tensor& grad, const Tensor& codes, double slope, double gain, std::optional<ScalarType> bias_dtype);

Tensor bias_leaky_relu_tangent_cpu(
    const Tensor& tangent_x, const std::optional<Tensor>& tangent_bias, const Tensor& codes, double slope, double gain);

std::tuple<Tensor, Tensor, Tensor> adversarial_cpu(
    const std::optional<Tensor>& real, const Tensor& fake, int64_t game, bool generator, double sign, double real_label,
    double fake_label, bool with_slopes);

std::tuple<Tensor, Tensor, Tensor> feature_distance_cpu(
    const Tensor& x, const Tensor& y, const std::optional<Tensor>& weight, int64_t power, bool normalize, double eps,
    bool relu_x, bool of_mean, bool with_x, bool with_y);

Tensor feature_distance_backward_cpu(const Tensor& direction, const Tensor& grad, bool of_mean);

void feature_distance_backward_cpu_(const Tensor& direction, const Tensor& grad, bool of_mean);

Tensor optimizer_step_cpu_(
    int64_t algorithm, const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
    const std::vector<Tensor>& first, const std::vector<Tensor>& second, const std::vector<Tensor>& third,
    const std::vector<Tensor>& averages, const std::vector<Tensor>& steps, const std::vector<double>& options,
    const std::optional<Tensor>& lr, const std::optional<Tensor>& grad_scale, const std::optional<Tensor>& found_inf,
    const std::optional<Tensor>& grad_norm, const std::optional<Tensor>& updates, bool with_statistics);

Tensor gradient_norm_cpu(const std::vector<Tensor>& grads);

std::string cpu_capability_name();

}  // namespace fastgan
