#pragma once

#include "host_device.h"

// What the structural similarity of two windows x and y loses against 1, in terms of m = (x + y) / 2 and d = (x - y)
// / 2. With means M, D and variances V_m, V_d, of which SSIM needs no more than these four,
//
//     1 - luminance = 2 D^2 / (M^2 + D^2 + C1 / 2),    1 - contrast = 2 V_d / (V_m + V_d + C2 / 2)
//
// Both are exactly 0 where x = y, and have no cancellation close to that, where 1 minus the usual quotients has.
namespace fastgan {

template <typename T>
struct SsimConstants {
  T half_c1, half_c2;
  T offset_m, offset_d;  // subtracted from m and d: means and gradients of flat areas lose no digits
  T luminance;           // 1, or 0 for the contrast alone
};

// 1 - similarity, and its derivatives with respect to the window's means of m, d, m^2 and d^2, all less the offsets.
// Variances are computed otherwise, but as functions of these means their derivatives are those of E[m^2] - E[m]^2.
template <typename T>
struct SsimPixel {
  T loss, slope_m, slope_d, slope_mm, slope_dd;
};

// `mean_*` are the window's means of m - offset_m and d - offset_d.
template <typename T>
FASTGAN_HOST_DEVICE SsimPixel<T> ssim_pixel(
    T mean_m, T mean_d, T variance_m, T variance_d, const SsimConstants<T>& constants) {
  const T m = mean_m + constants.offset_m, d = mean_d + constants.offset_d;
  const T luminance_scale = 1 / (m * m + d * d + constants.half_c1);
  const T contrast_scale = 1 / (variance_m + variance_d + constants.half_c2);
  const T slope = 2 * constants.luminance * d * luminance_scale;
  const T lost_luminance = slope * d, lost_contrast = 2 * variance_d * contrast_scale;
  const T luminance = 1 - lost_luminance, contrast = 1 - lost_contrast;
  SsimPixel<T> pixel;
  pixel.loss = lost_luminance + luminance * lost_contrast;
  pixel.slope_mm = -luminance * lost_contrast * contrast_scale;
  pixel.slope_dd = luminance * (1 + contrast) * contrast_scale;
  pixel.slope_m = -2 * (contrast * m * lost_luminance * luminance_scale + mean_m * pixel.slope_mm);
  pixel.slope_d = contrast * slope * (1 + luminance) - 2 * mean_d * pixel.slope_dd;
  return pixel;
}

}  // namespace fastgan
