#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/zeros.h>

#include <set>

#include "hydrofoil/base/error.h"
#include "hydrofoil/zero/runtime.h"

// What a program reads and writes of sharded state between steps: parameters, masters, gradients, optimizer states.
namespace hydrofoil::zero {
namespace {

// A gathered copy of a tensor of which each rank holds its slice.
at::Tensor gather_owned(const at::Tensor& owned, const FlatGroup& group, const comm::Group& channel) {
  if (owned.numel() == group.padded_numel()) return owned;
  at::Tensor full = at::empty({group.padded_numel()}, owned.options());
  channel.all_gather(owned.contiguous(), full, {"assemble", op_signature(OpKind::kAccess, group.padded_numel())})
      .wait();
  return full;
}

// The elements of a slot that this rank owns, of a tensor over the group's owned slice.
at::Tensor part_of(const at::Tensor& owned, const FlatGroup& group, size_t slot_number) {
  const auto& slot = group.slots()[slot_number];
  const Range part = intersect({slot.offset, slot.offset + slot.numel}, group.owned());
  if (part.numel() <= 0) return owned.narrow(0, 0, 0);
  return owned.narrow(0, part.begin - group.owned().begin, part.numel());
}

}  // namespace

std::vector<int> Runtime::units_of(const std::vector<int64_t>& parameters) const {
  std::set<int> units;
  for (const int64_t p : parameters) units.insert(places_.at(p).unit);
  return {units.begin(), units.end()};
}

std::vector<int64_t> Runtime::enter_access(const std::vector<int64_t>& parameters) {
  require_alive("GatheredParameters");
  recover();
  for (const int u : units_of(parameters)) {
    gatherer_->hold(u);
    // Inside forward what is computed with them needs them again in backward.
    if (gatherer_->in_forward() && at::GradMode::is_enabled()) gatherer_->access(u);
  }
  // A rank that has what it wants must not leave before the others have.
  if (!gatherer_->in_forward()) gatherer_->meet("GatheredParameters");
  std::vector<int64_t> versions;
  for (const int64_t p : parameters) versions.push_back(static_cast<int64_t>(parameters_[p].parameter._version()));
  return versions;
}

std::vector<bool> Runtime::share_written(const std::vector<int64_t>& parameters, const std::vector<int64_t>& versions,
                                         int modifier_rank) {
  at::Tensor flags = at::zeros({static_cast<int64_t>(parameters.size())}, at::kLong);
  auto* flag = flags.data_ptr<int64_t>();
  for (size_t i = 0; i < parameters.size(); ++i) {
    flag[i] = static_cast<int64_t>(parameters_[parameters[i]].parameter._version()) != versions.at(i) ? 1 : 0;
  }
  if (gather_group_.size() > 1) {
    gather_group_.broadcast(flags, modifier_rank, {"written parameters", op_signature(OpKind::kControl, 2)}).wait();
  }
  return std::vector<bool>(flag, flag + parameters.size());
}

void Runtime::leave_access(const std::vector<int64_t>& parameters, const std::vector<int64_t>& versions,
                           std::optional<int> modifier_rank) {
  const at::NoGradGuard no_grad;
  require_alive("GatheredParameters");
  std::string modified;
  for (size_t i = 0; i < parameters.size() && options_.sharding.parameters && !modifier_rank; ++i) {
    const auto& info = parameters_[parameters[i]];
    if (static_cast<int64_t>(info.parameter._version()) != versions.at(i)) modified = info.name;
  }
  if (modifier_rank) {
    const std::vector<bool> written = share_written(parameters, versions, *modifier_rank);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const int64_t p = parameters[i];
      const Place& place = places_[p];
      const FlatGroup& group = *units_[place.unit]->groups[place.group];
      const auto& slot = group.slots()[place.slot];
      if (gather_group_.size() == 1 || slot.numel == 0) continue;
      gather_group_
          .broadcast(group.full().narrow(0, slot.offset, slot.numel), *modifier_rank,
                     {slot.name, op_signature(OpKind::kAccess, p)})
          .wait();
      // A graph from before the write must not be run on any rank.
      if (written[i] && gather_group_.rank() != *modifier_rank) slot.parameter.unsafeGetTensorImpl()->bump_version();
    }
  }
  for (const int u : units_of(parameters)) {
    for (auto& group : units_[u]->groups) {
      if (modifier_rank) group->write_back();
      if (!modified.empty() && group->sharded()) group->note_versions();
    }
  }
  if (modifier_rank) synchronize_parameters();
  for (const int u : units_of(parameters)) {
    for (auto& group : units_[u]->groups) {
      if (modifier_rank || group->sharded()) group->discard_writes();
    }
    gatherer_->drop(u);
  }
  HYDROFOIL_CHECK_ARG(modified.empty(), "GatheredParameters", "parameter ", modified,
                      " was written without a modifier_rank; the change is lost when it is released. Pass "
                      "modifier_rank=R: what rank R wrote becomes every rank's value");
}

Runtime::Place Runtime::place_with_states(int64_t parameter, const char* function) const {
  require_alive(function);
  const Place& place = places_.at(parameter);
  HYDROFOIL_CHECK_ARG(place.bucket >= 0, function, "parameter ", parameters_[parameter].name,
                      " is frozen: it has no fp32 master, gradient or optimizer state");
  return place;
}

at::Tensor Runtime::assemble(int64_t parameter, const OwnedTensor& select) {
  const at::NoGradGuard no_grad;
  const Place place = place_with_states(parameter, "safe_get_full");
  Unit& unit = *units_[place.unit];
  const FlatGroup& group = *unit.groups[place.group];
  const auto& slot = group.slots()[place.slot];
  const at::Tensor full = gather_owned(select(unit, place.bucket), group, gather_group_);
  const at::Tensor piece =
      full.narrow(0, slot.offset, slot.numel).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  return piece.as_strided(slot.parameter.sizes(), slot.parameter.strides(), 0);
}

void Runtime::scatter(int64_t parameter, const OwnedTensor& select, const at::Tensor& value) {
  const at::NoGradGuard no_grad;
  const Place place = place_with_states(parameter, "safe_set_full");
  Unit& unit = *units_[place.unit];
  const FlatGroup& group = *unit.groups[place.group];
  const auto& slot = group.slots()[place.slot];
  HYDROFOIL_CHECK_ARG(value.sizes() == slot.parameter.sizes(), "safe_set_full", "parameter ", slot.name, ": got shape ",
                      value.sizes(), ", expected ", slot.parameter.sizes());
  at::Tensor ordered =
      at::empty_strided(slot.parameter.sizes(), slot.parameter.strides(), value.options().dtype(at::kFloat));
  ordered.copy_(value);
  const Range part = intersect({slot.offset, slot.offset + slot.numel}, group.owned());
  if (part.numel() == 0) return;
  select(unit, place.bucket)
      .narrow(0, part.begin - group.owned().begin, part.numel())
      .copy_(ordered.as_strided({slot.numel}, {1}, 0).narrow(0, part.begin - slot.offset, part.numel()));
}

at::Tensor Runtime::local(int64_t parameter, const OwnedTensor& select) {
  const Place place = place_with_states(parameter, "safe_get_local");
  Unit& unit = *units_[place.unit];
  return part_of(select(unit, place.bucket), *unit.groups[place.group], place.slot);
}

at::Tensor Runtime::local_parameter(int64_t parameter) const {
  require_alive("ds_tensor");
  const Place& place = places_.at(parameter);
  const FlatGroup& group = *units_[place.unit]->groups[place.group];
  return part_of(group.owned_model(), group, place.slot);
}

FlatGroup::State Runtime::state_of(int64_t parameter) const {
  require_alive("ds_status");
  const Place& place = places_.at(parameter);
  return units_[place.unit]->groups[place.group]->state();
}

at::Tensor Runtime::local_reduced_gradient(int64_t parameter) {
  require_alive("safe_get_local_grad");
  const Place& place = places_.at(parameter);
  if (place.bucket < 0 || units_[place.unit]->buckets[place.bucket]->state() != GradientBucket::State::kReduced) {
    return {};
  }
  return local(parameter, [](Unit& unit, size_t b) { return unit.buckets[b]->owned_gradient(); });
}

std::optional<at::Tensor> Runtime::reduced_gradient(int64_t parameter) {
  require_alive("safe_get_full_grad");
  const Place& place = places_.at(parameter);
  if (place.bucket < 0) return std::nullopt;
  if (units_[place.unit]->buckets[place.bucket]->state() != GradientBucket::State::kReduced) return std::nullopt;
  return assemble(parameter, [](Unit& unit, size_t b) { return unit.buckets[b]->owned_gradient(); });
}

void Runtime::set_reduced_gradient(int64_t parameter, const at::Tensor& value) {
  const Place place = place_with_states(parameter, "safe_set_full_grad");
  HYDROFOIL_CHECK_ARG(
      units_[place.unit]->buckets[place.bucket]->state() == GradientBucket::State::kReduced, "safe_set_full_grad",
      "parameter ", parameters_[parameter].name,
      ": no reduced gradient to replace; call it between the backward of an accumulation boundary and step");
  scatter(
      parameter, [](Unit& unit, size_t b) { return unit.buckets[b]->owned_gradient(); }, value);
}

void Runtime::release_retained() {
  require_alive("empty_partition_cache");
  gatherer_->release_retained();
}

void Runtime::set_local_master(int64_t parameter, const at::Tensor& value) {
  const at::NoGradGuard no_grad;
  const OwnedTensor master = [](Unit& unit, size_t b) { return unit.buckets[b]->group().owned_master(); };
  const Place place = place_with_states(parameter, "safe_set_local_fp32_param");
  const FlatGroup& group = *units_[place.unit]->groups[place.group];
  const at::Tensor part = local(parameter, master);
  HYDROFOIL_CHECK_ARG(value.numel() == part.numel(), "safe_set_local_fp32_param", "parameter ",
                      parameters_[parameter].name, ": got ", value.numel(), " elements, expected this rank's ",
                      part.numel());
  if (!group.sharded()) {  // one rank: its part is everything
    const at::Tensor& whole = parameters_[parameter].parameter;
    set_master(parameter, value.reshape({-1}).as_strided(whole.sizes(), whole.strides()));
    return;
  }
  gatherer_->release_retained();
  synchronize_parameters();
  part.copy_(value.reshape({-1}));
  if (group.has_master_copy()) group.owned_model().copy_(group.owned_master());
  synchronize_parameters();
}

void Runtime::set_master(int64_t parameter, const at::Tensor& value) {
  const at::NoGradGuard no_grad;
  const Place place = place_with_states(parameter, "safe_set_full_fp32_param");
  FlatGroup& group = *units_[place.unit]->groups[place.group];
  gatherer_->release_retained();
  synchronize_parameters();
  if (!group.sharded() && group.modified_outside()) group.write_back();
  scatter(
      parameter, [](Unit& unit, size_t b) { return unit.buckets[b]->group().owned_master(); }, value);
  if (group.has_master_copy()) group.owned_model().copy_(group.owned_master());
  if (!group.sharded()) group.slots()[place.slot].parameter.detach().copy_(value);
  group.note_versions();
  synchronize_parameters();
}

}  // namespace hydrofoil::zero
