#include "hydrofoil/zero/initial_shard.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "hydrofoil/base/error.h"
#include "hydrofoil/zero/unit.h"

namespace hydrofoil::zero {

InitialShard::InitialShard(const at::Tensor& parameter, std::string name, const comm::Group& group,
                           std::optional<at::ScalarType> dtype)
    : name_(std::move(name)), group_(group) {
  const at::NoGradGuard no_grad;
  const auto stored = dtype && at::isFloatingType(parameter.scalar_type()) ? *dtype : parameter.scalar_type();
  const Sharding sharding = Sharding::of_stage(3, group.rank(), group.size(), 1);
  arena_ = memory::Arena::create(parameter.device(), 0);
  flat_ = std::make_unique<FlatGroup>(name_, std::vector<ParameterSlot>{{0, name_, parameter}}, stored, false, sharding,
                                      group_, arena_);
  at::Tensor values = values_in_memory_order(parameter);
  if (group.size() > 1 && values.numel() > 0)
    group.broadcast(values, 0, {name_, op_signature(OpKind::kAccess, 0)}).wait();
  flat_->adopt(0, values);
  flat_->finish(group_, false);
}

InitialShard::~InitialShard() = default;

void InitialShard::gather() {
  HYDROFOIL_CHECK_ARG(flat_ != nullptr, "GatheredParameters", "parameter ", name_, " belongs to an engine now");
  if (holds_++ > 0 || !flat_->sharded()) return;
  flat_->start_gather(group_, {name_, op_signature(OpKind::kAccess, 1)});
  flat_->finish_gather();
  flat_->note_versions();
}

void InitialShard::release(std::optional<int> modifier_rank) {
  const at::NoGradGuard no_grad;
  if (flat_ == nullptr || --holds_ > 0) return;
  const bool lost = !modifier_rank && flat_->sharded() && flat_->modified_outside();
  if (modifier_rank) {
    if (group_.size() > 1)
      group_.broadcast(flat_->full(), *modifier_rank, {name_, op_signature(OpKind::kAccess, 2)}).wait();
    flat_->write_back();
  }
  flat_->release();
  arena_->trim();  // each of these has an arena of its own: none keeps the pages of a full parameter
  HYDROFOIL_CHECK_ARG(!lost, "GatheredParameters", "parameter ", name_,
                      " was written without a modifier_rank; the change is lost. "
                      "Pass modifier_rank=R: what rank R wrote becomes every rank's value");
}

at::Tensor InitialShard::local() const {
  HYDROFOIL_CHECK_ARG(flat_ != nullptr, "ds_tensor", "parameter ", name_, " belongs to an engine now");
  const Range part = intersect({0, flat_->slots()[0].numel}, flat_->owned());
  return flat_->owned_model().narrow(0, 0, std::max<int64_t>(part.numel(), 0));
}

void InitialShard::retire() {
  flat_.reset();
  arena_.reset();
}

}  // namespace hydrofoil::zero
