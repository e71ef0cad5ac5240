#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/zero/runtime.h"

// Parameters that freeze and thaw: new layouts of their units, and what is kept of them meanwhile.
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

void Runtime::regroup() {
  require_optimizer_groups();
  log_info("requires_grad of some parameters has changed: their units are laid out anew");
  gatherer_->release_idle();
  hooks_.clear();
  for (size_t u = 0; u < units_.size(); ++u) {
    const bool changed = std::any_of(units_[u]->parameters.begin(), units_[u]->parameters.end(), [&](int64_t p) {
      return parameters_[p].parameter.requires_grad() != units_[u]->groups[places_[p].group]->trainable();
    });
    if (changed) regroup_unit(u);
  }
  install_hooks();
  gatherer_->retain(retained_budget_);
}

void Runtime::regroup_unit(size_t u) {
  const at::NoGradGuard no_grad;
  Unit& unit = *units_[u];
  std::map<int64_t, std::vector<at::Tensor>> kept;  // master and states of the parameters that were trainable
  for (const int64_t p : unit.parameters) {
    if (places_[p].bucket < 0) continue;
    auto& tensors = kept[p];
    tensors.push_back(assemble(p, [](Unit& owner, size_t b) { return owner.buckets[b]->group().owned_master(); }));
    for (size_t s = 0; s < unit.optimizer_states[places_[p].bucket].size(); ++s) {
      tensors.push_back(assemble(p, [s](Unit& owner, size_t b) { return owner.optimizer_states[b][s]; }));
    }
  }
  gatherer_->hold(static_cast<int>(u));
  const auto old_groups = std::move(unit.groups);
  unit.groups.clear();
  unit.buckets.clear();
  unit.optimizer_states.clear();
  build_unit(u);
  for (const auto& group : old_groups) group->release();
  gatherer_->forget(static_cast<int>(u));
  allocate_optimizer_states(num_states_);
  for (auto& [p, tensors] : kept) {
    if (places_[p].bucket < 0) {
      put_aside(p, std::move(tensors));
    } else {
      restore(p, tensors);
    }
  }
  for (const int64_t p : unit.parameters) {
    if (places_[p].bucket >= 0 && aside_.count(p) != 0) restore(p, take_back(p));
  }
}

void Runtime::restore(int64_t parameter, const std::vector<at::Tensor>& tensors) {
  const auto master = [](Unit& owner, size_t b) { return owner.buckets[b]->group().owned_master(); };
  const Place& place = places_[parameter];
  // A master that still rounds to the parameter's value is the better one; what was written meanwhile wins over it.
  const at::Tensor value = assemble(parameter, master);
  const auto dtype = units_[place.unit]->groups[place.group]->dtype();
  scatter(parameter, master, at::where(tensors[0].to(dtype).to(at::kFloat).eq(value), tensors[0], value));
  for (size_t s = 0; s + 1 < tensors.size(); ++s) {
    scatter(
        parameter, [s](Unit& owner, size_t b) { return owner.optimizer_states[b][s]; }, tensors[s + 1]);
  }
}

}  // namespace hydrofoil::zero
