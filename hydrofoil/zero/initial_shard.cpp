#include "hydrofoil/zero/initial_shard.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/zero/unit.h"

namespace hydrofoil::zero {

// Holds no parameter: a parameter holds its shard (in Python's __dict__), and the two would never die.
struct InitialShard::Held {
  comm::Group group;
  std::shared_ptr<memory::Arena> arena;  // of zero.Init: this group's alone
  std::unique_ptr<FlatGroup> flat;
  bool of_engine = false;
  int holds = 0;
  bool written = false;  // by a modifier rank, since it was gathered

  ~Held() {
    if (of_engine) flat->abandon();  // the program has dropped the shards
  }
};

InitialShard::InitialShard(const at::Tensor& parameter, std::string name, const comm::Group& group,
                           std::optional<at::ScalarType> dtype)
    : held_(std::make_shared<Held>()) {
  const at::NoGradGuard no_grad;
  const auto stored = dtype && at::isFloatingType(parameter.scalar_type()) ? *dtype : parameter.scalar_type();
  const Sharding sharding = Sharding::of_stage(3, group.rank(), group.size(), 1);
  held_->group = group;
  held_->arena = memory::Arena::create(parameter.device(), 0);
  held_->flat = std::make_unique<FlatGroup>(name, std::vector<ParameterSlot>{{0, name, parameter}}, stored, false,
                                            sharding, group, held_->arena);
  at::Tensor values = values_in_memory_order(parameter);
  if (group.size() > 1 && values.numel() > 0)
    group.broadcast(values, 0, {name, op_signature(OpKind::kAccess, 0)}).wait();
  flat().adopt(0, values);
  flat().finish(group, false);
  flat().forget_parameters();
}

InitialShard::~InitialShard() = default;

std::vector<std::shared_ptr<InitialShard>> InitialShard::left_by_engine(std::unique_ptr<FlatGroup> flat,
                                                                        const comm::Group& group) {
  HYDROFOIL_ASSERT(flat->sharded(), flat->unit_name());
  flat->release();
  flat->drop_master();
  flat->forget_parameters();
  const size_t num_slots = flat->slots().size();
  auto held = std::make_shared<Held>();
  held->group = group;
  held->flat = std::move(flat);
  held->of_engine = true;
  std::vector<std::shared_ptr<InitialShard>> shards;
  for (size_t i = 0; i < num_slots; ++i) {
    shards.push_back(std::shared_ptr<InitialShard>(new InitialShard(held, i)));
  }
  return shards;
}

FlatGroup& InitialShard::flat() const { return *held_->flat; }

void InitialShard::gather() {
  HYDROFOIL_CHECK_ARG(held_ != nullptr, "GatheredParameters", "the parameter belongs to an engine now");
  if (held_->holds++ > 0 || !flat().sharded()) return;  // one rank shards nothing
  flat().start_gather(held_->group, {flat().unit_name(), op_signature(OpKind::kAccess, 1)});
  flat().finish_gather();
  flat().note_versions();
}

void InitialShard::release(std::optional<int> modifier_rank) {
  const at::NoGradGuard no_grad;
  if (held_ == nullptr) return;
  const comm::Group& group = held_->group;
  if (modifier_rank) {
    if (group.size() > 1 && slot().numel > 0) {
      group
          .broadcast(flat().full().narrow(0, slot().offset, slot().numel), *modifier_rank,
                     {slot().name, op_signature(OpKind::kAccess, 2)})
          .wait();
    }
    flat().write_back();
    held_->written = true;
  }
  if (--held_->holds > 0) return;
  if (std::exchange(held_->written, false) && flat().shared()) {
    group.barrier({flat().unit_name(), 0});  // every owner has written its slice
    flat().discard_writes();
  }
  const std::string lost = modifier_rank ? "" : flat().take_lost_write();
  flat().release();
  if (held_->arena != nullptr) held_->arena->trim();  // an arena each: none keeps the pages of a full parameter
  HYDROFOIL_CHECK_ARG(lost.empty(), "GatheredParameters", "parameter ", lost,
                      " was written without a modifier_rank; the change is lost. "
                      "Pass modifier_rank=R: what rank R wrote becomes every rank's value");
}

bool InitialShard::gathered() const { return held_ != nullptr && held_->holds > 0; }

bool InitialShard::alone() const { return held_ == nullptr || flat().slots().size() == 1; }

at::Tensor InitialShard::local() const {
  HYDROFOIL_CHECK_ARG(held_ != nullptr, "ds_tensor", "the parameter belongs to an engine now");
  const Range part = intersect({slot().offset, slot().offset + slot().numel}, flat().owned());
  const int64_t begin = part.numel() > 0 ? part.begin - flat().owned().begin : 0;
  return flat().owned_model().narrow(0, begin, std::max<int64_t>(part.numel(), 0));
}

void InitialShard::retire() {
  if (held_ == nullptr) return;
  if (--held_->holds == 0) flat().release();
  held_.reset();
}

}  // namespace hydrofoil::zero
