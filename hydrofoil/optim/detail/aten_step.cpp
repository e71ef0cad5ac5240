#include "hydrofoil/optim/detail/aten_step.h"

#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <c10/core/GradMode.h>

#include "hydrofoil/base/error.h"
#include "hydrofoil/kernels/stochastic_rounding.h"

namespace hydrofoil::optim::detail {
namespace {

// The slices of one parameter group's segments.
struct Slices {
  std::vector<at::Tensor> masters;
  std::vector<at::Tensor> gradients;            // fp32, scaled
  std::vector<std::vector<at::Tensor>> states;  // fp32
};

Slices slices_of_group(const ShardTensors& shard, std::span<const Segment> segments, int group, float gradient_scale) {
  Slices slices;
  slices.states.resize(shard.states.size());
  for (const Segment& segment : segments) {
    if (segment.group != group || segment.numel == 0) continue;
    slices.masters.push_back(shard.master.narrow(0, segment.offset, segment.numel));
    const at::Tensor gradient = shard.gradient.narrow(0, segment.offset, segment.numel);
    at::Tensor scaled = gradient.to(at::kFloat);
    // The gradient is read only: scale a copy, which the conversion may have made already.
    scaled = scaled.is_alias_of(gradient) ? scaled.mul(gradient_scale) : scaled.mul_(gradient_scale);
    slices.gradients.push_back(scaled);
    for (size_t i = 0; i < shard.states.size(); ++i) {
      slices.states[i].push_back(shard.states[i].narrow(0, segment.offset, segment.numel).to(at::kFloat));
    }
  }
  return slices;
}

// See NOTE [Stochastic rounding]: integers of 64 bits, of which the lower 32 count.
at::Tensor random_bits(const at::Tensor& x) {
  constexpr int64_t kLow = 0xFFFFFFFF;
  at::Tensor bits = x.bitwise_and(kLow);
  bits = bits.bitwise_xor(bits.bitwise_right_shift(16)).mul_(static_cast<int64_t>(kernels::kFirstFactor));
  bits = bits.bitwise_and_(kLow);
  bits = bits.bitwise_xor(bits.bitwise_right_shift(15)).mul_(static_cast<int64_t>(kernels::kSecondFactor));
  bits = bits.bitwise_and_(kLow);
  return bits.bitwise_xor(bits.bitwise_right_shift(16));
}

// fp32 to bf16, up where the dropped bits and `random`, 16 bits, make a carry.
at::Tensor round_state(const at::Tensor& values, const at::Tensor& random) {
  const at::Tensor bits = values.view(at::kInt).to(at::kLong).add_(random.mul(values.eq(values)));
  return bits.bitwise_right_shift(16).to(at::kShort).view(at::kBFloat16);
}

void store_low_states(const ShardTensors& shard, std::span<const Segment> segments, int group, const Slices& slices,
                      int64_t step) {
  const auto key = static_cast<int64_t>(kernels::rounding_key(step, shard.rounding.stream));
  size_t k = 0;
  for (const Segment& segment : segments) {
    if (segment.group != group || segment.numel == 0) continue;
    const int64_t first = key + shard.rounding.offset + segment.offset;
    const at::Tensor random = random_bits(
        at::arange(first, first + segment.numel, at::TensorOptions().dtype(at::kLong).device(shard.master.device())));
    for (size_t i = 0; i < shard.states.size(); ++i) {
      const at::Tensor half = i == 0 ? random.bitwise_right_shift(16) : random.bitwise_and(0xFFFF);
      shard.states[i].narrow(0, segment.offset, segment.numel).copy_(round_state(slices.states[i][k], half));
    }
    ++k;
  }
}

void adam(bool decoupled, Slices& slices, const Hyperparameters& group, int64_t step) {
  // Without bias correction the fused kernels get a step so late that both corrections are exactly 1.
  const double step_value = group.bias_correction ? static_cast<double>(step) : 1e30;
  const at::Tensor step_tensor = at::full({}, step_value, slices.masters[0].options());
  const std::vector<at::Tensor> steps(slices.masters.size(), step_tensor);
  if (decoupled) {
    at::_fused_adamw_(slices.masters, slices.gradients, slices.states[0], slices.states[1], {}, steps, group.lr,
                      group.beta1, group.beta2, group.weight_decay, group.eps, /*amsgrad=*/false, /*maximize=*/false);
  } else {
    at::_fused_adam_(slices.masters, slices.gradients, slices.states[0], slices.states[1], {}, steps, group.lr,
                     group.beta1, group.beta2, group.weight_decay, group.eps, /*amsgrad=*/false, /*maximize=*/false);
  }
}

void sgd(Slices& slices, const Hyperparameters& group, int64_t step) {
  std::vector<at::Tensor> momentum_buffers;
  if (group.momentum != 0) momentum_buffers = slices.states[0];
  at::_fused_sgd_(slices.masters, slices.gradients, momentum_buffers, group.weight_decay, group.momentum, group.lr,
                  group.dampening, group.nesterov, /*maximize=*/false, /*is_first_step=*/step == 1);
}

void adagrad(Slices& slices, const Hyperparameters& group) {
  for (size_t i = 0; i < slices.masters.size(); ++i) {
    at::Tensor& gradient = slices.gradients[i];
    at::Tensor& sum = slices.states[0][i];
    if (group.weight_decay != 0) gradient.add_(slices.masters[i], group.weight_decay);
    sum.addcmul_(gradient, gradient);
    slices.masters[i].addcdiv_(gradient, sum.sqrt().add_(group.eps), -group.lr);
  }
}

void lion(Slices& slices, const Hyperparameters& group) {
  for (size_t i = 0; i < slices.masters.size(); ++i) {
    const at::Tensor& gradient = slices.gradients[i];
    at::Tensor& average = slices.states[0][i];
    const at::Tensor direction = average.mul(group.beta1).add_(gradient, 1 - group.beta1).sign_();
    slices.masters[i].mul_(1 - group.lr * group.weight_decay).add_(direction, -group.lr);
    average.mul_(group.beta2).add_(gradient, 1 - group.beta2);
  }
}

}  // namespace

void aten_step(OptimizerKind kind, const ShardTensors& shard, std::span<const Segment> segments,
               std::span<const Hyperparameters> groups, int64_t step, float gradient_scale) {
  const c10::NoGradGuard no_grad;
  for (size_t index = 0; index < groups.size(); ++index) {
    Slices slices = slices_of_group(shard, segments, static_cast<int>(index), gradient_scale);
    if (slices.masters.empty()) continue;
    const Hyperparameters& group = groups[index];
    switch (kind) {
      case OptimizerKind::kAdam:
      case OptimizerKind::kAdamW:
        adam(kind == OptimizerKind::kAdamW, slices, group, step);
        break;
      case OptimizerKind::kSgd:
        sgd(slices, group, step);
        break;
      case OptimizerKind::kAdagrad:
        adagrad(slices, group);
        break;
      case OptimizerKind::kLion:
        lion(slices, group);
        break;
    }
    const bool low = !shard.states.empty() && shard.states[0].scalar_type() == at::kBFloat16;
    if (low) store_low_states(shard, segments, static_cast<int>(index), slices, step);
  }
  if (!shard.model.defined()) return;
  for (const Segment& segment : segments) {
    at::Tensor model = shard.model.narrow(0, segment.offset, segment.numel);
    model.copy_(shard.master.narrow(0, segment.offset, segment.numel));
  }
}

}  // namespace hydrofoil::optim::detail
