#include "hydrofoil/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hydrofoil/base/error.h"
#include "hydrofoil/kernels/optimizer_update.h"
#include "hydrofoil/kernels/stochastic_rounding.h"
#include "hydrofoil/kernels/torch_types.h"
#include "hydrofoil/optim/detail/aten_step.h"

namespace hydrofoil::optim {
namespace {

constexpr char kStepName[] = "optimizer_step";

kernels::UpdateRule update_rule(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::kAdam:
      return kernels::UpdateRule::kAdam;
    case OptimizerKind::kAdamW:
      return kernels::UpdateRule::kAdamW;
    case OptimizerKind::kSgd:
      return kernels::UpdateRule::kSgd;
    case OptimizerKind::kAdagrad:
      return kernels::UpdateRule::kAdagrad;
    case OptimizerKind::kLion:
      return kernels::UpdateRule::kLion;
  }
  HYDROFOIL_ASSERT(false, "unknown optimizer kind");
}

// Differences and quotients are taken in double and rounded once, as torch.optim's Python does.
kernels::UpdateCoefficients coefficients_of(OptimizerKind kind, const Hyperparameters& group, int64_t step) {
  const bool corrected = group.bias_correction && (kind == OptimizerKind::kAdam || kind == OptimizerKind::kAdamW);
  const double correction1 = corrected ? 1 - std::pow(group.beta1, static_cast<double>(step)) : 1;
  const double correction2 = corrected ? 1 - std::pow(group.beta2, static_cast<double>(step)) : 1;
  const bool decoupled = kind == OptimizerKind::kAdamW || kind == OptimizerKind::kLion;
  return {.step_size = static_cast<float>(group.lr / correction1),
          .weight_decay = static_cast<float>(group.weight_decay),
          .decay_factor = decoupled ? static_cast<float>(1 - group.lr * group.weight_decay) : 1.0f,
          .beta1 = static_cast<float>(group.beta1),
          .one_minus_beta1 = static_cast<float>(1 - group.beta1),
          .beta2 = static_cast<float>(group.beta2),
          .one_minus_beta2 = static_cast<float>(1 - group.beta2),
          .bias_correction2_sqrt = static_cast<float>(std::sqrt(correction2)),
          .eps = static_cast<float>(group.eps),
          .momentum = static_cast<float>(group.momentum),
          .one_minus_dampening = static_cast<float>(1 - group.dampening),
          .nesterov = group.nesterov,
          .first_step = step == 1};
}

void check_tensor(const at::Tensor& tensor, const char* what, const at::Tensor& master) {
  HYDROFOIL_CHECK_ARG(tensor.defined(), kStepName, what, ": got an undefined tensor, expected ", master.numel(),
                      " elements");
  HYDROFOIL_CHECK_ARG(tensor.dim() == 1 && tensor.is_contiguous(), kStepName, what, ": got shape ", tensor.sizes(),
                      tensor.is_contiguous() ? "" : " (not contiguous)", ", expected 1-D and contiguous");
  HYDROFOIL_CHECK_ARG(tensor.numel() == master.numel(), kStepName, what, ": got ", tensor.numel(),
                      " elements, expected ", master.numel(), " as in master");
  HYDROFOIL_CHECK_ARG(tensor.device() == master.device(), kStepName, what, ": got device ", tensor.device(),
                      ", expected ", master.device(), " as of master");
}

void check_fp32(const at::Tensor& tensor, const char* what) {
  HYDROFOIL_CHECK_ARG(tensor.scalar_type() == at::kFloat, kStepName, what, ": got dtype ", tensor.scalar_type(),
                      ", expected Float");
}

void check_shard(OptimizerKind kind, const ShardTensors& shard, std::span<const Hyperparameters> groups) {
  check_tensor(shard.master, "master", shard.master);
  check_fp32(shard.master, "master");
  check_tensor(shard.gradient, "gradient", shard.master);
  static_cast<void>(kernels::element_type(shard.gradient.scalar_type()));
  const size_t needed = state_names(kind, groups).size();
  HYDROFOIL_CHECK_ARG(shard.states.size() == needed || shard.states.size() == state_names(kind).size(), kStepName,
                      "states: got ", shard.states.size(), ", expected ", needed);
  for (const at::Tensor& state : shard.states) {
    check_tensor(state, "state", shard.master);
    const at::ScalarType dtype = state.scalar_type();
    HYDROFOIL_CHECK_ARG((dtype == at::kFloat || dtype == at::kBFloat16) && dtype == shard.states[0].scalar_type(),
                        kStepName, "state: got dtype ", dtype, ", expected Float or BFloat16, the same of all states");
  }
  if (!shard.model.defined()) return;
  check_tensor(shard.model, "model", shard.master);
  const at::ScalarType dtype = shard.model.scalar_type();
  HYDROFOIL_CHECK_ARG(dtype == at::kBFloat16 || dtype == at::kHalf, kStepName, "model: got dtype ", dtype,
                      ", expected BFloat16 or Half");
}

void check_segments(std::span<const Segment> segments, size_t num_groups, int64_t numel) {
  std::vector<std::pair<int64_t, int64_t>> ranges;
  ranges.reserve(segments.size());
  for (const Segment& segment : segments) {
    HYDROFOIL_CHECK_ARG(segment.offset >= 0 && segment.numel >= 0 && segment.offset <= numel - segment.numel, kStepName,
                        "segment: got offset ", segment.offset, " and numel ", segment.numel,
                        ", expected a range within ", numel, " elements");
    HYDROFOIL_CHECK_ARG(segment.group >= 0 && static_cast<size_t>(segment.group) < num_groups, kStepName,
                        "segment's group: got ", segment.group, ", expected 0 to ", num_groups, " (excluded)");
    if (segment.numel > 0) ranges.emplace_back(segment.offset, segment.offset + segment.numel);
  }
  if (!std::is_sorted(ranges.begin(), ranges.end())) std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    HYDROFOIL_CHECK_ARG(ranges[i - 1].second <= ranges[i].first, kStepName,
                        "segments: got ranges that overlap at element ", ranges[i].first, ", expected disjoint ones");
  }
}

void cpu_step(OptimizerKind kind, const ShardTensors& shard, std::span<const Segment> segments,
              std::span<const Hyperparameters> groups, int64_t step, float gradient_scale) {
  std::vector<kernels::UpdateCoefficients> coefficients;
  coefficients.reserve(groups.size());
  for (const Hyperparameters& group : groups) coefficients.push_back(coefficients_of(kind, group, step));
  std::vector<kernels::UpdateRun> runs;
  runs.reserve(segments.size());
  for (const Segment& segment : segments) {
    if (segment.numel > 0) runs.push_back({segment.offset, segment.numel, coefficients[segment.group]});
  }
  if (runs.empty()) return;
  kernels::UpdateBuffers buffers;
  buffers.master = shard.master.mutable_data_ptr<float>();
  if (!shard.states.empty()) {
    buffers.first = shard.states[0].mutable_data_ptr();
    buffers.state_type = kernels::element_type(shard.states[0].scalar_type());
    buffers.rounding_key = kernels::rounding_key(step, shard.rounding.stream);
    buffers.first_index = shard.rounding.offset;
  }
  if (shard.states.size() > 1) buffers.second = shard.states[1].mutable_data_ptr();
  buffers.gradient = shard.gradient.const_data_ptr();
  buffers.gradient_type = kernels::element_type(shard.gradient.scalar_type());
  if (shard.model.defined()) {
    buffers.model = shard.model.mutable_data_ptr();
    buffers.model_type = kernels::element_type(shard.model.scalar_type());
  }
  kernels::optimizer_update(update_rule(kind), buffers, runs, gradient_scale);
}

}  // namespace

void optimizer_step(OptimizerKind kind, const ShardTensors& shard, std::span<const Segment> segments,
                    std::span<const Hyperparameters> groups, int64_t step, float gradient_scale) {
  HYDROFOIL_CHECK_ARG(step >= 1, kStepName, "step: got ", step, ", expected at least 1");
  check_shard(kind, shard, groups);
  check_segments(segments, groups.size(), shard.master.numel());
  if (shard.master.is_cpu()) {
    cpu_step(kind, shard, segments, groups, step, gradient_scale);
  } else {
    detail::aten_step(kind, shard, segments, groups, step, gradient_scale);
  }
}

}  // namespace hydrofoil::optim
