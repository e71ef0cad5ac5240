#include "hydrofoil/engine/engine_checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <bit>
#include <exception>
#include <filesystem>
#include <set>

#include "hydrofoil/base/error.h"
#include "hydrofoil/checkpoint/agreement.h"
#include "hydrofoil/checkpoint/save.h"
#include "hydrofoil/checkpoint/tags.h"
#include "hydrofoil/checkpoint/torch_dtype.h"
#include "hydrofoil/storage/safetensors.h"

namespace hydrofoil::engine {
namespace {

using checkpoint::LoadedCheckpoint;
using checkpoint::ShardTensorRecord;
using zero::FlatGroup;
using zero::Range;

constexpr const char* kParameter = "parameter";
constexpr const char* kMaster = "master";
constexpr const char* kOptimizer = "optimizer";

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

// Whether the checkpoint has the parameter, in the shape that the engine has.
bool is_stored(const LoadedCheckpoint& saved, const zero::ParameterSlot& slot, const std::string& kind, bool strict) {
  if (!saved.contains(slot.name, kind)) {
    HYDROFOIL_CHECK_ARG(!strict, "load_checkpoint", saved.directory(), " has no ", kind, " of parameter ", slot.name);
    return false;
  }
  const auto& stored = saved.tensor(slot.name, kind);
  HYDROFOIL_CHECK_ARG(at::IntArrayRef(stored.shape) == slot.parameter.sizes(), "load_checkpoint", "parameter ",
                      slot.name, ": got shape ", at::IntArrayRef(stored.shape), " in the checkpoint, the model has ",
                      slot.parameter.sizes());
  return true;
}

// Reads this rank's elements of one kind; the stored dtype may differ from the engine's.
void read_group(LoadedCheckpoint& saved, const FlatGroup& group, const at::Tensor& owned, const std::string& kind,
                bool strict) {
  visit_pieces(group, owned, [&](const zero::ParameterSlot& slot, int64_t offset, at::Tensor piece) {
    if (!is_stored(saved, slot, kind, strict) || piece.numel() == 0) return;
    const auto stored_dtype = checkpoint::to_torch_dtype(saved.tensor(slot.name, kind).dtype);
    at::Tensor values = at::empty({piece.numel()}, at::TensorOptions().dtype(stored_dtype));
    saved.read_range(slot.name, kind, offset, piece.numel(), values);
    piece.copy_(values);
  });
}

// What wrote the optimizer states, as a JSON text; "" where there is no optimizer.
std::string optimizer_text(const Engine& engine, const std::string& client_optimizer) {
  const auto kind = engine.native_optimizer();
  if (!kind && client_optimizer.empty()) return "";
  if (!kind) return detail::concat(R"({"kind": ")", client_optimizer, R"(", "client": true})");
  std::string names;
  for (const auto& name : optim::state_names(*kind)) {
    names += detail::concat(names.empty() ? "\"" : ", \"", name, '"');
  }
  return detail::concat(R"({"kind": ")", optim::optimizer_name(*kind), R"(", "states": [)", names, "]}");
}

// Files of before say nothing of their optimizer.
void check_optimizer(const Engine& engine, const LoadedCheckpoint& saved, const std::string& client_optimizer) {
  const auto found = saved.scalars().states.find(kOptimizer);
  if (found == saved.scalars().states.end()) return;
  const std::string own = optimizer_text(engine, client_optimizer);
  HYDROFOIL_CHECK_ARG(found->second == own, "load_checkpoint", "optimizer: got states of ", found->second, " in ",
                      saved.directory(), ", the engine has ", own,
                      "; pass load_optimizer_states=False to load the parameters alone");
}

// Everything that can be known to be wrong before a value changes.
void check_loadable(Engine& engine, const LoadedCheckpoint& saved, bool strict, bool load_optimizer_states) {
  std::set<std::string> known;
  for (auto& unit : engine.runtime().units()) {
    for (auto& group : unit->groups) {
      for (const auto& slot : group->slots()) {
        check_row_major(slot);
        (void)is_stored(saved, slot, kParameter, strict);
        if (load_optimizer_states && group->has_master_copy()) (void)is_stored(saved, slot, kMaster, false);
        known.insert(slot.name);
      }
    }
  }
  for (const auto& tensor : saved.manifest().tensors) {
    HYDROFOIL_CHECK_ARG(!strict || tensor.kind != kParameter || known.contains(tensor.parameter), "load_checkpoint",
                        saved.directory(), " has a parameter ", tensor.parameter, " that the model has not");
  }
  if (!load_optimizer_states) return;
  for (const char* name :
       {"micro_steps", "global_steps", "global_samples", "skipped_steps", "optimizer_steps", "loss_scaler.scale_bits",
        "loss_scaler.iteration", "loss_scaler.last_overflow_iteration", "loss_scaler.hysteresis_left"}) {
    (void)counter(saved, name);
  }
}

int num_states(const LoadedCheckpoint& saved) {
  constexpr int kMaxStates = 8;
  int count = 0;
  for (const auto& tensor : saved.manifest().tensors) {
    for (int s = count; s < kMaxStates; ++s) {
      if (tensor.kind == state_kind(s)) count = s + 1;
    }
  }
  return count;
}

// This rank's shards; no communication.
void read_shards(Engine& engine, LoadedCheckpoint& saved, bool strict, bool load_optimizer_states) {
  for (auto& unit : engine.runtime().units()) {
    for (auto& group : unit->groups) {
      read_group(saved, *group, group->owned_model(), kParameter, strict);
      if (group->trainable()) group->refresh_master();
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
}

}  // namespace

void save_engine(Engine& engine, const SaveRequest& request) {
  const at::NoGradGuard no_grad;
  zero::Runtime& runtime = engine.runtime();
  runtime.require_alive("save_checkpoint");
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
  const std::string optimizer = optimizer_text(engine, request.client_optimizer);
  if (!optimizer.empty()) scalars.states[kOptimizer] = optimizer;
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

void load_engine(Engine& engine, LoadedCheckpoint& saved, bool strict, bool load_optimizer_states,
                 const std::string& client_optimizer) {
  const at::NoGradGuard no_grad;
  zero::Runtime& runtime = engine.runtime();
  const comm::Group& group = runtime.gather_group();
  checkpoint::run_together(group, "load_checkpoint: check", [&] {
    check_loadable(engine, saved, strict, load_optimizer_states);
    if (load_optimizer_states) check_optimizer(engine, saved, client_optimizer);
  });
  runtime.recover();
  runtime.reducer().reset_window();
  runtime.gatherer().release_idle();
  if (load_optimizer_states && engine.native_optimizer()) runtime.allocate_optimizer_states(num_states(saved));
  checkpoint::run_together(group, "load_checkpoint: read",
                           [&] { read_shards(engine, saved, strict, load_optimizer_states); });
  runtime.publish_parameters();
  if (!load_optimizer_states) return;
  engine.load_counters({counter(saved, "micro_steps"), counter(saved, "global_steps"), counter(saved, "global_samples"),
                        counter(saved, "skipped_steps"), counter(saved, "optimizer_steps")});
  engine.loss_scaler().load_state(
      {std::bit_cast<double>(counter(saved, "loss_scaler.scale_bits")), counter(saved, "loss_scaler.iteration"),
       counter(saved, "loss_scaler.last_overflow_iteration"), counter(saved, "loss_scaler.hysteresis_left")});
}

std::optional<LoadedCheckpoint> open_checkpoint(Engine& engine, const std::string& directory,
                                                const std::optional<std::string>& tag) {
  engine.runtime().require_alive("load_checkpoint");
  const comm::Group& group = engine.runtime().gather_group();
  std::optional<LoadedCheckpoint> saved;
  checkpoint::run_together(group, "load_checkpoint: open", [&] {
    if (tag || checkpoint::latest_tag(directory)) saved.emplace(checkpoint::load_shards(directory, tag));
  });
  at::Tensor found = at::empty({1}, at::kLong).fill_(saved ? 1 : 0);
  if (group.size() > 1) group.all_reduce(found, comm::ReduceOp::kSum, {"load_checkpoint: found", 1}).wait();
  const int64_t num_found = found.data_ptr<int64_t>()[0];
  HYDROFOIL_CHECK_ARG(num_found == 0 || num_found == group.size(), "load_checkpoint", "'", directory, "': only ",
                      num_found, " of ", group.size(), " ranks see the file 'latest'; all need the same file system");
  return saved;
}

void agree(Engine& engine, const std::optional<std::string>& own_error, const std::string& what) {
  engine.runtime().require_alive(what.c_str());
  std::exception_ptr error;
  if (own_error) error = std::make_exception_ptr(InvalidArgument(*own_error));
  checkpoint::agree(engine.runtime().gather_group(), error, what);
}

void save_model(Engine& engine, const std::string& path, const std::vector<ExtraTensor>& buffers, bool exclude_frozen) {
  const at::NoGradGuard no_grad;
  zero::Runtime& runtime = engine.runtime();
  runtime.require_alive("save_16bit_model");
  std::exception_ptr error;
  std::optional<storage::SafetensorsWriter> writer;
  // The other ranks go on gathering whatever rank 0 meets; all learn of it at the end.
  const auto on_writer = [&](const auto& action) {
    if (runtime.gather_group().rank() != 0 || error) return;
    try {
      action();
    } catch (...) {
      error = std::current_exception();
    }
  };
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    on_writer([&] { writer->add(name, checkpoint::to_storage_dtype(tensor.scalar_type()), tensor.sizes().vec()); });
  };
  const auto write = [&](const std::string& name, const at::Tensor& tensor) {
    on_writer([&] {
      const at::Tensor values = tensor.detach().cpu().contiguous();
      writer->write(name, values.const_data_ptr(), static_cast<int64_t>(values.nbytes()));
    });
  };
  const auto wanted = [&](const zero::RuntimeParameter& info) {
    return !exclude_frozen || info.parameter.requires_grad();
  };
  on_writer([&] {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    writer.emplace(path);
    writer->set_metadata("format", "pt");
  });
  for (const auto& info : runtime.parameters()) {
    if (wanted(info)) add(info.name, info.parameter);
  }
  for (const auto& buffer : buffers) add(buffer.name, buffer.value);
  for (const auto& unit : runtime.units()) {
    const auto versions = runtime.enter_access(unit->parameters);
    for (const int64_t p : unit->parameters) {
      const auto& info = runtime.parameters()[p];
      if (wanted(info)) write(info.name, info.parameter);
    }
    runtime.leave_access(unit->parameters, versions, std::nullopt);
  }
  for (const auto& buffer : buffers) write(buffer.name, buffer.value);
  on_writer([&] { writer->finish(); });
  checkpoint::agree(runtime.gather_group(), error, "save_16bit_model");
}

std::optional<at::Tensor> read_extra(LoadedCheckpoint& saved, const std::string& name, const std::string& kind) {
  if (!saved.contains(name, kind)) return std::nullopt;
  const auto& stored = saved.tensor(name, kind);
  at::Tensor value = at::empty(stored.shape, at::TensorOptions().dtype(checkpoint::to_torch_dtype(stored.dtype)));
  saved.read_range(name, kind, 0, value.numel(), value.view({-1}));
  return value;
}

}  // namespace hydrofoil::engine
