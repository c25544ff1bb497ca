// The CUDA kernels of the optimizers' step and their launches. What each thread computes is in optimizer_blocks.h.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "../optimizer_arguments.h"
#include "../stable_cuda.h"
#include "optimizer_blocks.h"

namespace fastgan {
namespace {

// Tensors per launch: as many as fit in a kernel's parameters. Few tensors use the short form, which reaches the device
// sooner.
#ifdef FASTGAN_SMALL_LAUNCHES  // tests: small inputs need several launches, and several rounds per block
constexpr int kShortCapacity = 2, kLongCapacity = 5, kBlocks = 8;
#else
constexpr int kShortCapacity = 32, kLongCapacity = 400, kBlocks = 1024;
#endif
constexpr int kSums = 3;

__device__ double sum_of_warp(double value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  return value;
}

// The sum over the block's threads, always in the same order; valid in thread 0.
__device__ double sum_of_block(double value) {
  __shared__ double warp_sums[blocks::kThreads / 32];
  __syncthreads();
  value = sum_of_warp(value);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x < 32) value = sum_of_warp(threadIdx.x < blocks::kThreads / 32 ? warp_sums[threadIdx.x] : 0.0);
  return value;
}

// Whether all other blocks have called this before; if so, what they wrote before is visible.
__device__ bool is_last_to_arrive(unsigned* arrivals) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(arrivals, 1u) == gridDim.x - 1;
    if (is_last) *arrivals = 0;  // for the next launch
  }
  __syncthreads();
  __threadfence();
  return is_last;
}

template <typename J>
__device__ void write_partial_sum(const J& job, int which, double thread_sum) {
  const double sum = sum_of_block(thread_sum);
  if (threadIdx.x == 0) job.partial_sums[kSums * int64_t(blockIdx.x) + which] = sum;
}

// The sum over all blocks and previous launches; valid in thread 0.
template <typename J>
__device__ double total(const J& job, int which) {
  double sum = 0;
  for (int64_t block = threadIdx.x; block < gridDim.x; block += blocks::kThreads) {
    sum += job.partial_sums[kSums * block + which];
  }
  sum = sum_of_block(sum);
  return job.adds_to_sums ? job.sums[which] + sum : sum;
}

// Blocks that a multiprocessor holds at once: as many as possible without spilling registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define FASTGAN_STEPS_AT_ONCE(has_halves) 3
#else
#define FASTGAN_STEPS_AT_ONCE(has_halves) (has_halves ? 3 : 4)
#endif

template <typename J>
__global__ void __launch_bounds__(blocks::kThreads, FASTGAN_STEPS_AT_ONCE(J::kHasHalves))
    step_kernel(const __grid_constant__ J job) {
  __shared__ blocks::Shared shared;
  const blocks::Place place = blocks::place_of(job, blockIdx.x);
  blocks::Vector vector = {};
  blocks::Sums sums;
  blocks::start(job, place, threadIdx.x, vector);
  if (threadIdx.x % 32 == 0) blocks::read(job, place, threadIdx.x / 32, shared);
  __syncthreads();
  if (blocks::applies(shared) || job.sums) {
    if (threadIdx.x == 0) blocks::prepare(job, shared);
    __syncthreads();
    blocks::finish(job, place, shared, threadIdx.x, job.sums != nullptr, vector, sums);
    // No other block reads the step: count it up here.
    if (!job.arrivals && place.is_first && threadIdx.x == 0) blocks::count_step(job, place.tensor);
  }
  if (!job.arrivals) return;
  if (job.sums) {
    const double scale = shared.readings[blocks::kGradScale];
    write_partial_sum(job, 0, sums.grad_square);
    if (threadIdx.x == 0) job.partial_sums[kSums * int64_t(blockIdx.x)] /= scale * scale;
    write_partial_sum(job, 1, sums.weight_square);
    write_partial_sum(job, 2, sums.at_bound);
  }
  if (!is_last_to_arrive(job.arrivals)) return;
  for (int which = 0; job.sums && which < kSums; ++which) {
    const double sum = total(job, which);
    if (threadIdx.x == 0) job.sums[which] = sum;
  }
  if (!blocks::applies(shared)) return;
  for (int tensor = threadIdx.x; tensor < job.tensors; tensor += blocks::kThreads) blocks::count_step(job, tensor);
  if (threadIdx.x == 0 && job.updates && job.is_last && job.numbers.counts_update != 0) ++*job.updates;
}

template <typename J>
__global__ void __launch_bounds__(blocks::kThreads) norm_kernel(const __grid_constant__ J job, float* norm) {
  const blocks::Place place = blocks::place_of(job, blockIdx.x);
  write_partial_sum(job, 0, blocks::square_part(job, place, threadIdx.x));
  if (!is_last_to_arrive(job.arrivals)) return;
  const double sum = total(job, 0);
  if (threadIdx.x != 0) return;
  job.sums[0] = sum;
  if (job.is_last) *norm = static_cast<float>(sqrt(sum));
}

// --- on the host -----------------------------------------------------------------------------------------------------

struct Request {
  const std::vector<Tensor>&params, &grads, &first, &second, &third, &averages, &steps;
};

std::string device_name(const Tensor& tensor) {
  if (tensor.is_cuda()) return "GPU " + std::to_string(tensor.get_device_index());
  return tensor.is_cpu() ? "the CPU" : "another device";
}

// Kernels would read another GPU's memory, or crash.
void check_device(const char* name, const Tensor& tensor, const Tensor& first) {
  STD_TORCH_CHECK(
      tensor.device() == first.device(), "optimizer_step: ", name, " is on ", device_name(tensor),
      ", but the first parameter on ", device_name(first));
}

void check_devices(const Request& r) {
  const auto check = [&](const char* name, const std::vector<Tensor>& tensors) {
    for (const Tensor& tensor : tensors) {
      if (tensor.numel()) check_device(name, tensor, r.params[0]);  // an empty tensor stands for none
    }
  };
  check("a parameter", r.params);
  check("a gradient", r.grads);
  for (const auto* states : {&r.first, &r.second, &r.third}) check("a state", *states);
  check("an average", r.averages);
  check("a step", r.steps);
}

blocks::Scalar scalar_of(const char* name, const std::optional<Tensor>& tensor, const Tensor& first) {
  if (!tensor) return {nullptr, Dtype::kFloat32};
  check_device(name, *tensor, first);
  check_count(name, *tensor, 1);
  return {tensor->data_ptr(), dtype_of(tensor->scalar_type())};
}

blocks::Entry entry_of(const Request& r, size_t i) {
  blocks::Entry entry;
  entry.parameter = array_of(r.params, i);
  entry.grad = array_of(r.grads, i);
  entry.states[0] = array_of(r.first, i);
  entry.states[1] = array_of(r.second, i);
  entry.states[2] = array_of(r.third, i);
  entry.average = array_of(r.averages, i);
  entry.step = i < r.steps.size() ? r.steps[i].data_ptr() : nullptr;
  entry.count = r.params[i].numel();
  return entry;
}

blocks::Types types_of(const Request& r, size_t i, const blocks::Entry& entry) {
  blocks::Types types;
  types.parameter = static_cast<uint8_t>(dtype_at(r.params, i));
  types.grad = static_cast<uint8_t>(dtype_at(r.grads, i));
  types.state = static_cast<uint8_t>(dtype_at(r.first, i));
  types.average = static_cast<uint8_t>(dtype_at(r.averages, i));
  types.step = static_cast<uint8_t>(dtype_at(r.steps, i));
  const auto is_half = [](const void* data, uint8_t type) { return !data || size_of(static_cast<Dtype>(type)) == 2; };
  types.all_are_halves = is_half(entry.parameter, types.parameter) && is_half(entry.grad, types.grad) &&
                         is_half(entry.average, types.average);
  for (const void* state : entry.states) types.all_are_halves &= is_half(state, types.state);
  return types;
}

bool has_halves(const Request& r) {
  for (const auto* tensors : {&r.params, &r.grads, &r.first, &r.averages}) {
    for (const Tensor& tensor : *tensors) {
      if (size_of(dtype_of(tensor.scalar_type())) == 2) return true;
    }
  }
  return false;
}

// Fills the job with tensors from index `from` on, as many as fit; returns the index after the last one.
template <typename J>
size_t fill(J& job, const Request& request, size_t from, int64_t elements_per_block) {
  const size_t end = std::min(request.params.size(), from + J::kCapacity);
  job.tensors = static_cast<int>(end - from);
  job.first_tensor = static_cast<int>(from);
  job.elements_per_block = elements_per_block;
  job.first_blocks[0] = 0;
  for (size_t i = from; i < end; ++i) {
    job.entries[i - from] = entry_of(request, i);
    job.types[i - from] = types_of(request, i, job.entries[i - from]);
    // An empty tensor gets a block too, so that its step is counted.
    const int64_t parts =
        std::max<int64_t>(1, (request.params[i].numel() + elements_per_block - 1) / elements_per_block);
    job.first_blocks[i - from + 1] = job.first_blocks[i - from] + static_cast<uint32_t>(parts);
  }
  job.is_last = end == request.params.size();
  job.adds_to_sums = from > 0;
  return end;
}

// Large enough to leave some eight blocks per multiprocessor: more would cost time, since each block first computes its
// constants.
int64_t elements_per_block(const Request& request) {
  int64_t elements = 0;
  for (const Tensor& parameter : request.params) elements += parameter.numel();
  const int64_t rounds = elements / (kBlocks * blocks::kRound);
  return blocks::kRound * std::min<int64_t>(8, std::max<int64_t>(1, rounds));
}

int64_t blocks_at_most(const Request& request, int64_t elements_per_block) {
  int64_t blocks = 0;
  for (const Tensor& parameter : request.params) blocks += 1 + parameter.numel() / elements_per_block;
  return blocks;
}

// Memory through which blocks pass their sums to the last one: the counter of arrivals, sums, and partial sums.
class Scratch {
 public:
  Scratch(const Tensor& like, int64_t blocks, bool with_sums, cudaStream_t stream) {
    const std::vector<int64_t> size = {1 + (with_sums ? kSums * (blocks + 1) : 0)};
    memory_ = torch::stable::new_empty(like, size, ScalarType::Double);
    set_zero("optimizer_step", memory_->data_ptr(), sizeof(unsigned), stream);
  }
  unsigned* arrivals() { return static_cast<unsigned*>(memory_->data_ptr()); }
  double* sums() { return static_cast<double*>(memory_->data_ptr()) + 1; }
  double* partial_sums() { return sums() + kSums; }

 private:
  std::optional<Tensor> memory_;
};

// Repeatedly fills the job with as many tensors as fit, and calls body(blocks).
template <typename J, typename Body>
void for_jobs(J& job, const Request& request, Body body) {
  const int64_t part = elements_per_block(request);
  for (size_t from = 0; from < request.params.size();) {
    from = fill(job, request, from, part);
    body(job.first_blocks[job.tensors]);
  }
}

// The limit on the size of a kernel's parameters, from CUDA 12.1 on.
constexpr size_t kParameterBytes = 32764;

template <bool kHasHalves, typename Body>
void with_capacity(size_t tensors, Body body) {
  static_assert(sizeof(blocks::Job<kLongCapacity, kHasHalves>) + sizeof(float*) <= kParameterBytes);
  if (tensors <= kShortCapacity) {
    body(blocks::Job<kShortCapacity, kHasHalves>());
  } else {
    body(blocks::Job<kLongCapacity, kHasHalves>());
  }
}

// Calls body(job) with a short job if the tensors fit, else with a long one.
template <typename Body>
void with_job(const Request& request, Body body) {
  if (has_halves(request)) {
    with_capacity<true>(request.params.size(), body);
  } else {
    with_capacity<false>(request.params.size(), body);
  }
}

Tensor optimizer_step_cuda_(
    int64_t algorithm, const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
    const std::vector<Tensor>& first, const std::vector<Tensor>& second, const std::vector<Tensor>& third,
    const std::vector<Tensor>& averages, const std::vector<Tensor>& steps, const std::vector<double>& options,
    const std::optional<Tensor>& lr, const std::optional<Tensor>& grad_scale, const std::optional<Tensor>& found_inf,
    const std::optional<Tensor>& grad_norm, const std::optional<Tensor>& updates, bool with_statistics) {
  check_sizes(params, steps, {grads, first, second, third, averages});
  const torch::stable::accelerator::DeviceGuard guard(params[0].get_device_index());
  const cudaStream_t stream = current_cuda_stream(params[0]);
  check_complete(static_cast<Algorithm>(algorithm), params, grads, first, second, with_statistics);
  const std::vector<int64_t> size = {with_statistics ? kSums : 0};
  Tensor result = torch::stable::new_empty(params[0], size, ScalarType::Double);
  const Request request = {params, grads, first, second, third, averages, steps};
  check_devices(request);
  if (updates) {
    check_device("updates", *updates, params[0]);
    check_integer("updates", *updates);
  }
  const StepNumbers numbers = step_numbers(options);
  const bool counts = updates && numbers.counts_update != 0;
  // Where blocks read a counter (the step for Adam's correction and the seed of stochastic rounding, the updates for
  // the average's warm-up), only the last block to finish may increase it.
  const bool rounds = numbers.rounding_seed >= 0 && has_halves(request);
  const bool has_last = with_statistics || counts || rounds || static_cast<Algorithm>(algorithm) == Algorithm::kAdam;
  std::optional<Scratch> scratch;
  if (has_last) {
    scratch.emplace(params[0], blocks_at_most(request, elements_per_block(request)), with_statistics, stream);
  }
  with_job(request, [&](auto job) {
    job.algorithm = static_cast<Algorithm>(algorithm);
    job.numbers = numbers;
    job.lr = scalar_of("lr", lr, params[0]);
    job.grad_scale = scalar_of("grad_scale", grad_scale, params[0]);
    job.found_inf = scalar_of("found_inf", found_inf, params[0]);
    job.grad_norm = scalar_of("grad_norm", grad_norm, params[0]);
    job.updates = updates ? static_cast<int64_t*>(updates->data_ptr()) : nullptr;
    job.arrivals = has_last ? scratch->arrivals() : nullptr;
    job.partial_sums = with_statistics ? scratch->partial_sums() : nullptr;
    job.sums = with_statistics ? static_cast<double*>(result.data_ptr()) : nullptr;
    for_jobs(job, request, [&](uint32_t count) {
      launch("optimizer step", step_kernel<decltype(job)>, count, blocks::kThreads, stream, job);
    });
  });
  return result;
}

Tensor gradient_norm_cuda(const std::vector<Tensor>& grads) {
  STD_TORCH_CHECK(!grads.empty(), "gradient_norm: there are no gradients");
  const torch::stable::accelerator::DeviceGuard guard(grads[0].get_device_index());
  const cudaStream_t stream = current_cuda_stream(grads[0]);
  const std::vector<int64_t> scalar;
  const std::vector<Tensor> none;
  Tensor norm = torch::stable::new_empty(grads[0], scalar, ScalarType::Float);
  const Request request = {grads, grads, none, none, none, none, none};
  check_devices(request);
  Scratch scratch(grads[0], blocks_at_most(request, elements_per_block(request)), true, stream);
  with_job(request, [&](auto job) {
    job.arrivals = scratch.arrivals();
    job.partial_sums = scratch.partial_sums();
    job.sums = scratch.sums();
    for_jobs(job, request, [&](uint32_t count) {
      launch(
          "gradient norm", norm_kernel<decltype(job)>, count, blocks::kThreads, stream, job,
          static_cast<float*>(norm.data_ptr()));
    });
  });
  return norm;
}

}  // namespace
}  // namespace fastgan

FASTGAN_CUDA_OPERATORS(library) {
  library.impl("optimizer_step_", TORCH_BOX(&fastgan::optimizer_step_cuda_));
  library.impl("gradient_norm", TORCH_BOX(&fastgan::gradient_norm_cuda));
}
