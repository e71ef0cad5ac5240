#include "hydrofoil/engine/engine_checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <bit>
#include <exception>
#include <filesystem>
#include <set>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/checkpoint/agreement.h"
#include "hydrofoil/checkpoint/save.h"
#include "hydrofoil/checkpoint/tags.h"
#include "hydrofoil/memory/torch_dtype.h"
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
constexpr int kMaxStates = 8;

std::string state_kind(size_t index) { return detail::concat("optimizer_state_", index); }

// Flat order is memory order; it is the logical order where strides fall, which the manifest's ranges assume.
void check_row_major(const zero::ParameterSlot& slot) {
  HYDROFOIL_CHECK_ARG(
      slot.parameter.is_contiguous(), "checkpoint", "parameter ", slot.name,
      ": its memory is not row-major (channels_last or transposed), which checkpoints do not support yet; make it "
      "contiguous before initialize");
}

// A run of a parameter's elements that this rank owns, and where it lies in the group's owned tensors.
struct Piece {
  int64_t offset = 0;  // in the parameter
  int64_t begin = 0;   // in an owned tensor
  int64_t numel = 0;

  [[nodiscard]] at::Tensor of(const at::Tensor& owned) const { return owned.narrow(0, begin, numel); }
};

// Calls visit(slot, piece) for what this rank owns of each parameter, which may be nothing.
template <typename Visit>
void visit_pieces(const FlatGroup& group, const Visit& visit) {
  for (const auto& slot : group.slots()) {
    check_row_major(slot);
    const Range part = zero::intersect({slot.offset, slot.offset + slot.numel}, group.owned());
    visit(slot,
          part.numel() > 0 ? Piece{part.begin - slot.offset, part.begin - group.owned().begin, part.numel()} : Piece{});
  }
}

ShardTensorRecord record_of(const std::string& name, const std::string& kind, at::IntArrayRef shape, int64_t offset,
                            const at::Tensor& values, bool writes) {
  return {name, kind, shape.vec(), writes ? offset : 0, writes ? values.cpu() : values.narrow(0, 0, 0).cpu()};
}

void add_records(std::vector<ShardTensorRecord>& records, const FlatGroup& group, const at::Tensor& owned,
                 const std::string& kind, bool writes) {
  visit_pieces(group, [&](const zero::ParameterSlot& slot, const Piece& piece) {
    records.push_back(record_of(slot.name, kind, slot.parameter.sizes(), piece.offset, piece.of(owned), writes));
  });
}

// Masters and states of frozen parameters, kept for when they thaw.
void add_aside(std::vector<ShardTensorRecord>& records, const zero::Runtime& runtime, bool writes) {
  for (const auto& aside : runtime.aside()) {
    const auto& info = runtime.parameters()[aside.parameter];
    for (size_t t = 0; t < aside.tensors.size(); ++t) {
      if (t == 0 && info.parameter.scalar_type() == at::kFloat) continue;  // it is the parameter
      records.push_back(record_of(info.name, t == 0 ? kMaster : state_kind(t - 1), info.parameter.sizes(), aside.offset,
                                  aside.tensors[t], writes));
    }
  }
}

std::string missed_steps_counter(const std::string& parameter) { return "missed_steps." + parameter; }

std::map<std::string, int64_t> counters_of(Engine& engine) {
  const Counters& c = engine.counters();
  zero::Runtime& runtime = engine.runtime();
  std::map<std::string, int64_t> result{{"micro_steps", c.micro_steps},
                                        {"global_steps", c.global_steps},
                                        {"global_samples", c.global_samples},
                                        {"skipped_steps", c.skipped_steps},
                                        {"optimizer_steps", c.optimizer_steps}};
  for (size_t p = 0; p < runtime.parameters().size(); ++p) {
    const int64_t missed = runtime.missed_steps()[p];
    if (missed != 0) result[missed_steps_counter(runtime.parameters()[p].name)] = missed;
  }
  if (!runtime.reducer().window_open()) return result;
  result["micro_steps"] = engine.window_start();
  if (runtime.gather_group().rank() == 0) {
    log_warning(
        "save_checkpoint: called within an accumulation window, whose gradients a checkpoint does not hold: a run "
        "that ",
        "resumes repeats the window from micro step ", engine.window_start(), "; save after the step of a boundary");
  }
  return result;
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

void load_scaler(Engine& engine, const LoadedCheckpoint& saved) {
  const optim::LossScalerState state{
      std::bit_cast<double>(counter(saved, "loss_scaler.scale_bits")), counter(saved, "loss_scaler.iteration"),
      counter(saved, "loss_scaler.last_overflow_iteration"), counter(saved, "loss_scaler.hysteresis_left")};
  const auto& dtypes = saved.scalars().dtypes;
  const auto dtype = dtypes.find("model");
  const bool same_dtype = dtype == dtypes.end() || dtype->second == config::dtype_name(engine.options().model_dtype());
  const bool was_dynamic = state.hysteresis_left > 0;
  // The scale of another dtype, or of another way to find it, says nothing: this engine's own stays.
  if (same_dtype && was_dynamic == engine.loss_scaler().is_dynamic()) engine.loss_scaler().load_state(state);
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

// Elements in the stored dtype, which may differ from the engine's.
at::Tensor read_elements(LoadedCheckpoint& saved, const std::string& name, const std::string& kind, int64_t offset,
                         int64_t numel) {
  at::Tensor values =
      at::empty({numel}, at::TensorOptions().dtype(memory::to_torch_dtype(saved.tensor(name, kind).dtype)));
  if (numel > 0) saved.read_range(name, kind, offset, numel, values);
  return values;
}

// A parameter's elements as exactly as the checkpoint has them: its master, but where the parameter was written since
// the last step and no longer is the rounded master, that value.
at::Tensor read_values(LoadedCheckpoint& saved, const std::string& name, int64_t offset, int64_t numel) {
  at::Tensor values = read_elements(saved, name, kParameter, offset, numel);
  if (!saved.contains(name, kMaster)) return values;
  const at::Tensor master = read_elements(saved, name, kMaster, offset, numel);
  return at::where(master.to(values.scalar_type()).eq(values), master, values.to(at::kFloat));
}

void read_parameters(LoadedCheckpoint& saved, FlatGroup& group, bool strict) {
  if (!group.sharded() && group.modified_outside()) group.write_back();
  visit_pieces(group, [&](const zero::ParameterSlot& slot, const Piece& piece) {
    if (!is_stored(saved, slot, kParameter, strict) || piece.numel == 0) return;
    const at::Tensor values = read_values(saved, slot.name, piece.offset, piece.numel);
    piece.of(group.owned_model()).copy_(values);
    if (group.has_master_copy()) piece.of(group.owned_master()).copy_(values);
  });
}

// A parameter without states in the checkpoint starts with zeros.
void read_states(LoadedCheckpoint& saved, const FlatGroup& group, const at::Tensor& owned, const std::string& kind) {
  visit_pieces(group, [&](const zero::ParameterSlot& slot, const Piece& piece) {
    if (piece.numel == 0) return;
    if (saved.contains(slot.name, kind)) {
      piece.of(owned).copy_(read_elements(saved, slot.name, kind, piece.offset, piece.numel));
    } else if (saved.contains(slot.name, kParameter)) {
      piece.of(owned).zero_();
    }
  });
}

// Masters and states of a parameter that is frozen now: it may thaw.
void read_aside(LoadedCheckpoint& saved, zero::Runtime& runtime, const FlatGroup& group, int num_states) {
  for (const auto& slot : group.slots()) {
    if (slot.optimizer_group < 0 || !saved.contains(slot.name, kParameter)) continue;
    const Range mine = runtime.aside_range(slot.index);
    std::vector<at::Tensor> tensors;
    const bool finer = saved.contains(slot.name, kMaster) && group.dtype() != at::kFloat;
    if (finer || (num_states > 0 && saved.contains(slot.name, state_kind(0)))) {
      tensors.push_back(read_values(saved, slot.name, mine.begin, mine.numel()).to(at::kFloat));
      for (int s = 0; s < num_states && saved.contains(slot.name, state_kind(s)); ++s) {
        tensors.push_back(read_elements(saved, slot.name, state_kind(s), mine.begin, mine.numel()));
      }
    }
    runtime.set_aside(slot.index, tensors);
  }
}

// Steps that each parameter has missed by the checkpoint's count of steps; one that the checkpoint lacks goes on with
// the number of steps that it has made.
std::vector<int64_t> missed_steps(Engine& engine, const LoadedCheckpoint& saved) {
  const auto& counters = saved.scalars().counters;
  const int64_t steps = counter(saved, "optimizer_steps");
  std::vector<int64_t> result;
  for (const auto& info : engine.runtime().parameters()) {
    const int64_t missed = engine.runtime().missed_steps()[result.size()];
    const auto found = counters.find(missed_steps_counter(info.name));
    if (!saved.contains(info.name, kParameter)) {
      result.push_back(std::max<int64_t>(steps - (engine.counters().optimizer_steps - missed), 0));
    } else {
      result.push_back(found == counters.end() ? 0 : found->second);
    }
  }
  return result;
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
        (void)is_stored(saved, slot, kMaster, false);
        for (int s = 0; s < kMaxStates && load_optimizer_states; ++s) {
          (void)is_stored(saved, slot, state_kind(s), false);
        }
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
  const int states = engine.native_optimizer() ? num_states(saved) : 0;
  for (auto& unit : engine.runtime().units()) {
    for (auto& group : unit->groups) {
      read_parameters(saved, *group, strict);
      if (load_optimizer_states && !group->trainable()) read_aside(saved, engine.runtime(), *group, states);
    }
    if (!load_optimizer_states) continue;
    for (size_t b = 0; b < unit->buckets.size(); ++b) {
      for (size_t s = 0; s < unit->optimizer_states[b].size(); ++s) {
        read_states(saved, unit->buckets[b]->group(), unit->optimizer_states[b][s], state_kind(s));
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
  if (!request.exclude_frozen) add_aside(records, runtime, writes);
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
  runtime.set_missed_steps(missed_steps(engine, saved));
  engine.load_counters({counter(saved, "micro_steps"), counter(saved, "global_steps"), counter(saved, "global_samples"),
                        counter(saved, "skipped_steps"), counter(saved, "optimizer_steps")});
  load_scaler(engine, saved);
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
    on_writer([&] { writer->add(name, memory::to_storage_dtype(tensor.scalar_type()), tensor.sizes().vec()); });
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
  at::Tensor value = at::empty(stored.shape, at::TensorOptions().dtype(memory::to_torch_dtype(stored.dtype)));
  saved.read_range(name, kind, 0, value.numel(), value.view({-1}));
  return value;
}

}  // namespace hydrofoil::engine
