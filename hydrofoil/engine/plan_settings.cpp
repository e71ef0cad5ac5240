#include "hydrofoil/engine/plan_settings.h"

#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/alignment.h"
#include "hydrofoil/optim/optimizer_kind.h"

namespace hydrofoil::engine {
namespace {

int num_states(const optim::OptimizerOptions& optimizer) {
  constexpr int kOfAdamW = 2;
  if (!optimizer.native) return kOfAdamW;
  const auto kind = optim::parse_optimizer_kind(optimizer.type, optimizer.params.adam_w_mode);
  const std::vector<optim::Hyperparameters> groups(1, {.momentum = optimizer.params.momentum});
  return static_cast<int>(optim::state_names(kind, groups).size());
}

}  // namespace

c10::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return c10::ScalarType::Float;
    case DType::kBFloat16:
      return c10::ScalarType::BFloat16;
    case DType::kFloat16:
      return c10::ScalarType::Half;
  }
  HYDROFOIL_ASSERT(false, "dtype");
}

plan::Settings plan_settings(const EngineOptions& options, const ResolveContext& context) {
  plan::Settings settings;
  settings.stage = options.zero.stage;
  settings.world_size = context.world_size;
  if (options.model_dtype() != DType::kFloat32) settings.model_dtype = scalar_type(options.model_dtype());
  settings.accumulation_dtype = scalar_type(options.data_types.grad_accum_dtype);
  if (options.communication_data_type) settings.communication_dtype = scalar_type(*options.communication_data_type);
  settings.num_optimizer_states = num_states(options.optimizer);
  if (options.has_bf16_states()) settings.optimizer_state_dtype = c10::ScalarType::BFloat16;
  settings.accumulation_steps = options.gradient_accumulation_steps;
  settings.micro_batch_size = options.train_micro_batch_size_per_gpu;
  settings.unit_min_bytes = options.hydrofoil.unit_min_bytes;
  const bool joins = options.zero.divergent_units == zero::DivergentUnits::kJoin;
  settings.keep_gathered_bytes = joins ? 0 : options.hydrofoil.keep_gathered_bytes.value_or(0);
  settings.overlap = options.hydrofoil.overlap;
  settings.passing_gradients = options.optimizer.native;
  settings.pools_keep_pages = context.cpu_device;
  settings.alignment_bytes = context.cpu_device ? memory::kHostAlignmentBytes : memory::kCudaAlignmentBytes;
  return settings;
}

bool wants_narrow_buckets(const EngineOptions& options) {
  return options.gradient_accumulation_steps == 1 && !options.prescale_gradients && !options.communication_data_type &&
         options.data_types.grad_accum_dtype == DType::kFloat32;
}

void assume_one_host(const EngineOptions& options, plan::Settings& settings) {
  settings.shares_parameters = !options.hydrofoil.debug_checks && !options.zero.enable_sanity_checks;
  settings.narrow_buckets = wants_narrow_buckets(options);
}

}  // namespace hydrofoil::engine
