#include "hydrofoil/engine/build_engine.h"

#include "hydrofoil/base/debug.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/agree.h"
#include "hydrofoil/engine/plan_check.h"
#include "hydrofoil/engine/plan_settings.h"
#include "hydrofoil/mesh/mesh.h"

namespace hydrofoil::engine {
namespace {

// Parameters, gradients and optimizer states are sharded along the axis "dp".
zero::RuntimeOptions runtime_options(const EngineOptions& options, const mesh::Mesh& mesh, int world_rank) {
  zero::RuntimeOptions runtime;
  runtime.sharding = zero::Sharding::of_stage(options.zero.stage, mesh.rank_along(world_rank, "dp"), mesh.size("dp"),
                                              options.gradient_accumulation_steps);
  runtime.sharding.accumulation_dtype = scalar_type(options.data_types.grad_accum_dtype);
  if (options.communication_data_type) {
    runtime.sharding.communication_dtype = scalar_type(*options.communication_data_type);
  }
  if (options.has_bf16_states()) runtime.sharding.optimizer_state_dtype = at::kBFloat16;
  if (options.model_dtype() != DType::kFloat32) runtime.sharding.model_dtype = scalar_type(options.model_dtype());
  runtime.reduction.average = options.gradient_allreduce_op == GradientReduceOp::kMean;
  runtime.reduction.prescale = options.prescale_gradients;
  runtime.reduction.predivide_factor = options.gradient_predivide_factor;
  runtime.reduction.overlap = options.hydrofoil.overlap;
  runtime.sharding.narrow_buckets = wants_narrow_buckets(options);
  runtime.reduction.join_divergent_units = options.zero.divergent_units == zero::DivergentUnits::kJoin;
  const DebugChecks debug = debug_checks_from_environment();
  runtime.sharding.log_states = debug.state;
  runtime.sharding.poison_released =
      debug.memory || options.hydrofoil.debug_checks || options.zero.enable_sanity_checks;
  runtime.unit_min_bytes = options.hydrofoil.unit_min_bytes;
  runtime.keep_gathered_bytes = options.hydrofoil.keep_gathered_bytes;
  runtime.memory_bytes = memory_of_rank(mesh.size("dp"));
  runtime.ranks_of_host = ranks_of_host(mesh.size("dp"));
  return runtime;
}

std::string describe(const zero::RuntimeParameter& info) {
  const at::Tensor& parameter = info.parameter;
  std::string text = detail::concat("parameter ", info.name, " ", parameter.sizes(), " ", parameter.scalar_type());
  if (!parameter.requires_grad()) return text + ", frozen";
  return text + detail::concat(", optimizer group ", info.optimizer_group);
}

}  // namespace

std::shared_ptr<comm::CommLog> make_comm_log(const CommsLoggerOptions& options) {
  if (!options.enabled) return nullptr;
  return std::make_shared<comm::CommLog>(
      comm::CommLogOptions{.verbose = options.verbose, .by_unit = options.debug, .ops = options.counted_ops()});
}

std::unique_ptr<Engine> build_engine(const EngineOptions& options, EngineParts parts) {
  HYDROFOIL_CHECK_ARG(!options.has_bf16_states() || parts.native_optimizer || !parts.training, "initialize",
                      "bf16.bf16_optimizer_states: got true with an optimizer of the program's own (",
                      parts.optimizer_text, "), which keeps its states itself; expected one of the config");
  std::vector<std::string> lines = options.resolved_lines;
  lines.push_back("optimizer " + parts.optimizer_text);
  for (const auto& parameter : parts.parameters) lines.push_back(describe(parameter));
  comm::require_agreement(parts.gather_group, "initialize", lines);
  require_memory(options, parts.parameters, parts.modules, parts.training, parts.native_optimizer.has_value(),
                 parts.gather_group);

  zero::RuntimeOptions of_runtime =
      runtime_options(options, mesh::Mesh({{"dp", parts.gather_group.size()}}), parts.gather_group.rank());
  of_runtime.sharding.narrow_buckets = of_runtime.sharding.narrow_buckets && parts.reduce_group.widens_sums();
  of_runtime.sharding.passing_gradients = parts.native_optimizer.has_value();
  of_runtime.training = parts.training;
  std::unique_ptr<StepTrace> trace;
  if (!options.hydrofoil.trace.path.empty()) {
    trace = std::make_unique<StepTrace>(options.hydrofoil.trace, parts.gather_group, parts.reduce_group);
    of_runtime.recorder = trace->recorder();
  }
  std::shared_ptr<comm::CommLog> comm_log = make_comm_log(options.comms_logger);
  if (comm_log != nullptr) {
    parts.gather_group.observe(comm_log);
    parts.reduce_group.observe(comm_log);
  }
  of_runtime.translate_hook_error = std::move(parts.translate_hook_error);
  auto runtime = std::make_unique<zero::Runtime>(std::move(parts.parameters), std::move(parts.modules), of_runtime,
                                                 std::move(parts.gather_group), std::move(parts.reduce_group));
  if (of_runtime.sharding.model_dtype) {
    for (const auto& buffer : parts.buffers) {
      if (buffer.tensor.is_floating_point()) buffer.tensor.set_data(buffer.tensor.to(*of_runtime.sharding.model_dtype));
    }
  }
  auto engine = std::make_unique<Engine>(options, std::move(runtime), parts.native_optimizer);
  engine->own_observers(std::move(comm_log), std::move(trace));
  engine->own_model(std::move(parts.boundaries), std::move(parts.buffers));
  return engine;
}

}  // namespace hydrofoil::engine
