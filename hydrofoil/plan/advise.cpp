#include "hydrofoil/plan/advise.h"

#include <algorithm>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/plan/byte_size.h"
#include "hydrofoil/zero/unit_planner.h"

namespace hydrofoil::plan {
namespace {

constexpr const char* kCheckpointing =
    "activation checkpointing (in Python model.gradient_checkpointing_enable(); C++ programs have none yet)";
constexpr const char* kLowStates = "bf16.bf16_optimizer_states true";
constexpr int kMostRanks = 1 << 20;

std::string describe(const Question& question, const Settings& settings, const BatchShape& batch) {
  std::string text;
  const auto add = [&](const std::string& change) { text += (text.empty() ? "" : ", ") + change; };
  if (settings.world_size != question.settings.world_size) add(detail::concat(settings.world_size, " ranks"));
  if (settings.stage != question.settings.stage) add(detail::concat("zero_optimization.stage ", settings.stage));
  if (batch.micro_batch_size != question.batch.micro_batch_size) {
    add(detail::concat("train_micro_batch_size_per_gpu ", batch.micro_batch_size, " with gradient_accumulation_steps ",
                       settings.accumulation_steps));
  }
  if (batch.checkpointing && !question.batch.checkpointing) add(kCheckpointing);
  if (settings.keep_gathered_bytes != question.settings.keep_gathered_bytes) {
    add(detail::concat("hydrofoil.keep_gathered_bytes ", settings.keep_gathered_bytes));
  }
  if (settings.optimizer_state_dtype != question.settings.optimizer_state_dtype) add(kLowStates);
  return text;
}

// Divisors of the micro batch, itself first.
std::vector<int64_t> micro_batches(const Question& question) {
  const int64_t most = question.batch.micro_batch_size;
  if (!question.has_costs) return {most};
  std::vector<int64_t> result;
  for (int64_t divisor = 1; divisor <= most / divisor; ++divisor) {
    if (most % divisor != 0) continue;
    result.push_back(divisor);
    if (divisor != most / divisor) result.push_back(most / divisor);
  }
  std::sort(result.rbegin(), result.rend());
  return result;
}

std::optional<Fit> fit_of(const Question& question, const ModelSpec& spec, const Settings& settings,
                          const BatchShape& batch) {
  const Plan plan = make_plan(spec, settings, question.roofs);
  if (plan.peak.bytes > question.memory_bytes) return std::nullopt;
  return Fit{settings, batch, plan.peak.bytes, plan.step_seconds, describe(question, settings, batch)};
}

// The leanest settings that the engine has, for a number of ranks.
Fit leanest(const Question& question, const ModelSpec& spec, const BatchShape& batch, int world_size) {
  Settings settings = question.settings;
  settings.accumulation_steps *= question.batch.micro_batch_size / batch.micro_batch_size;
  settings.stage = 3;
  settings.keep_gathered_bytes = 0;
  if (settings.model_dtype == c10::ScalarType::BFloat16) settings.optimizer_state_dtype = c10::ScalarType::BFloat16;
  settings.world_size = world_size;
  settings.num_nodes = 1;
  const Plan plan = make_plan(spec, settings, question.roofs);
  return {settings, batch, plan.peak.bytes, plan.step_seconds, describe(question, settings, batch)};
}

}  // namespace

namespace {

std::optional<Fit> find_fit(const Question& question, c10::ScalarType state_dtype) {
  std::optional<Fit> best;
  for (const bool checkpointing : {false, true}) {
    if (checkpointing < question.batch.checkpointing || (checkpointing && !question.has_costs)) continue;
    for (const int64_t micro_batch : micro_batches(question)) {
      BatchShape batch = question.batch;
      batch.micro_batch_size = micro_batch;
      batch.checkpointing = checkpointing;
      const ModelSpec spec = question.spec(batch);
      for (int stage = question.settings.stage; stage <= 3; ++stage) {
        Settings settings = question.settings;
        settings.stage = stage;
        settings.keep_gathered_bytes = 0;
        settings.optimizer_state_dtype = state_dtype;
        settings.accumulation_steps *= question.batch.micro_batch_size / micro_batch;
        const auto fit = fit_of(question, spec, settings, batch);
        if (fit && (!best || fit->step_seconds < best->step_seconds)) best = fit;
        if (settings.world_size == 1) break;  // nothing is cut
      }
    }
  }
  return best;
}

}  // namespace

Plan make_plan_within(const ModelSpec& spec, Settings& settings, const Roofs& roofs, int64_t memory_bytes) {
  const Plan plan = make_plan(spec, settings, roofs);
  settings.keep_gathered_bytes = zero::budget_to_keep(memory_bytes - plan.peak.bytes);
  return make_plan(spec, settings, roofs);
}

std::optional<Fit> find_fit(const Question& question) {
  const auto fit = find_fit(question, question.settings.optimizer_state_dtype);
  // States that round differently only where nothing else helps.
  const bool may_round = question.settings.model_dtype == c10::ScalarType::BFloat16;
  return fit || !may_round ? fit : find_fit(question, c10::ScalarType::BFloat16);
}

std::string explain_misfit(const Question& question, const Plan& plan) {
  const int64_t activations = plan.peak.activation_bytes + plan.peak.workspace_bytes;
  std::string text = detail::concat(
      "does not fit: a rank needs ", format_bytes(plan.peak.bytes), " (states ", format_bytes(plan.peak.state_bytes),
      ", gathered units and buckets ", format_bytes(plan.peak.slot_bytes),
      question.has_costs ? ", activations " + format_bytes(activations) : std::string("; activations come on top"),
      ") of ", format_bytes(question.memory_bytes), ", most in ", phase_name(plan.peak.phase), " at ", plan.peak.where);
  if (const auto fit = find_fit(question)) {
    return text + detail::concat("; cheapest setting that fits: ", fit->changes, ": ", format_bytes(fit->peak_bytes),
                                 " a rank");
  }
  BatchShape batch = question.batch;
  if (question.has_costs) {
    batch.micro_batch_size = 1;
    batch.checkpointing = true;
  }
  const ModelSpec spec = question.spec(batch);
  const Fit least = leanest(question, spec, batch, question.settings.world_size);
  text += detail::concat("; nothing that the engine has fits at world size ", question.settings.world_size,
                         ": the least is ", format_bytes(least.peak_bytes), " a rank",
                         least.changes.empty() ? "" : " with " + least.changes);
  for (int world_size = question.settings.world_size; world_size <= kMostRanks / 2;) {
    world_size *= 2;
    const Fit more = leanest(question, spec, batch, world_size);
    if (more.peak_bytes > question.memory_bytes) continue;
    text += detail::concat("; it fits with ", more.changes, ": ", format_bytes(more.peak_bytes), " a rank");
    break;
  }
  const Plan lean = make_plan(spec, least.settings, question.roofs);
  const int64_t offloaded = lean.states.masters + lean.states.optimizer_states;
  return text + detail::concat("; offload_optimizer to NVMe, which the engine does not have yet, would leave ",
                               format_bytes(least.peak_bytes - offloaded), " of it in memory");
}

}  // namespace hydrofoil::plan
