#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "hydrofoil/base/error.h"
#include "hydrofoil/zero/runtime.h"

// What the runtime keeps of parameters while they are frozen.
namespace hydrofoil::zero {

Range Runtime::aside_range(int64_t parameter) const {
  const int64_t numel = parameters_.at(parameter).parameter.numel();
  const int64_t slice = (numel + num_aside_slices() - 1) / num_aside_slices();
  const int64_t begin = num_aside_slices() > 1 ? std::min(options_.sharding.shard_rank * slice, numel) : 0;
  return {begin, std::min(begin + slice, numel)};
}

void Runtime::set_aside(int64_t parameter, const std::vector<at::Tensor>& tensors) {
  const at::NoGradGuard no_grad;
  aside_.erase(parameter);
  if (tensors.empty()) return;
  const at::Tensor& shape = parameters_.at(parameter).parameter;
  const int64_t slice = (shape.numel() + num_aside_slices() - 1) / num_aside_slices();
  auto& kept = aside_[parameter];
  for (const auto& tensor : tensors) {
    HYDROFOIL_ASSERT(tensor.numel() == aside_range(parameter).numel(), parameters_[parameter].name);
    const auto dtype = kept.empty() ? at::kFloat : options_.sharding.optimizer_state_dtype;  // the first is the master
    kept.push_back(at::zeros({slice}, at::TensorOptions().dtype(dtype).device(shape.device())));
    kept.back().narrow(0, 0, tensor.numel()).copy_(tensor);
  }
}

std::vector<Runtime::Aside> Runtime::aside() const {
  std::vector<Aside> result;
  for (const auto& [parameter, tensors] : aside_) {
    const Range mine = aside_range(parameter);
    result.push_back({parameter, mine.begin, {}});
    for (const auto& tensor : tensors) result.back().tensors.push_back(tensor.narrow(0, 0, mine.numel()));
  }
  return result;
}

void Runtime::put_aside(int64_t parameter, std::vector<at::Tensor> tensors) {
  const Range mine = aside_range(parameter);
  for (auto& tensor : tensors) tensor = values_in_memory_order(tensor).narrow(0, mine.begin, mine.numel());
  set_aside(parameter, tensors);
}

std::vector<at::Tensor> Runtime::take_back(int64_t parameter) {
  std::vector<at::Tensor> tensors = std::move(aside_.extract(parameter).mapped());
  const at::Tensor& shape = parameters_[parameter].parameter;
  for (auto& tensor : tensors) {
    if (options_.sharding.optimizer_states) {
      at::Tensor full = at::empty({tensor.numel() * options_.sharding.num_shards}, tensor.options());
      gather_group_.all_gather(tensor, full, {parameters_[parameter].name, op_signature(OpKind::kAccess, parameter)})
          .wait();
      tensor = full;
    }
    tensor = tensor.as_strided(shape.sizes(), shape.strides(), 0);
  }
  return tensors;
}

void Runtime::set_missed_steps(std::vector<int64_t> missed_steps) {
  require_alive("set_missed_steps");
  HYDROFOIL_CHECK_ARG(missed_steps.size() == parameters_.size(), "set_missed_steps", "got ", missed_steps.size(),
                      " counts, expected one for each of the ", parameters_.size(), " parameters");
  for (const int64_t count : missed_steps) {
    HYDROFOIL_CHECK_ARG(count >= 0, "set_missed_steps", "got a count of ", count, ", expected at least 0");
  }
  missed_steps_ = std::move(missed_steps);
  for (auto& unit : units_) {
    for (auto& group : unit->groups) {
      std::vector<int64_t> of_group;
      for (const auto& slot : group->slots()) of_group.push_back(missed_steps_[slot.index]);
      group->set_missed_steps(of_group);
    }
  }
}

void Runtime::count_missed_steps() {
  for (const auto& unit : units_) {
    for (const auto& group : unit->groups) {
      if (group->trainable()) continue;
      for (const auto& slot : group->slots()) ++missed_steps_[slot.index];
    }
  }
}

}  // namespace hydrofoil::zero
