#include "hydrofoil/engine/engine_options.h"

#include <algorithm>

#include "hydrofoil/base/error.h"
#include "hydrofoil/config/load.h"
#include "hydrofoil/engine/batch_sizes.h"
#include "hydrofoil/engine/later_features.h"

namespace hydrofoil::engine {
namespace {

using config::choice;
using config::dtype_name;
using config::dtype_spellings;
using config::field;
using config::Field;
using config::nested;
using config::Section;
using config::Value;
using config::ValueKind;

constexpr const char* kTrain = "train_batch_size";
constexpr const char* kMicro = "train_micro_batch_size_per_gpu";
constexpr const char* kAccumulation = "gradient_accumulation_steps";

Section autocast_section() {
  Section section;
  section.doc = "torch.autocast around forward";
  section.fields = {
      field("enabled", &AutocastOptions::enabled, "run forward under torch.autocast"),
      choice("dtype", &AutocastOptions::dtype, dtype_spellings(), "the lower precision")
          .derived("bf16 on a CPU device, else fp16"),
      field("lower_precision_safe_modules", &AutocastOptions::lower_precision_safe_modules,
            "class paths of the modules whose gradients DeepSpeed reduces in the lower precision")
          .accepted("torch.autocast picks the precision of each operator; gradients travel in communication_data_type"),
  };
  return section;
}

Section data_types_section() {
  Section section;
  section.doc = "Element types";
  section.fields = {
      choice("grad_accum_dtype", &DataTypeOptions::grad_accum_dtype, dtype_spellings(), "of the flat gradient buckets")
          .with_note("DeepSpeed's default is the model's dtype"),
      choice("param_dtype", &DataTypeOptions::param_dtype, dtype_spellings(),
             "of the parameters; must be the enabled one"),
      config::later("buffer_dtype", {}, "of the model's buffers"),
  };
  return section;
}

Section own_section() {
  Section section;
  section.doc = "What DeepSpeed has no key for";
  std::vector<std::pair<std::string, CommBackend>> backends;
  for (const auto backend : {CommBackend::kAuto, CommBackend::kShm, CommBackend::kC10d, CommBackend::kMpi}) {
    backends.emplace_back(comm_backend_name(backend), backend);
  }
  section.fields = {
      field("overlap", &HydrofoilOptions::overlap,
            "collectives run beside computation; the bits are the same either way"),
      field("unit_min_bytes", &HydrofoilOptions::unit_min_bytes, "adjacent units below this size merge").at_least(0),
      field("keep_gathered_bytes", &HydrofoilOptions::keep_gathered_bytes,
            "stage 3: at most so many bytes of units, smallest first, stay gathered from their first use to the step")
          .at_least(0)
          .derived("while the job runs: half of the memory that the leanest rank has free, looked at after steps 1, 2, "
                   "4, ... 64 and each 64th; nothing where the ranks share their parameters"),
      field("collective_timeout_s", &HydrofoilOptions::collective_timeout_s, "deadline of every collective, in seconds")
          .above(0),
      choice("backend", &HydrofoilOptions::backend, backends,
             "transport of the collectives; auto: shm where all ranks can map each other's memory, else c10d (a C++ "
             "program under mpirun: else mpi)"),
      field("debug_checks", &HydrofoilOptions::debug_checks,
            "fill released memory with NaN, as HYDROFOIL_DEBUG=memory does"),
      field("unit_names", &HydrofoilOptions::unit_names, "modules that stay one unit, as named_modules() names them"),
      nested("trace", &HydrofoilOptions::trace, trace_section()),
      nested("json_monitor", &HydrofoilOptions::json_monitor,
             file_monitor_section("JSON lines: `output_path/job_name/events.jsonl`")),
  };
  return section;
}

std::vector<Field> scalar_fields() {
  const std::vector<std::pair<std::string, DType>> types = {
      {"fp32", DType::kFloat32}, {"bf16", DType::kBFloat16}, {"fp16", DType::kFloat16}};
  const std::vector<std::pair<std::string, GradientReduceOp>> ops = {{"mean", GradientReduceOp::kMean},
                                                                     {"sum", GradientReduceOp::kSum}};
  Field steps =
      field("steps_per_print", &EngineOptions::steps_per_print, "optimizer steps between progress lines; none: never")
          .at_least(1);
  steps.allows_infinity = true;
  Field communication = choice("communication_data_type", &EngineOptions::communication_data_type, types,
                               "dtype that the gradients travel in")
                            .derived("the accumulation dtype")
                            .with_note("DeepSpeed's default is the model's dtype");
  communication.ignores_case = true;
  const std::vector<std::pair<std::string, LogLevel>> levels = {{"debug", LogLevel::kDebug},
                                                                {"info", LogLevel::kInfo},
                                                                {"warning", LogLevel::kWarning},
                                                                {"error", LogLevel::kError},
                                                                {"critical", LogLevel::kCritical}};
  Field log_level = choice("log_level", &EngineOptions::log_level, levels,
                           "least important messages that are logged, from initialize on")
                        .derived("HYDROFOIL_LOG_LEVEL, or info");
  log_level.ignores_case = true;
  Field data_parallel = config::plain("data_parallel_size", {}, "must be the world size where given").at_least(1);
  data_parallel.type = config::FieldType::kInteger;
  return {
      field(kTrain, &EngineOptions::train_batch_size, "samples per optimizer step, all ranks together")
          .at_least(1)
          .derived("derived"),
      field(kMicro, &EngineOptions::train_micro_batch_size_per_gpu, "samples per rank and micro step")
          .at_least(1)
          .derived("derived"),
      field(kAccumulation, &EngineOptions::gradient_accumulation_steps, "micro steps per optimizer step")
          .at_least(1)
          .derived("derived"),
      field("gradient_clipping", &EngineOptions::gradient_clipping, "largest global gradient norm; 0: no clipping")
          .at_least(0)
          .with_note("on by default, as in DeepSpeed; plain PyTorch does not clip"),
      field("prescale_gradients", &EngineOptions::prescale_gradients,
            "divide the gradients before the reduction instead of after it"),
      field("gradient_predivide_factor", &EngineOptions::gradient_predivide_factor,
            "with prescale_gradients: divide by this before, by world size / this after")
          .above(0),
      choice("gradient_allreduce_op", &EngineOptions::gradient_allreduce_op, ops,
             "how the ranks' gradients are combined; sum: stages 0 to 2"),
      steps,
      communication,
      field("wall_clock_breakdown", &EngineOptions::wall_clock_breakdown, "log the time of each phase"),
      field("memory_breakdown", &EngineOptions::memory_breakdown, "log the memory after each phase"),
      field("dump_state", &EngineOptions::dump_state, "log the resolved options at the start"),
      log_level,
      field("dataloader_drop_last", &EngineOptions::dataloader_drop_last,
            "the loader of training_data drops an incomplete last batch"),
      data_parallel,
  };
}

Section make_section() {
  Section section;
  section.fields = scalar_fields();
  const std::vector<Field> sections = {
      nested("fp16", &EngineOptions::fp16, optim::fp16_section()),
      nested("bf16", &EngineOptions::bf16, optim::bf16_section()).alias("bfloat16"),
      nested("torch_autocast", &EngineOptions::torch_autocast, autocast_section()),
      nested("data_types", &EngineOptions::data_types, data_types_section()),
      nested("zero_optimization", &EngineOptions::zero, zero::zero_section()),
      nested("hydrofoil", &EngineOptions::hydrofoil, own_section()),
      nested("comms_logger", &EngineOptions::comms_logger, comms_logger_section()),
      nested("flops_profiler", &EngineOptions::flops_profiler, flops_profiler_section()),
      nested("timers", &EngineOptions::timers, timers_section()),
      nested("tensorboard", &EngineOptions::tensorboard,
             file_monitor_section("TensorBoard (Python package tensorboard): event files in `output_path/job_name`")),
      nested("csv_monitor", &EngineOptions::csv_monitor,
             file_monitor_section("One CSV file an event name, in `output_path/job_name`")),
      nested("wandb", &EngineOptions::wandb, wandb_section()),
      nested("comet", &EngineOptions::comet, comet_section()),
  };
  section.fields.insert(section.fields.end(), sections.begin(), sections.end());
  for (const char* key : {"optimizer", "scheduler"}) {
    // Their parameters depend on their type; optim resolves them.
    section.fields.push_back(config::plain(key, {}));
    section.fields.back().unlisted = true;
  }
  const auto later = later_feature_fields();
  section.fields.insert(section.fields.end(), later.begin(), later.end());
  return section;
}

// Keys that only report: the ranks may differ in them.
bool only_reports(const std::string& path) {
  static constexpr const char* kKeys[] = {"steps_per_print", "wall_clock_breakdown", "memory_breakdown", "dump_state",
                                          "log_level"};
  static constexpr const char* kSections[] = {"tensorboard.", "csv_monitor.", "wandb.",
                                              "comet.",       "timers.",      "hydrofoil.json_monitor."};
  return std::any_of(std::begin(kKeys), std::end(kKeys), [&](const char* key) { return path == key; }) ||
         std::any_of(std::begin(kSections), std::end(kSections),
                     [&](const char* prefix) { return path.starts_with(prefix); });
}

// The object of a section of the root that has no default as a whole; nullptr where it is absent or null.
const Value* find_section(const Value& root, const char* key, const config::Resolver& resolver) {
  const Value* value = root.find(key);
  if (value == nullptr || value->is(ValueKind::kNull)) return nullptr;
  if (value->is_auto()) resolver.fail(value, key, "\"auto\" has no value here; name a type or leave the section out");
  if (!value->is(ValueKind::kObject))
    resolver.fail(value, key, "got " + describe(*value) + ", expected an object {...}");
  return value;
}

void resolve_batch_sizes(EngineOptions& options, const ResolveContext& context, config::Resolver& resolver) {
  config::ResolvedTable& table = resolver.table();
  const auto given = [&](const char* key, int64_t value) {
    return table.given(key) ? std::optional<int64_t>(value) : std::nullopt;
  };
  const BatchSizes sizes = complete_batch_sizes(
      given(kTrain, options.train_batch_size), given(kMicro, options.train_micro_batch_size_per_gpu),
      given(kAccumulation, options.gradient_accumulation_steps), context.world_size);
  options.train_batch_size = sizes.train_batch_size;
  options.train_micro_batch_size_per_gpu = sizes.micro_batch_size;
  options.gradient_accumulation_steps = sizes.accumulation_steps;
  table.derive(kTrain, sizes.train_batch_size, sizes.train_note);
  table.derive(kMicro, sizes.micro_batch_size, sizes.micro_note);
  table.derive(kAccumulation, sizes.accumulation_steps, sizes.accumulation_note);
}

void resolve_data_parallel_size(const Value& root, const ResolveContext& context, const config::Resolver& resolver) {
  const Value* value = root.find("data_parallel_size");
  if (value == nullptr || value->is(ValueKind::kNull) || value->is_auto()) return;
  if (value->real != context.world_size) {
    resolver.fail(value, "data_parallel_size",
                  "got " + describe(*value) + ", expected the world size " + std::to_string(context.world_size) +
                      " (other axes than data parallelism are not yet supported)");
  }
}

void derive_types(EngineOptions& options, const ResolveContext& context, config::ResolvedTable& table) {
  if (!options.communication_data_type) {
    table.derive("communication_data_type", std::string(dtype_name(options.data_types.grad_accum_dtype)),
                 "not given: data_types.grad_accum_dtype; DeepSpeed's default is the model's dtype");
  }
  if (!options.torch_autocast.dtype) {
    options.torch_autocast.dtype = context.cpu_device ? DType::kBFloat16 : DType::kFloat16;
    table.derive("torch_autocast.dtype", std::string(dtype_name(*options.torch_autocast.dtype)),
                 context.cpu_device ? "the device is the CPU" : "the device is not the CPU");
  }
}

void derive_own_options(EngineOptions& options, config::ResolvedTable& table) {
  if (options.zero.enable_sanity_checks && !table.given("hydrofoil.debug_checks")) {
    options.hydrofoil.debug_checks = true;
    table.derive("hydrofoil.debug_checks", true, "zero_optimization.enable_sanity_checks");
  }
  constexpr const char* kKeep = "hydrofoil.keep_gathered_bytes";
  if (options.zero.stage < 3) {
    table.annotate(kKeep, "no effect below stage 3: nothing is gathered");
  } else if (options.zero.divergent_units == zero::DivergentUnits::kJoin) {
    table.annotate(kKeep, "no effect with divergent_units join: each rank gathers when it runs a unit");
  } else if (!options.hydrofoil.keep_gathered_bytes) {
    table.derive(
        kKeep, "auto",
        "by the plan while the job runs: half of what the leanest rank has free after steps 1, 2, 4, ... 64 and "
        "each 64th; 0 where ranks share their parameters");
  }
}

// Two keys say in which dtype states are.
void resolve_states(const EngineOptions& options, config::ResolvedTable& table) {
  constexpr const char* kBf16 = "bf16.bf16_optimizer_states";
  constexpr const char* kFp32 = "optimizer.params.fp32_optimizer_states";
  const bool asked = options.bf16.bf16_optimizer_states;
  if (asked && !options.bf16.enabled) table.annotate(kBf16, "no effect, bf16.enabled is false");
  const auto& fp32 = options.optimizer.params.fp32_optimizer_states;
  HYDROFOIL_CHECK_ARG(!fp32 || !options.bf16.enabled || !table.given(kBf16) || *fp32 != asked, "config", kFp32,
                      ": got ", *fp32 ? "true" : "false", " beside ", kBf16, " ", asked ? "true" : "false",
                      ", which says the contrary; give one of them");
  if (!fp32 && table.find(kFp32) != nullptr) {
    table.derive(kFp32, !options.has_bf16_states(), options.has_bf16_states() ? kBf16 : "");
  }
}

void check_states(const EngineOptions& options) {
  const auto& optimizer = options.optimizer;
  HYDROFOIL_CHECK_ARG(!options.has_bf16_states() || optimizer.native || optimizer.type.empty(), "config",
                      "bf16.bf16_optimizer_states: got true with optimizer.type ", optimizer.type,
                      ", whose states torch keeps, expected Adam, AdamW, SGD, Adagrad or Lion");
}

void check_precision(const EngineOptions& options) {
  HYDROFOIL_CHECK_ARG(!(options.fp16.enabled && options.bf16.enabled), "config",
                      "fp16.enabled and bf16.enabled are both true, expected at most one");
  const auto& param_dtype = options.data_types.param_dtype;
  HYDROFOIL_CHECK_ARG(!param_dtype || *param_dtype == options.model_dtype(), "config", "data_types.param_dtype: got ",
                      dtype_name(param_dtype.value_or(DType::kFloat32)), ", expected ",
                      dtype_name(options.model_dtype()), ", which fp16 and bf16 make the model's dtype");
  const auto& fp16 = options.fp16;
  HYDROFOIL_CHECK_ARG(!fp16.enabled || !fp16.dynamic() || fp16.loss_scale_window > 0, "config",
                      "fp16.loss_scale_window: got 0, expected an integer > 0 with dynamic loss scaling");
  HYDROFOIL_CHECK_ARG(!fp16.enabled || !fp16.dynamic() || fp16.min_loss_scale > 0, "config",
                      "fp16.min_loss_scale: got 0, expected a number > 0 with dynamic loss scaling");
}

void check_reduction(const EngineOptions& options) {
  const bool sum = options.gradient_allreduce_op == GradientReduceOp::kSum;
  HYDROFOIL_CHECK_ARG(!sum || options.zero.stage < 3, "config",
                      "gradient_allreduce_op: got sum with zero_optimization.stage 3, expected mean");
  HYDROFOIL_CHECK_ARG(!sum || !options.prescale_gradients, "config",
                      "gradient_allreduce_op sum divides by nothing, but prescale_gradients is true, expected false");
}

}  // namespace

const char* comm_backend_name(CommBackend backend) {
  switch (backend) {
    case CommBackend::kAuto:
      return "auto";
    case CommBackend::kShm:
      return "shm";
    case CommBackend::kC10d:
      return "c10d";
    case CommBackend::kMpi:
      return "mpi";
  }
  HYDROFOIL_ASSERT(false, "comm backend ", static_cast<int>(backend));
}

DType EngineOptions::model_dtype() const {
  return fp16.enabled ? DType::kFloat16 : bf16.enabled ? DType::kBFloat16 : DType::kFloat32;
}

bool EngineOptions::has_bf16_states() const {
  if (optimizer.params.fp32_optimizer_states) return !*optimizer.params.fp32_optimizer_states;
  return bf16.enabled && bf16.bf16_optimizer_states;
}

void EngineOptions::validate() const {
  EngineOptions copy = *this;
  config::check_ranges(engine_section(), &copy, "");
  zero.validate();
  comms_logger.validate();
  check_precision(*this);
  check_states(*this);
  check_reduction(*this);
}

const Section& engine_section() {
  static const Section section = make_section();
  return section;
}

ResolvedOptions resolve_engine_options(std::string_view text_or_path, const ResolveContext& context) {
  HYDROFOIL_CHECK_ARG(context.world_size >= 1, "config", "world size: got ", context.world_size, ", expected >= 1");
  config::LoadedConfig loaded = config::load_config(text_or_path);
  ResolvedOptions result;
  config::Resolver resolver(loaded.source, result.table);
  EngineOptions& options = result.options;
  Value& root = loaded.root;
  for (auto& [key, value] : root.members) {
    if (key == "zero_optimization") value = zero::upgrade_zero_section(value, resolver);
  }
  const Value* optimizer = find_section(root, "optimizer", resolver);
  const Value* scheduler = find_section(root, "scheduler", resolver);
  resolver.resolve(engine_section(), &root, &options, "");
  options.optimizer = optim::resolve_optimizer(resolver, optimizer);
  options.scheduler = optim::resolve_scheduler(resolver, scheduler);
  resolve_data_parallel_size(root, context, resolver);
  if (options.gradient_predivide_factor != 1.0 && !options.prescale_gradients) {
    result.table.annotate("gradient_predivide_factor", "no effect without prescale_gradients");
  }
  zero::check_offload(options.zero, context.cpu_device, resolver, root.find("zero_optimization"));
  check_precision(options);
  resolve_states(options, result.table);
  check_reduction(options);
  resolve_batch_sizes(options, context, resolver);
  derive_types(options, context, result.table);
  derive_own_options(options, result.table);
  options.validate();
  for (const auto& row : result.table.rows()) {
    if (!only_reports(row.path)) options.resolved_lines.push_back(row.path + " = " + row.value);
  }
  result.warnings = resolver.warnings();
  return result;
}

}  // namespace hydrofoil::engine
