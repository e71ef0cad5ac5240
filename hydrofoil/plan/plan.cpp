#include "hydrofoil/plan/plan.h"

#include <algorithm>

#include "hydrofoil/base/error.h"
#include "hydrofoil/plan/detail/step_simulator.h"

namespace hydrofoil::plan {
namespace {

constexpr const char* kFunction = "plan";

Peak find_peak(const Plan& plan) {
  Peak peak;
  peak.bytes = peak.state_bytes = plan.permanent_bytes();
  for (auto point : plan.timeline.memory) {
    if (plan.settings.pools_keep_pages) point.slot_bytes = plan.peak_slot_bytes;
    const int64_t bytes = plan.permanent_bytes() + point.transient_bytes();
    if (bytes <= peak.bytes) continue;
    peak = {.bytes = bytes,
            .state_bytes = plan.permanent_bytes() + point.gradient_bytes,
            .slot_bytes = point.slot_bytes,
            .activation_bytes = point.activation_bytes,
            .workspace_bytes = point.workspace_bytes,
            .phase = point.phase,
            .micro_step = point.micro_step,
            .where = point.unit >= 0     ? plan.units[point.unit].name
                     : point.module >= 0 ? plan.modules[point.module]
                                         : ""};
  }
  if (peak.where.empty()) peak.where = "(root)";
  return peak;
}

}  // namespace

int64_t Plan::permanent_bytes() const {
  return states.total() - (settings.passing_gradients && settings.shards_gradients() ? states.gradients : 0);
}

void Settings::validate() const {
  HYDROFOIL_CHECK_ARG(stage >= 0 && stage <= 3, kFunction, "stage: got ", stage, ", expected 0, 1, 2 or 3");
  HYDROFOIL_CHECK_ARG(world_size >= 1, kFunction, "world_size: got ", world_size, ", expected at least 1");
  HYDROFOIL_CHECK_ARG(num_nodes >= 1 && world_size % num_nodes == 0, kFunction, "nodes: got ", num_nodes,
                      ", expected a divisor of the world size ", world_size);
  HYDROFOIL_CHECK_ARG(accumulation_steps >= 1, kFunction, "accumulation steps: got ", accumulation_steps,
                      ", expected at least 1");
  HYDROFOIL_CHECK_ARG(num_optimizer_states >= 0, kFunction, "optimizer states: got ", num_optimizer_states,
                      ", expected at least 0");
  HYDROFOIL_CHECK_ARG(alignment_bytes >= 8 && (alignment_bytes & (alignment_bytes - 1)) == 0, kFunction,
                      "alignment: got ", alignment_bytes, " bytes, expected a power of two from 8 on");
}

void Roofs::validate() const {
  for (const auto& [name, value] :
       {std::pair{"fp32_flops", fp32_flops}, std::pair{"bf16_flops", bf16_flops},
        std::pair{"memory_bytes_per_s", memory_bytes_per_s}, std::pair{"host_bytes_per_s", host_bytes_per_s},
        std::pair{"network_bytes_per_s", network_bytes_per_s}}) {
    HYDROFOIL_CHECK_ARG(value > 0, kFunction, "roof ", name, ": got ", value, ", expected more than 0");
  }
  for (const auto& [name, value] : {std::pair{"fp32_operator_bytes_per_s", fp32_operator_bytes_per_s},
                                    std::pair{"bf16_operator_bytes_per_s", bf16_operator_bytes_per_s},
                                    std::pair{"fp32_attention_flops", fp32_attention_flops},
                                    std::pair{"bf16_attention_flops", bf16_attention_flops}}) {
    HYDROFOIL_CHECK_ARG(value >= 0, kFunction, "roof ", name, ": got ", value, ", expected at least 0");
  }
  HYDROFOIL_CHECK_ARG(host_latency_s >= 0 && network_latency_s >= 0 && call_s >= 0, kFunction, "latency: got ",
                      host_latency_s, ", ", network_latency_s, " and ", call_s, " s, expected at least 0");
}

Plan make_plan(const ModelSpec& spec, const Settings& settings, const Roofs& roofs) {
  settings.validate();
  roofs.validate();
  HYDROFOIL_CHECK_ARG(!spec.parameters.empty(), kFunction, "the model has no parameters");
  HYDROFOIL_CHECK_ARG(spec.costs.empty() || spec.costs.size() == spec.modules.size(), kFunction, "costs: got ",
                      spec.costs.size(), ", expected none or one for each of ", spec.modules.size(), " modules");
  Plan plan;
  plan.settings = settings;
  plan.num_parameters = spec.num_parameters();
  plan.num_trainable = settings.training ? spec.num_trainable() : 0;
  const zero::UnitLayout layout = layout_units(spec, settings);
  plan.units = unit_bytes(spec, layout, settings);
  for (const auto& unit : plan.units) {
    plan.states += unit.states;
    plan.largest_unit_bytes = std::max(plan.largest_unit_bytes, unit.full_bytes);
  }
  for (const auto& module : spec.modules) plan.modules.push_back(module.path.empty() ? "(root)" : module.path);
  detail::StepSimulator simulator(spec, layout, plan.units, settings, roofs);
  plan.timeline = simulator.run();
  for (const auto& point : plan.timeline.memory) {
    plan.peak_slot_bytes = std::max(plan.peak_slot_bytes, point.slot_bytes);
    plan.peak_activation_bytes = std::max(plan.peak_activation_bytes, point.activation_bytes);
  }
  plan.kept_gathered_bytes = simulator.kept_gathered_bytes();
  plan.peak = find_peak(plan);
  plan.step_seconds = plan.timeline.end_s;
  for (const auto& [key, traffic] : simulator.traffic()) {
    plan.collectives.push_back({.activity = key.first,
                                .collective = key.second,
                                .count = traffic.count,
                                .bytes = traffic.bytes,
                                .moved_bytes = moved_bytes(key.second, traffic.bytes, settings.world_size)});
  }
  return plan;
}

const char* phase_name(Phase phase) {
  switch (phase) {
    case Phase::kForward:
      return "forward";
    case Phase::kBackward:
      return "backward";
    case Phase::kStep:
      return "step";
  }
  return "?";
}

const char* lane_name(Lane lane) {
  switch (lane) {
    case Lane::kCompute:
      return "compute";
    case Lane::kGather:
      return "gather";
    case Lane::kReduce:
      return "reduce";
  }
  return "?";
}

const char* activity_name(Activity activity) {
  switch (activity) {
    case Activity::kCompute:
      return "compute";
    case Activity::kGather:
      return "gather";
    case Activity::kReduce:
      return "reduce";
    case Activity::kUpdate:
      return "update";
    case Activity::kPublish:
      return "publish";
  }
  return "?";
}

}  // namespace hydrofoil::plan
