#include "hydrofoil/engine/plan_check.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <optional>
#include <string>

#include "hydrofoil/base/environment.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/engine/plan_settings.h"
#include "hydrofoil/memory/memory_limit.h"
#include "hydrofoil/plan/advise.h"
#include "hydrofoil/plan/byte_size.h"

namespace hydrofoil::engine {
namespace {

constexpr const char* kLimit = "HYDROFOIL_MEMORY_LIMIT";

void log_plan(const plan::Plan& plan) {
  const auto& states = plan.states;
  log_info("plan: ", plan.units.size(), plan.units.size() == 1 ? " unit" : " units", "; a rank keeps ",
           plan::format_bytes(states.total()), " (parameters ", plan::format_bytes(states.parameters), ", gradients ",
           plan::format_bytes(states.gradients), ", masters ", plan::format_bytes(states.masters),
           ", optimizer states ", plan::format_bytes(states.optimizer_states), ") and at most ",
           plan::format_bytes(plan.peak_slot_bytes), " of gathered units and buckets at a time");
}

}  // namespace

int ranks_of_host(int world_size) {
  return static_cast<int>(std::clamp<int64_t>(environment_int("LOCAL_WORLD_SIZE").value_or(1), 1, world_size));
}

int64_t memory_of_rank(int world_size) {
  if (const auto limit = environment(kLimit)) return plan::parse_byte_size(kLimit, *limit);
  return memory::host_memory_limit() / ranks_of_host(world_size);
}

plan::ModelSpec model_spec(const std::vector<zero::RuntimeParameter>& parameters,
                           const std::vector<zero::ModuleNode>& modules) {
  plan::ModelSpec spec;
  spec.modules = modules;
  for (const auto& info : parameters) {
    spec.parameters.push_back(
        {info.name, info.parameter.numel(), info.parameter.scalar_type(), info.parameter.requires_grad()});
  }
  return spec;
}

void require_memory(const EngineOptions& options, const std::vector<zero::RuntimeParameter>& parameters,
                    const std::vector<zero::ModuleNode>& modules, bool training, bool native_optimizer,
                    const comm::Group& group) {
  const bool plannable = std::all_of(parameters.begin(), parameters.end(),
                                     [](const auto& info) { return plan::is_known(info.parameter.scalar_type()); });
  if (parameters.empty() || !plannable) return;  // errors of the runtime's own
  const bool cpu_device = parameters[0].parameter.device().is_cpu();
  const plan::ModelSpec spec = model_spec(parameters, modules);
  plan::Question question;
  question.spec = [&](const plan::BatchShape&) { return spec; };
  question.has_costs = false;
  question.settings = plan_settings(options, {.world_size = group.size(), .cpu_device = cpu_device});
  question.settings.training = training;
  question.settings.passing_gradients = native_optimizer;
  if (group.shared_arena(comm::SharedUse::kSlices) != nullptr) assume_one_host(options, question.settings);
  question.settings.narrow_buckets = wants_narrow_buckets(options) && group.widens_sums();
  const plan::Plan plan = plan::make_plan(spec, question.settings);
  if (group.rank() == 0) log_plan(plan);
  if (!cpu_device) return;
  std::string no_limit;  // raised after the vote: the others must not wait for this rank
  try {
    question.memory_bytes = memory_of_rank(group.size());
  } catch (const Error& error) {
    no_limit = error.what();
  }
  const bool fits = no_limit.empty() && plan.peak.bytes <= question.memory_bytes;
  bool all_fit = fits;
  if (group.size() > 1) {
    at::Tensor misfits = at::zeros({1}, at::kLong);
    misfits.data_ptr<int64_t>()[0] = fits ? 0 : 1;
    group.all_reduce(misfits, comm::ReduceOp::kMax, {"plan", 0}).wait();
    all_fit = misfits.data_ptr<int64_t>()[0] == 0;
  }
  if (!no_limit.empty()) throw InvalidArgument(no_limit);
  HYDROFOIL_CHECK_ARG(fits, "initialize", plan::explain_misfit(question, plan), ". Another limit: ", kLimit,
                      "=SIZE, of a rank");
  HYDROFOIL_CHECK_ARG(all_fit, "initialize",
                      "another rank has not the memory that it needs, or cannot tell; its error says more");
}

}  // namespace hydrofoil::engine
