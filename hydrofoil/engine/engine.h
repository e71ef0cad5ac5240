#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hydrofoil/comm/comm_log.h"
#include "hydrofoil/comm/group.h"
#include "hydrofoil/engine/engine_options.h"
#include "hydrofoil/engine/step_report.h"
#include "hydrofoil/engine/step_trace.h"
#include "hydrofoil/optim/loss_scaler.h"
#include "hydrofoil/optim/lr_schedule.h"
#include "hydrofoil/optim/optimizer.h"
#include "hydrofoil/zero/model_tree.h"
#include "hydrofoil/zero/optimizer_step.h"
#include "hydrofoil/zero/runtime.h"
#include "hydrofoil/zero/span.h"

namespace hydrofoil::checkpoint {
class LoadedCheckpoint;
}

namespace hydrofoil::engine {

// Counters of a training run, as DeepSpeed names them.
struct Counters {
  int64_t micro_steps = 0;
  int64_t global_steps = 0;
  int64_t global_samples = 0;
  int64_t skipped_steps = 0;
  int64_t optimizer_steps = 0;  // steps that updated parameters: bias correction counts these
};

// What became of one call of step().
struct StepResult {
  bool boundary = false;   // false: a micro step within an accumulation window, nothing else happened
  bool applied = false;    // parameters were updated
  bool overflow = false;   // skipped: a gradient was not finite
  double grad_norm = 0.0;  // global L2 norm before clipping, loss scale removed
};

struct SaveOptions {
  std::string tag;          // "": global_step<N>
  bool save_latest = true;  // <directory>/latest names it
  bool exclude_frozen = false;
  std::string client_state = "{}";  // JSON object of the program's own, which load_checkpoint gives back
};

struct LoadOptions {
  std::optional<std::string> tag;  // none: what <directory>/latest names
  bool strict = true;              // a parameter or buffer that only one side has is an error
  bool load_optimizer_states = true;
  bool load_schedule = true;
};

struct LoadResult {
  std::string directory;  // <directory>/<tag>
  std::string client_state;
};

// The training engine of one model on one rank: loss scaling, accumulation boundaries, clipping, the optimizer step. It
// owns no algorithm: zero/, optim/ and comm/ do. Every rank makes the same calls in the same order.
class Engine {
 public:
  // `native_optimizer`: the kind that step() runs; nullopt where a client optimizer works on client_shards().
  Engine(EngineOptions options, std::unique_ptr<zero::Runtime> runtime,
         std::optional<optim::OptimizerKind> native_optimizer);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  [[nodiscard]] const EngineOptions& options() const { return options_; }
  [[nodiscard]] zero::Runtime& runtime() { return *runtime_; }
  [[nodiscard]] StepReport& report() { return report_; }
  [[nodiscard]] std::optional<optim::OptimizerKind> native_optimizer() const { return native_optimizer_; }
  [[nodiscard]] const Counters& counters() const { return counters_; }
  // Counters::micro_steps at the start of the running accumulation window.
  [[nodiscard]] int64_t window_start() const { return window_start_; }
  [[nodiscard]] optim::LossScaler& loss_scaler() { return loss_scaler_; }
  void set_loss_scale(double scale);
  // Throws InvalidArgument as LossScaler::load_state does.
  void load_loss_scaler(const optim::LossScalerState& state);
  void load_counters(const Counters& counters);

  // The program enters and leaves a phase of a micro step: for the breakdowns of time and memory, and the throughput.
  // backward() and step() do it themselves. Throws InvalidArgument where a phase is left that was not entered.
  void begin_phase(Phase phase);
  void end_phase(Phase phase);

  // Called before a backward. The factor by which the loss is to be multiplied: the loss scale, and
  // gradient_accumulation_steps where the caller does not want the division that the engine makes in the gradients.
  [[nodiscard]] double begin_backward(bool scale_wrt_accumulation = true);
  // begin_backward(), the loss times that factor, and its backward noticed: what is then to be differentiated.
  [[nodiscard]] at::Tensor scale_loss(const at::Tensor& loss, bool scale_wrt_accumulation = true);
  // Runs the backward of this micro step from its loss (one element). Returns loss / gradient_accumulation_steps,
  // detached. Throws InvalidArgument for a loss that has more elements or needs no gradient, and where there is no
  // optimizer; what a backward throws passes through, and drops this accumulation window.
  at::Tensor backward(const at::Tensor& loss);

  // Whether the running micro step ends an accumulation window; set_boundary overrides it until set again or to
  // nullopt.
  [[nodiscard]] bool is_boundary() const;
  // From the next accumulation window on. Throws InvalidArgument within one, and for sizes below 1.
  void set_batch_sizes(int64_t micro_batch_size, int64_t accumulation_steps);
  void set_boundary(std::optional<bool> is_boundary);
  // Backward does not reduce while true. Throws InvalidArgument where gradients are sharded (stages 2, 3), where each
  // must.
  void set_no_sync(bool no_sync);

  // One optimizer step with a native optimizer, if this micro step is a boundary.
  StepResult step(std::span<const optim::Hyperparameters> groups);
  // The same with groups(); a step that was applied moves the schedule on.
  StepResult step();

  // Hyperparameters of each parameter group of a C++ program; may be changed between steps.
  [[nodiscard]] std::vector<optim::Hyperparameters>& groups() { return groups_; }
  void set_groups(std::vector<optim::Hyperparameters> groups) { groups_ = std::move(groups); }
  // Sets groups() now, and after each applied step(). Throws InvalidArgument as LrSchedule's constructor.
  void set_schedule(const optim::ScheduleOptions& options);
  [[nodiscard]] std::optional<optim::LrSchedule>& schedule() { return schedule_; }
  // Sets groups() to what the schedule says for its iteration, after that was changed.
  void apply_schedule();

  // The same in parts, for a client optimizer: if begin_step() says so, update client_shards(), then finish_step().
  // begin_step() returns true where the parameters are to be updated.
  [[nodiscard]] bool begin_step();
  void update_native(std::span<const optim::Hyperparameters> groups);
  [[nodiscard]] std::vector<zero::ClientShard> begin_client_update();
  StepResult finish_step();

  // Drops the gradients of this accumulation window.
  void zero_grad();
  // Global gradient norm of the last boundary step; nullopt before the first.
  [[nodiscard]] std::optional<double> grad_norm() const { return grad_norm_; }
  [[nodiscard]] bool overflow() const { return last_.overflow; }
  // One line about the last overflow, or "".
  [[nodiscard]] const std::string& overflow_report() const { return overflow_report_; }

  // Writes <directory>/<tag>: model, buffers, optimizer, schedule, counters; Python reads it too. Collective; throws as
  // save_engine() does, InvalidArgument for a client_state that is no JSON object.
  void save_checkpoint(const std::string& directory, const SaveOptions& options = {});
  // Reads it at any world size and stage, also where Python wrote it. nullopt, with one line of log, where there is no
  // tag and no file `latest`. Collective; throws as load_engine() does.
  std::optional<LoadResult> load_checkpoint(const std::string& directory, const LoadOptions& options = {});

  // Runs `use` while the given parameters, where sharded, hold their full values. What rank `modifier_rank` writes into
  // them is every rank's from then on; without one a write throws InvalidArgument. Collective: every rank calls it with
  // the same parameters. Throws InvalidArgument for a tensor that is no parameter of this engine.
  void with_gathered(const std::vector<at::Tensor>& parameters, const std::function<void()>& use,
                     std::optional<int> modifier_rank = std::nullopt);

  // The model behind a C++ program's engine: the calls of its modules, which end with the engine, and the buffers that
  // checkpoints keep.
  void own_model(std::shared_ptr<zero::Boundaries> boundaries, std::vector<zero::NamedTensor> buffers);

  // With the config's `comms_logger` and `hydrofoil.trace`: what counts the engine's collectives, and what traces its
  // steps from here on (collective where the first step is traced); null without.
  void own_observers(std::shared_ptr<comm::CommLog> comm_log, std::unique_ptr<StepTrace> trace);
  [[nodiscard]] const std::shared_ptr<comm::CommLog>& comm_log() const { return comm_log_; }

  // Returns all hooks and memory; the engine can do nothing more. `gather`: parameters that are sharded become ordinary
  // ones (collective). Else they stay released, and what is returned, one for each parameter, keeps their shards for
  // the next engine (RuntimeParameter::initial_shard), or drops them.
  std::vector<std::shared_ptr<zero::InitialShard>> destroy(bool gather = false);

 private:
  void configure_rounds();
  // After a backward that failed: the accumulation window starts anew. Returns whether that was so.
  bool recover();
  void log_step(const StepResult& result);
  void report_overflow(const zero::GradientSummary& summary);
  void load_program_state(checkpoint::LoadedCheckpoint& saved, const LoadOptions& options);

  EngineOptions options_;
  std::unique_ptr<zero::Runtime> runtime_;
  StepReport report_;
  std::optional<optim::OptimizerKind> native_optimizer_;
  std::vector<optim::Hyperparameters> groups_;
  std::optional<optim::LrSchedule> schedule_;
  std::shared_ptr<zero::Boundaries> boundaries_;  // null: a Python program's, which keeps its own
  std::vector<zero::NamedTensor> buffers_;
  std::shared_ptr<comm::CommLog> comm_log_;
  std::unique_ptr<StepTrace> trace_;
  optim::LossScaler loss_scaler_;
  Counters counters_;
  int64_t window_start_ = 0;
  std::optional<bool> boundary_;
  bool no_sync_ = false;
  bool loss_scaled_ = false;  // begin_backward() has run in this micro step
  std::optional<double> grad_norm_;
  StepResult last_;
  float gradient_factor_ = 1.0F;
  bool client_update_ = false;
  bool micro_step_failed_ = false;
  std::optional<zero::Span> step_span_;  // from begin_step() to finish_step() of a boundary
  std::string overflow_report_;
};

// Measures a phase for the time of a scope.
class PhaseScope {
 public:
  PhaseScope(Engine& engine, Phase phase) : engine_(engine), phase_(phase) { engine_.begin_phase(phase_); }
  ~PhaseScope() { engine_.end_phase(phase_); }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  Engine& engine_;
  Phase phase_;
};

}  // namespace hydrofoil::engine
