#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hydrofoil/base/log.h"
#include "hydrofoil/config/dtype.h"
#include "hydrofoil/config/field.h"
#include "hydrofoil/config/resolved_table.h"
#include "hydrofoil/engine/monitor_options.h"
#include "hydrofoil/engine/profiling_options.h"
#include "hydrofoil/optim/optim_options.h"
#include "hydrofoil/zero/zero_options.h"

namespace hydrofoil::engine {

using config::DType;

// How the gradients of the ranks are combined.
enum class GradientReduceOp { kMean, kSum };

// Which transport carries the collectives. kAuto: shm where all ranks can map each other's memory, else c10d, or mpi in
// a C++ program.
enum class CommBackend { kAuto, kShm, kC10d, kMpi };

// The name that comm::connect takes.
[[nodiscard]] const char* comm_backend_name(CommBackend backend);

// The section `torch_autocast`.
struct AutocastOptions {
  bool enabled = false;
  std::optional<DType> dtype;  // resolved: bf16 on a CPU device, else fp16
  std::vector<std::string> lower_precision_safe_modules = {"torch.nn.Linear", "torch.nn.Conv1d", "torch.nn.Conv2d",
                                                           "torch.nn.Conv3d"};  // class paths
};

// The section `data_types`.
struct DataTypeOptions {
  DType grad_accum_dtype = DType::kFloat32;  // of the flat gradient buckets
  std::optional<DType> param_dtype;          // must be the model's dtype where given
};

// The section `hydrofoil`: what DeepSpeed has no key for.
struct HydrofoilOptions {
  bool overlap = true;                         // collectives run beside computation; the bits are the same either way
  int64_t unit_min_bytes = 1 << 20;            // adjacent units below this size merge
  std::optional<int64_t> keep_gathered_bytes;  // stage 3: units that stay gathered until the step; none: by the plan
  double collective_timeout_s = 600.0;         // deadline of every collective
  CommBackend backend = CommBackend::kAuto;
  bool debug_checks = false;            // released memory is filled with NaN
  std::vector<std::string> unit_names;  // modules that stay one unit, as named_modules() names them
  TraceOptions trace;
  FileMonitorOptions json_monitor;  // events of training as JSON lines
};

// Everything that a config says about an engine, resolved for one world size.
struct EngineOptions {
  int64_t train_batch_size = 0;                // samples per optimizer step, all ranks together
  int64_t train_micro_batch_size_per_gpu = 0;  // samples per rank and micro step
  int64_t gradient_accumulation_steps = 0;     // micro steps per optimizer step
  double gradient_clipping = 1.0;              // largest global gradient norm; 0: no clipping
  bool prescale_gradients = false;             // divide before the reduction instead of after it
  double gradient_predivide_factor = 1.0;      // with prescale_gradients: divide by this before, by world / this after
  GradientReduceOp gradient_allreduce_op = GradientReduceOp::kMean;
  std::optional<int64_t> steps_per_print;        // none: never
  std::optional<DType> communication_data_type;  // none: the accumulation dtype
  bool wall_clock_breakdown = false;             // log the time of each phase
  bool memory_breakdown = false;                 // log the memory after each phase
  bool dump_state = false;                       // log the options at the start
  std::optional<LogLevel> log_level;             // none: as HYDROFOIL_LOG_LEVEL says
  bool dataloader_drop_last = false;             // the loader of `training_data` drops an incomplete last batch
  AutocastOptions torch_autocast;
  DataTypeOptions data_types;
  optim::Fp16Options fp16;
  optim::Bf16Options bf16;
  zero::ZeroOptions zero;
  HydrofoilOptions hydrofoil;
  CommsLoggerOptions comms_logger;
  FlopsProfilerOptions flops_profiler;
  FileMonitorOptions tensorboard;
  FileMonitorOptions csv_monitor;
  WandbOptions wandb;
  CometOptions comet;
  TimerOptions timers;
  optim::OptimizerOptions optimizer;
  optim::SchedulerOptions scheduler;
  std::vector<std::string> resolved_lines;  // "key = value" of all that every rank must have the same; filled by
                                            // resolve_engine_options

  // dtype of the model's parameters: fp16 or bf16 where that is enabled, else fp32.
  [[nodiscard]] DType model_dtype() const;
  // Whether a native optimizer keeps its states in bf16: optimizer.params.fp32_optimizer_states where it is given, else
  // bf16.bf16_optimizer_states where bf16 is enabled.
  [[nodiscard]] bool has_bf16_states() const;

  // Whether the events of training are written anywhere.
  [[nodiscard]] bool has_monitors() const {
    return tensorboard.enabled || csv_monitor.enabled || wandb.enabled || comet.enabled ||
           hydrofoil.json_monitor.enabled;
  }

  // Checks every range and every contradiction between options. Throws InvalidArgument.
  void validate() const;
};

// What the resolution depends on besides the text.
struct ResolveContext {
  int world_size = 1;      // data-parallel ranks
  bool cpu_device = true;  // the engine's device is the CPU
};

struct ResolvedOptions {
  EngineOptions options;
  config::ResolvedTable table;        // every value and why it has it
  std::vector<std::string> warnings;  // already logged
};

// Every key of a config, for the reference.
[[nodiscard]] const config::Section& engine_section();

// Resolves a config: JSON text, the path of a file, or base64 of JSON text (see config::load_config).
//
// Throws InvalidArgument with the place, the JSON path, what was got and what is expected, for anything that is
// unknown, wrong, contradictory or not yet supported; SystemError where a file cannot be read.
[[nodiscard]] ResolvedOptions resolve_engine_options(std::string_view text_or_path, const ResolveContext& context);

// The table of `hydrofoil config explain`: a heading, every resolved value with why it has it, and the warnings. Throws
// as resolve_engine_options.
[[nodiscard]] std::string explain_config(std::string_view text_or_path, const ResolveContext& context);

// docs/config.md: every key, generated from the field tables.
[[nodiscard]] std::string config_reference_markdown();

}  // namespace hydrofoil::engine
