#include "hydrofoil/plan/scaling.h"

#include <array>
#include <bit>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hydrofoil/base/error.h"
#include "hydrofoil/plan/byte_size.h"
#include "hydrofoil/plan/detail/report_text.h"
#include "hydrofoil/plan/plan.h"

namespace hydrofoil::plan {
namespace {

constexpr const char* kFunction = "plan_scaling";

const char* algorithm_name(CollectiveAlgorithm algorithm) {
  return algorithm == CollectiveAlgorithm::kRing ? "ring" : "recursive";
}

// Micro steps that the timeline leaves out repeat what one of the listed does.
double repeats(const Plan& plan, int64_t micro_step, Phase phase) {
  return micro_step == plan.timeline.repeated_micro_step && phase != Phase::kStep
             ? 1.0 + static_cast<double>(plan.timeline.left_out_micro_steps)
             : 1.0;
}

ScalingPoint point_of(const Plan& plan) {
  ScalingPoint point{.stage = plan.settings.stage,
                     .world_size = plan.settings.world_size,
                     .step_seconds = plan.step_seconds,
                     .state_bytes = plan.states.total(),
                     .peak_bytes = plan.peak.bytes};
  for (const auto& event : plan.timeline.events) {
    const double seconds = (event.end_s - event.begin_s) * repeats(plan, event.micro_step, event.phase);
    if (event.activity == Activity::kCompute) point.compute_seconds += seconds;
    if (event.lane != Lane::kCompute) point.communication_seconds += seconds;
  }
  for (const auto& total : plan.collectives) {
    point.num_collectives += total.count;
    point.moved_bytes += total.moved_bytes;
  }
  point.efficiency = point.compute_seconds / point.step_seconds;
  return point;
}

}  // namespace

Scaling plan_scaling(const ModelSpec& spec, const Settings& settings, const Roofs& roofs, int max_ranks,
                     int ranks_per_node) {
  HYDROFOIL_CHECK_ARG(max_ranks >= 2, kFunction, "max ranks: got ", max_ranks, ", expected at least 2");
  HYDROFOIL_CHECK_ARG(ranks_per_node >= 1 && std::has_single_bit(static_cast<unsigned>(ranks_per_node)), kFunction,
                      "ranks a node: got ", ranks_per_node, ", expected a power of two");
  HYDROFOIL_CHECK_ARG(!spec.costs.empty(), kFunction, "the model has no costs of compute");
  Scaling scaling{.roofs = roofs, .ranks_per_node = ranks_per_node};
  for (int64_t world_size = 2; world_size <= max_ranks; world_size *= 2) {
    for (const int stage : {1, 2, 3}) {
      Settings at = settings;
      at.stage = stage;
      at.world_size = static_cast<int>(world_size);
      at.num_nodes = std::max(1, at.world_size / ranks_per_node);
      at.shares_parameters = at.narrow_buckets = false;
      scaling.points.push_back(point_of(make_plan(spec, at, roofs)));
    }
  }
  return scaling;
}

std::string to_text(const Scaling& scaling) {
  const Roofs& roofs = scaling.roofs;
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(),
                "weak scaling over %s collectives, %d ranks a node; %s and %.3g GB/s a link between nodes%s; nothing "
                "is measured\n\n",
                algorithm_name(roofs.algorithm), scaling.ranks_per_node,
                detail::format_seconds(roofs.network_latency_s).c_str(), 1e-9 * roofs.network_bytes_per_s,
                roofs.overlaps ? ", overlapped with compute" : "");
  std::string result = text.data();
  result += "  ranks  stage         step  efficiency  communication  a rank sends  states a rank  peak a rank\n";
  for (const auto& p : scaling.points) {
    std::snprintf(text.data(), text.size(), "%7d  %5d  %11s  %8.1f %%  %13s  %12s  %13s  %11s\n", p.world_size, p.stage,
                  detail::format_seconds(p.step_seconds).c_str(), 100 * p.efficiency,
                  detail::format_seconds(p.communication_seconds).c_str(),
                  format_bytes(static_cast<int64_t>(p.moved_bytes)).c_str(), format_bytes(p.state_bytes).c_str(),
                  format_bytes(p.peak_bytes).c_str());
    result += text.data();
  }
  return result;
}

std::string to_json(const Scaling& scaling) {
  nlohmann::ordered_json json;
  const Roofs& roofs = scaling.roofs;
  json["collectives"] = algorithm_name(roofs.algorithm);
  json["ranks_per_node"] = scaling.ranks_per_node;
  json["host_latency_s"] = roofs.host_latency_s;
  json["host_bytes_per_s"] = roofs.host_bytes_per_s;
  json["network_latency_s"] = roofs.network_latency_s;
  json["network_bytes_per_s"] = roofs.network_bytes_per_s;
  json["overlaps"] = roofs.overlaps;
  json["points"] = nlohmann::ordered_json::array();
  for (const auto& p : scaling.points) {
    json["points"].push_back({{"stage", p.stage},
                              {"world_size", p.world_size},
                              {"step_seconds", p.step_seconds},
                              {"compute_seconds", p.compute_seconds},
                              {"communication_seconds", p.communication_seconds},
                              {"efficiency", p.efficiency},
                              {"num_collectives", p.num_collectives},
                              {"moved_bytes", p.moved_bytes},
                              {"state_bytes", p.state_bytes},
                              {"peak_bytes", p.peak_bytes}});
  }
  return json.dump(2) + "\n";
}

}  // namespace hydrofoil::plan
