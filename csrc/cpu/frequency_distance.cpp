#include "frequency_distance_sweep.h"
#include "outputs.h"
#include "parallel.h"

namespace fastgan {
namespace {

// A block takes some microseconds; waking a thread pays off from four blocks on.
constexpr int64_t kGrainBlocks = 4;

void check_spectrum(const char* name, const Tensor& spectrum) {
  STD_TORCH_CHECK(
      spectrum.dim() == 6 && spectrum.size(5) == 2, name, " must have 6 dimensions, the last of 2 elements, got ",
      spectrum.dim());
  STD_TORCH_CHECK(spectrum.is_contiguous(), name, " must be contiguous");
}

Spectra spectra_of(const Tensor& spectrum, const std::optional<Tensor>& matrix, int64_t width) {
  check_spectrum("frequency_distance: spectrum", spectrum);
  const ScalarType dtype = spectrum.scalar_type();
  STD_TORCH_CHECK(
      dtype == ScalarType::Float || dtype == ScalarType::Double,
      "frequency_distance: spectrum must be float32 or float64");
  STD_TORCH_CHECK(
      width / 2 + 1 == spectrum.size(4), "frequency_distance: width must be that of the image, of whose spectrum ",
      spectrum.size(4), " columns are half, got ", width);
  Spectra spectra;
  spectra.data = spectrum.data_ptr();
  spectra.dtype = dtype_of(dtype);
  for (int i = 0; i < 3; ++i) spectra.planes[i] = spectrum.size(i);
  spectra.rows = spectrum.size(3);
  spectra.columns = spectrum.size(4);
  spectra.width = width;
  if (matrix) {
    bool fits = matrix->dim() == 5 && matrix->scalar_type() == dtype;
    for (int i = 0; fits && i < 5; ++i) fits = matrix->size(i) == spectrum.size(i);
    STD_TORCH_CHECK(fits, "frequency_distance: matrix must have the spectrum's sizes and dtype");
    STD_TORCH_CHECK(
        matrix->numel() == 0 || ((matrix->size(4) == 1 || matrix->stride(4) == 1) &&
                                 (matrix->size(3) == 1 || matrix->stride(3) == matrix->size(4))),
        "frequency_distance: matrix must be contiguous in its last two dimensions");
    spectra.matrix = matrix->data_ptr();
    for (int i = 0; i < 3; ++i) spectra.matrix_strides[i] = matrix->stride(i);
  }
  return spectra;
}

std::tuple<Tensor, Tensor> frequency_distance_cpu(
    const Tensor& spectrum, const std::optional<Tensor>& matrix, int64_t width, double alpha, bool log_matrix,
    bool batch_matrix) {
  FrequencyDistanceSweep sweep(spectra_of(spectrum, matrix, width), {alpha, log_matrix}, batch_matrix);
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.run(block); });
  const std::vector<double> values = sweep.maxima();
  const int64_t count = static_cast<int64_t>(values.size());
  const Dtype dtype = dtype_of(spectrum.scalar_type());
  Tensor loss = torch::stable::new_empty(spectrum, {}), maxima = torch::stable::new_empty(spectrum, {count});
  store(values.data(), maxima.data_ptr(), dtype, 1, count);
  const double value = sweep.loss();
  store(&value, loss.data_ptr(), dtype, 1, 1);
  return {loss, maxima};
}

Tensor frequency_distance_backward_cpu(
    const Tensor& spectrum, const Tensor& maxima, const std::optional<Tensor>& matrix, const Tensor& vectors,
    const Tensor& grad, int64_t width, double alpha, bool log_matrix) {
  const Spectra spectra = spectra_of(spectrum, matrix, width);
  check_spectrum("frequency_distance: vectors", vectors);
  check_same_layout("frequency_distance: vectors", vectors, "spectrum", spectrum);
  STD_TORCH_CHECK(
      vectors.scalar_type() == spectrum.scalar_type(), "frequency_distance: vectors must have the spectrum's dtype");
  const int64_t planes = spectra.planes[0] * spectra.planes[1] * spectra.planes[2];
  const bool of_batch = maxima.numel() == 1;
  const std::vector<double> values = numbers_in("frequency_distance: maxima", maxima, of_batch ? 1 : planes);
  const double elements = static_cast<double>(planes * spectra.rows * width);
  const double factor = 2 * numbers_in("frequency_distance: grad", grad, 1)[0] / elements;
  Tensor result = new_output(spectrum, spectrum.scalar_type());
  const FrequencyDistanceSweep sweep(spectra, {alpha, log_matrix}, of_batch);
  const void* const from = vectors.data_ptr();
  void* const to = result.data_ptr();
  for_all(sweep.blocks(), kGrainBlocks, [&](int64_t block) { sweep.differentiate(block, values, factor, from, to); });
  return result;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, library) {
  library.impl("frequency_distance", TORCH_BOX(&fastgan::frequency_distance_cpu));
  library.impl("frequency_distance_backward", TORCH_BOX(&fastgan::frequency_distance_backward_cpu));
}
