// Checkpoints of a C++ program's engine: what Python's hydrofoil.checkpoint keeps beside the engine's own state, in the
// same form, so that either language reads the other's.
#include <ATen/core/grad_mode.h>

#include <nlohmann/json.hpp>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/engine/engine.h"
#include "hydrofoil/engine/engine_checkpoint.h"
#include "hydrofoil/engine/groups_json.h"
#include "hydrofoil/storage/strict_json.h"

namespace hydrofoil::engine {
namespace {

constexpr const char* kLoad = "load_checkpoint";
constexpr const char* kGroups = "param_groups";
constexpr const char* kSchedule = "lr_scheduler";
constexpr const char* kIteration = "last_batch_iteration";
constexpr int kMaxDepth = 64;

// Buffers (BatchNorm statistics) are each rank's own; another number of ranks takes those of rank 0.
std::string buffer_kind(int rank) { return rank == 0 ? "buffer" : detail::concat("buffer_of_rank_", rank); }

// An error of one rank inside `body` is an error of all, so that no rank waits for one that has failed.
template <typename Body>
void together(Engine& engine, const std::string& what, const Body& body) {
  std::optional<std::string> own_error;
  try {
    body();
  } catch (const std::exception& error) {
    own_error = error.what();
  }
  agree(engine, own_error, what);
}

int64_t saved_iteration(const std::string& text) {
  const nlohmann::json state = storage::parse_strict_json(text, kLoad, kSchedule, kMaxDepth);
  HYDROFOIL_CHECK_ARG(state.is_object() && state.contains(kIteration) && state[kIteration].is_number_integer(), kLoad,
                      "the checkpoint's schedule is no schedule of the config (a torch.optim.lr_scheduler of a Python "
                      "program?): got ",
                      text, ", expected ", kIteration);
  return state[kIteration].get<int64_t>();
}

}  // namespace

void Engine::save_checkpoint(const std::string& directory, const SaveOptions& options) {
  runtime_->require_alive("save_checkpoint");
  SaveRequest request;
  together(*this, "save_checkpoint: prepare", [&] {
    const auto client = storage::parse_strict_json(options.client_state, "save_checkpoint", "client_state", kMaxDepth);
    HYDROFOIL_CHECK_ARG(client.is_object(), "save_checkpoint", "client_state: got ", options.client_state,
                        ", expected a JSON object");
  });
  request.directory = directory;
  request.tag = options.tag.empty() ? detail::concat("global_step", counters_.global_steps) : options.tag;
  request.save_latest = options.save_latest;
  request.exclude_frozen = options.exclude_frozen;
  request.client_state = options.client_state;
  if (native_optimizer_) request.states[kGroups] = groups_to_json(*native_optimizer_, groups_);
  if (schedule_) request.states[kSchedule] = nlohmann::json{{kIteration, schedule_->last_batch_iteration()}}.dump();
  for (const auto& buffer : buffers_) {
    request.extras.push_back({buffer.name, buffer_kind(runtime_->gather_group().rank()), buffer.tensor});
  }
  save_engine(*this, request);
}

void Engine::load_program_state(checkpoint::LoadedCheckpoint& saved, const LoadOptions& options) {
  const comm::Group& group = runtime_->gather_group();
  const int source = saved.manifest().world_size == group.size() ? group.rank() : 0;
  const at::NoGradGuard no_grad;
  for (const auto& buffer : buffers_) {
    const std::optional<at::Tensor> value = read_extra(saved, buffer.name, buffer_kind(source));
    HYDROFOIL_CHECK_ARG(value.has_value() || !options.strict, kLoad, saved.directory(), " has no buffer ", buffer.name);
    if (!value) continue;
    HYDROFOIL_CHECK_ARG(value->sizes() == buffer.tensor.sizes(), kLoad, "buffer ", buffer.name, ": got shape ",
                        value->sizes(), " in the checkpoint, the model has ", buffer.tensor.sizes());
    buffer.tensor.copy_(*value);
  }
  const auto& states = saved.scalars().states;
  if (options.load_optimizer_states && native_optimizer_ && states.contains(kGroups)) {
    groups_from_json(states.at(kGroups), groups_);
  }
  if (options.load_schedule && schedule_ && states.contains(kSchedule)) {
    schedule_->set_last_batch_iteration(saved_iteration(states.at(kSchedule)));
    apply_schedule();
  }
}

std::optional<LoadResult> Engine::load_checkpoint(const std::string& directory, const LoadOptions& options) {
  runtime_->require_alive(kLoad);
  auto saved = open_checkpoint(*this, directory, options.tag);
  if (!saved) {
    if (runtime_->gather_group().rank() == 0) {
      log_warning("load_checkpoint: ", directory, " has no file 'latest': nothing is loaded");
    }
    return std::nullopt;
  }
  load_engine(*this, *saved, options.strict, options.load_optimizer_states && native_optimizer_.has_value());
  together(*this, "load_checkpoint: the rest", [&] { load_program_state(*saved, options); });
  return LoadResult{saved->directory(), saved->scalars().client_state};
}

}  // namespace hydrofoil::engine
