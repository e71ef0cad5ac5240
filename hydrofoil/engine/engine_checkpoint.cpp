#include "hydrofoil/engine/engine_checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <bit>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/checkpoint/save.h"
#include "hydrofoil/checkpoint/torch_dtype.h"

namespace hydrofoil::engine {
namespace {

using checkpoint::LoadedCheckpoint;
using checkpoint::ShardTensorRecord;
using zero::FlatGroup;
using zero::Range;

constexpr const char* kParameter = "parameter";
constexpr const char* kMaster = "master";

std::string state_kind(size_t index) { return detail::concat("optimizer_state_", index); }

// Flat order is memory order; it is the logical order where strides fall, which the manifest's ranges assume.
void check_row_major(const zero::ParameterSlot& slot) {
  HYDROFOIL_CHECK_ARG(
      slot.parameter.is_contiguous(), "checkpoint", "parameter ", slot.name,
      ": its memory is not row-major (channels_last or transposed), which checkpoints do not support yet; make it "
      "contiguous before initialize");
}

// Calls visit(slot, first element within the parameter, piece of `owned`) for what this rank owns of each parameter.
template <typename Visit>
void visit_pieces(const FlatGroup& group, const at::Tensor& owned, const Visit& visit) {
  for (const auto& slot : group.slots()) {
    check_row_major(slot);
    const Range part = zero::intersect({slot.offset, slot.offset + slot.numel}, group.owned());
    const int64_t begin = part.numel() > 0 ? part.begin - group.owned().begin : 0;
    visit(slot, part.numel() > 0 ? part.begin - slot.offset : 0, owned.narrow(0, begin, part.numel()));
  }
}

void add_records(std::vector<ShardTensorRecord>& records, const FlatGroup& group, const at::Tensor& owned,
                 const std::string& kind, bool writes) {
  visit_pieces(group, owned, [&](const zero::ParameterSlot& slot, int64_t offset, const at::Tensor& piece) {
    records.push_back({slot.name, kind, slot.parameter.sizes().vec(), writes ? offset : 0,
                       writes ? piece.cpu() : piece.narrow(0, 0, 0).cpu()});
  });
}

std::map<std::string, int64_t> counters_of(const Engine& engine) {
  const Counters& c = engine.counters();
  return {{"micro_steps", c.micro_steps},
          {"global_steps", c.global_steps},
          {"global_samples", c.global_samples},
          {"skipped_steps", c.skipped_steps},
          {"optimizer_steps", c.optimizer_steps}};
}

void save_scaler(const optim::LossScaler& scaler, std::map<std::string, int64_t>& counters) {
  const auto& state = scaler.state();
  counters["loss_scaler.scale_bits"] = std::bit_cast<int64_t>(state.scale);
  counters["loss_scaler.iteration"] = state.iteration;
  counters["loss_scaler.last_overflow_iteration"] = state.last_overflow_iteration;
  counters["loss_scaler.hysteresis_left"] = state.hysteresis_left;
}

int64_t counter(const LoadedCheckpoint& saved, const std::string& name) {
  const auto& counters = saved.scalars().counters;
  const auto found = counters.find(name);
  HYDROFOIL_CHECK_ARG(found != counters.end(), "load_checkpoint", saved.directory(), ": its manifest has no counter ",
                      name);
  return found->second;
}

// Reads this rank's elements of one kind; the stored dtype may differ from the engine's.
void read_group(LoadedCheckpoint& saved, const FlatGroup& group, const at::Tensor& owned, const std::string& kind,
                bool strict) {
  visit_pieces(group, owned, [&](const zero::ParameterSlot& slot, int64_t offset, at::Tensor piece) {
    if (!saved.contains(slot.name, kind)) {
      HYDROFOIL_CHECK_ARG(!strict, "load_checkpoint", saved.directory(), " has no ", kind, " of parameter ", slot.name);
      return;
    }
    const auto& stored = saved.tensor(slot.name, kind);
    HYDROFOIL_CHECK_ARG(at::IntArrayRef(stored.shape) == slot.parameter.sizes(), "load_checkpoint", "parameter ",
                        slot.name, ": got shape ", at::IntArrayRef(stored.shape), " in the checkpoint, the model has ",
                        slot.parameter.sizes());
    if (piece.numel() == 0) return;
    at::Tensor values = at::empty({piece.numel()}, at::TensorOptions().dtype(checkpoint::to_torch_dtype(stored.dtype)));
    saved.read_range(slot.name, kind, offset, piece.numel(), values);
    piece.copy_(values);
  });
}

}  // namespace

void save_engine(Engine& engine, const SaveRequest& request) {
  const at::NoGradGuard no_grad;
  zero::Runtime& runtime = engine.runtime();
  runtime.recover();
  const auto& sharding = runtime.sharding();
  const bool writes = sharding.optimizer_states || sharding.shard_rank == 0;
  std::vector<ShardTensorRecord> records;
  for (auto& unit : runtime.units()) {
    for (auto& group : unit->groups) {
      if (group->trainable() || !request.exclude_frozen)
        add_records(records, *group, group->owned_model(), kParameter, writes);
    }
    for (size_t b = 0; b < unit->buckets.size(); ++b) {
      const FlatGroup& group = unit->buckets[b]->group();
      if (group.has_master_copy()) add_records(records, group, group.owned_master(), kMaster, writes);
      for (size_t s = 0; s < unit->optimizer_states[b].size(); ++s) {
        add_records(records, group, unit->optimizer_states[b][s], state_kind(s), writes);
      }
    }
  }
  for (const auto& extra : request.extras) {
    records.push_back(
        {extra.name, extra.kind, extra.value.sizes().vec(), 0, extra.value.detach().cpu().contiguous().view({-1})});
  }
  checkpoint::ManifestScalars scalars;
  scalars.stage = engine.options().zero.stage;
  scalars.dtypes = {{"model", config::dtype_name(engine.options().model_dtype())}};
  scalars.counters = counters_of(engine);
  save_scaler(engine.loss_scaler(), scalars.counters);
  scalars.states = request.states;
  scalars.client_state = request.client_state;
  checkpoint::SaveOptions options;
  options.directory = request.directory;
  options.tag = request.tag;
  options.rank = runtime.gather_group().rank();
  options.world_size = runtime.gather_group().size();
  options.save_latest = request.save_latest;
  options.group = runtime.gather_group();
  checkpoint::save_shards(options, records, scalars);
}

void load_engine(Engine& engine, LoadedCheckpoint& saved, bool strict, bool load_optimizer_states) {
  const at::NoGradGuard no_grad;
  zero::Runtime& runtime = engine.runtime();
  runtime.recover();
  runtime.reducer().reset_window();
  runtime.gatherer().release_idle();
  int num_states = 0;
  for (const auto& tensor : saved.manifest().tensors) {
    for (int s = num_states; s < 8; ++s) {
      if (tensor.kind == state_kind(s)) num_states = s + 1;
    }
  }
  if (load_optimizer_states && engine.native_optimizer()) runtime.allocate_optimizer_states(num_states);
  std::vector<comm::Work> works;
  for (size_t u = 0; u < runtime.units().size(); ++u) {
    auto& unit = runtime.units()[u];
    for (auto& group : unit->groups) {
      read_group(saved, *group, group->owned_model(), kParameter, strict);
      works.push_back(group->start_publish(
          runtime.gather_group(), {unit->name, zero::op_signature(zero::OpKind::kPublish, static_cast<int64_t>(u))}));
      if (group->trainable()) group->refresh_master();
      group->bump_versions();
    }
    if (!load_optimizer_states) continue;
    for (size_t b = 0; b < unit->buckets.size(); ++b) {
      const FlatGroup& group = unit->buckets[b]->group();
      if (group.has_master_copy()) read_group(saved, group, group.owned_master(), kMaster, false);
      for (size_t s = 0; s < unit->optimizer_states[b].size(); ++s) {
        read_group(saved, group, unit->optimizer_states[b][s], state_kind(s), false);
      }
    }
  }
  for (auto& work : works) work.wait();
  if (!load_optimizer_states) return;
  engine.load_counters({counter(saved, "micro_steps"), counter(saved, "global_steps"), counter(saved, "global_samples"),
                        counter(saved, "skipped_steps"), counter(saved, "optimizer_steps")});
  engine.loss_scaler().load_state(
      {std::bit_cast<double>(counter(saved, "loss_scaler.scale_bits")), counter(saved, "loss_scaler.iteration"),
       counter(saved, "loss_scaler.last_overflow_iteration"), counter(saved, "loss_scaler.hysteresis_left")});
}

std::optional<at::Tensor> read_extra(LoadedCheckpoint& saved, const std::string& name, const std::string& kind) {
  if (!saved.contains(name, kind)) return std::nullopt;
  const auto& stored = saved.tensor(name, kind);
  at::Tensor value = at::empty(stored.shape, at::TensorOptions().dtype(checkpoint::to_torch_dtype(stored.dtype)));
  saved.read_range(name, kind, 0, value.numel(), value.view({-1}));
  return value;
}

}  // namespace hydrofoil::engine
