#include "hydrofoil/kernels/optimizer_update.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/kernels/detail/isa_kernels.h"

namespace hydrofoil::kernels {
namespace {

// Elements below which a second thread costs more than it saves.
constexpr int64_t kGrain = 32768;
// A model copy from this size on leaves no room in a second-level cache, so it is streamed.
constexpr int64_t kStreamBytes = int64_t{1} << 20;

void check(UpdateRule rule, const UpdateBuffers& buffers, std::span<const UpdateRun> runs) {
  const char* const name = "optimizer_update";
  const bool is_adam = rule == UpdateRule::kAdam || rule == UpdateRule::kAdamW;
  bool needs_first = rule != UpdateRule::kSgd;
  for (const UpdateRun& run : runs) {
    HYDROFOIL_CHECK_ARG(run.offset >= 0 && run.numel >= 0, name, "run: got offset ", run.offset, " and numel ",
                        run.numel, ", expected both at least 0");
    needs_first = needs_first || run.coefficients.momentum != 0;
  }
  HYDROFOIL_CHECK_ARG(buffers.master != nullptr && buffers.gradient != nullptr, name,
                      "master and gradient: got a null pointer, expected memory");
  HYDROFOIL_CHECK_ARG(!needs_first || buffers.first != nullptr, name, "first state: got none, expected memory");
  HYDROFOIL_CHECK_ARG(is_adam == (buffers.second != nullptr), name, "second state: got ",
                      is_adam ? "none, expected memory" : "memory, expected none for this rule");
  HYDROFOIL_CHECK_ARG(buffers.model == nullptr || buffers.model_type != ElementType::kFloat32, name,
                      "model copy: got a 32-bit type, expected bfloat16 or float16");
  HYDROFOIL_CHECK_ARG(buffers.state_type != ElementType::kFloat16, name,
                      "states: got float16, expected float32 or bfloat16");
}

// `data` from an element on; null stays null.
void* at_element(void* data, ElementType type, int64_t index) {
  return data == nullptr ? nullptr : static_cast<char*>(data) + index * element_bytes(type);
}

detail::UpdateArguments arguments_of(const UpdateBuffers& buffers, const UpdateRun& run, int64_t begin, int64_t end) {
  const int64_t offset = run.offset + begin;
  return {.master = buffers.master + offset,
          .first = at_element(buffers.first, buffers.state_type, offset),
          .second = at_element(buffers.second, buffers.state_type, offset),
          .gradient = static_cast<const char*>(buffers.gradient) + offset * element_bytes(buffers.gradient_type),
          .model = at_element(buffers.model, buffers.model_type, offset),
          .numel = end - begin,
          .state_type = buffers.state_type,
          .gradient_type = buffers.gradient_type,
          .model_type = buffers.model_type,
          .gradient_scale = 1,
          .stream_model = false,
          .random_base = buffers.rounding_key + static_cast<uint32_t>(buffers.first_index + offset),
          .coefficients = &run.coefficients};
}

}  // namespace

void optimizer_update(UpdateRule rule, const UpdateBuffers& buffers, std::span<const UpdateRun> runs,
                      float gradient_scale, CpuIsa isa) {
  std::vector<int64_t> ends;  // of each run, in elements of all runs put end to end
  ends.reserve(runs.size());
  int64_t total = 0;
  for (const UpdateRun& run : runs) ends.push_back(total += std::max<int64_t>(run.numel, 0));
  if (total == 0 && buffers.master == nullptr) return;
  check(rule, buffers, runs);
  const detail::IsaKernels& kernels = detail::isa_kernels(isa);
  const bool stream = buffers.model != nullptr && total * element_bytes(buffers.model_type) >= kStreamBytes;
  at::parallel_for(0, total, kGrain, [&](int64_t begin, int64_t end) {
    size_t index = std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin();
    for (int64_t position = begin; position < end; ++index) {
      const UpdateRun& run = runs[index];
      const int64_t run_begin = ends[index] - run.numel;
      const int64_t stop = std::min(end, ends[index]);
      detail::UpdateArguments arguments = arguments_of(buffers, run, position - run_begin, stop - run_begin);
      arguments.gradient_scale = gradient_scale;
      arguments.stream_model = stream;
      kernels.optimizer_update(rule, arguments);
      position = stop;
    }
  });
}

}  // namespace hydrofoil::kernels
