// The arithmetic of csrc/math as a Python module, so that pytest checks the same functions that the CPU and CUDA
// kernels call. Built by `make test`; not part of the wheel.
#include <pybind11/pybind11.h>

#include <tuple>

#include "../cpu/clones.h"
#include "../math/half.h"
#include "../math/yuv_l2.h"

PYBIND11_MODULE(fastgan_math, module) {
  module.def("border_ramp", &fastgan::border_ramp);
  module.def("yuv_l2_pixel", [](double r, double g, double b, double weight, double sy, double su, double sv) {
    const auto pixel = fastgan::yuv_l2_pixel<double>(r, g, b, weight, sy, su, sv);
    return std::make_tuple(
        std::make_tuple(pixel.squared_y, pixel.squared_u, pixel.squared_v),
        std::make_tuple(pixel.direction_r, pixel.direction_g, pixel.direction_b));
  });
  module.def("float_to_half_bits", [](float value) { return fastgan::to_float16(value).bits; });
  module.def("half_bits_to_float", [](uint16_t bits) { return fastgan::to_float(fastgan::Float16{bits}); });
  module.def("float_to_bfloat_bits", [](float value) { return fastgan::to_bfloat16(value).bits; });
  module.def("cpu_capability", &fastgan::cpu_capability);
}
