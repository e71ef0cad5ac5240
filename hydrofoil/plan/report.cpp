#include "hydrofoil/plan/report.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/plan/byte_size.h"
#include "hydrofoil/plan/detail/report_text.h"

namespace hydrofoil::plan {
namespace {

using detail::format_seconds;
using detail::heading;
using detail::with_commas;
using hydrofoil::detail::concat;
using nlohmann::ordered_json;

std::string line(const std::string& name, const std::string& value, const std::string& note = "") {
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(), "  %-34s %12s  %s", name.c_str(), value.c_str(), note.c_str());
  std::string result = text.data();
  while (result.ends_with(' ')) result.pop_back();
  return result + "\n";
}

std::string bytes_line(const std::string& name, int64_t num_bytes) {
  return line(name, format_bytes(num_bytes), with_commas(num_bytes));
}

// Units of one size stand in one line.
std::string unit_lines(const Plan& plan) {
  std::vector<std::pair<const UnitBytes*, int>> shapes;
  for (const auto& unit : plan.units) {
    const auto same = std::find_if(shapes.begin(), shapes.end(), [&](const auto& shape) {
      return shape.first->numel == unit.numel && shape.first->full_bytes == unit.full_bytes;
    });
    if (same == shapes.end()) {
      shapes.emplace_back(&unit, 1);
    } else {
      ++same->second;
    }
  }
  std::stable_sort(shapes.begin(), shapes.end(),
                   [](const auto& a, const auto& b) { return a.first->full_bytes > b.first->full_bytes; });
  constexpr size_t kShown = 8;
  std::string text = "\nunits, gathered\n";
  for (size_t i = 0; i < std::min(kShown, shapes.size()); ++i) {
    const auto& [unit, count] = shapes[i];
    text += line(unit->name + (count > 1 ? concat(" and ", count - 1, " like it") : ""), format_bytes(unit->full_bytes),
                 with_commas(unit->numel) + " parameters");
  }
  if (shapes.size() > kShown) text += concat("  and ", shapes.size() - kShown, " smaller shapes\n");
  return text;
}

}  // namespace

std::string to_text(const Plan& plan) {
  std::string text = heading(plan) + "\n";
  text += "\nbytes a rank\n";
  text += bytes_line("parameters", plan.states.parameters);
  text += bytes_line("gradients", plan.states.gradients);
  text += bytes_line("fp32 masters", plan.states.masters);
  text += bytes_line("optimizer states", plan.states.optimizer_states);
  text += bytes_line("states in all", plan.states.total());
  text += bytes_line("gathered units and buckets, most", plan.peak_slot_bytes);
  if (plan.kept_gathered_bytes > 0) text += bytes_line("  of units that stay until the step", plan.kept_gathered_bytes);
  text += bytes_line("activations, most", plan.peak_activation_bytes);
  text += bytes_line("peak", plan.peak.bytes);
  text += concat("  in ", phase_name(plan.peak.phase), " of micro step ", plan.peak.micro_step + 1, " at ",
                 plan.peak.where, ": ", format_bytes(plan.peak.state_bytes), " states, ",
                 format_bytes(plan.peak.slot_bytes), " slots, ", format_bytes(plan.peak.activation_bytes),
                 " activations, ", format_bytes(plan.peak.workspace_bytes), " temporaries\n");
  text += unit_lines(plan);
  if (!plan.collectives.empty()) text += "\ncollectives a step\n";
  for (const auto& total : plan.collectives) {
    text += line(concat(activity_name(total.activity), ": ", total.count, " ", collective_name(total.collective)),
                 format_bytes(total.bytes), "a rank sends " + format_bytes(static_cast<int64_t>(total.moved_bytes)));
  }
  text += "\ntime of a step, predicted\n" + line("step", format_seconds(plan.step_seconds));
  return text;
}

namespace {

ordered_json unit_json(const UnitBytes& unit) {
  return {{"name", unit.name},
          {"numel", unit.numel},
          {"full_bytes", unit.full_bytes},
          {"state_bytes", unit.states.total()},
          {"gather_slot_bytes", unit.gather_slot},
          {"bucket_slot_bytes", unit.bucket_slot}};
}

ordered_json timeline_json(const Plan& plan) {
  ordered_json events = ordered_json::array();
  for (const auto& event : plan.timeline.events) {
    events.push_back({{"activity", activity_name(event.activity)},
                      {"lane", lane_name(event.lane)},
                      {"phase", phase_name(event.phase)},
                      {"micro_step", event.micro_step},
                      {"unit", event.unit},
                      {"module", event.module >= 0 ? plan.modules[event.module] : ""},
                      {"begin_s", event.begin_s},
                      {"end_s", event.end_s},
                      {"bytes", event.bytes}});
  }
  ordered_json memory = ordered_json::array();
  for (const auto& point : plan.timeline.memory) {
    memory.push_back({{"time_s", point.time_s},
                      {"slot_bytes", point.slot_bytes},
                      {"activation_bytes", point.activation_bytes},
                      {"gradient_bytes", point.gradient_bytes},
                      {"workspace_bytes", point.workspace_bytes},
                      {"phase", phase_name(point.phase)},
                      {"micro_step", point.micro_step},
                      {"unit", point.unit},
                      {"module", point.module >= 0 ? plan.modules[point.module] : ""}});
  }
  return {{"left_out_micro_steps", plan.timeline.left_out_micro_steps},
          {"micro_step_s", plan.timeline.micro_step_s},
          {"end_s", plan.timeline.end_s},
          {"events", events},
          {"memory", memory}};
}

}  // namespace

std::string to_json(const Plan& plan, bool with_timeline) {
  const Settings& settings = plan.settings;
  ordered_json json;
  json["world_size"] = settings.world_size;
  json["num_nodes"] = settings.num_nodes;
  json["stage"] = settings.stage;
  json["model_dtype"] = settings.model_dtype ? ordered_json(dtype_text(*settings.model_dtype)) : ordered_json(nullptr);
  json["grad_accum_dtype"] = dtype_text(settings.accumulation_dtype);
  json["optimizer_state_dtype"] = dtype_text(settings.optimizer_state_dtype);
  json["micro_batch_size"] = settings.micro_batch_size;
  json["gradient_accumulation_steps"] = settings.accumulation_steps;
  json["num_parameters"] = plan.num_parameters;
  json["num_trainable"] = plan.num_trainable;
  json["bytes"] = {{"parameters", plan.states.parameters},
                   {"gradients", plan.states.gradients},
                   {"masters", plan.states.masters},
                   {"optimizer_states", plan.states.optimizer_states},
                   {"states", plan.states.total()},
                   {"permanent", plan.permanent_bytes()},
                   {"peak_slots", plan.peak_slot_bytes},
                   {"kept_gathered", plan.kept_gathered_bytes},
                   {"peak_activations", plan.peak_activation_bytes},
                   {"peak", plan.peak.bytes}};
  json["peak"] = {{"phase", phase_name(plan.peak.phase)},
                  {"micro_step", plan.peak.micro_step},
                  {"where", plan.peak.where},
                  {"state_bytes", plan.peak.state_bytes},
                  {"slot_bytes", plan.peak.slot_bytes},
                  {"activation_bytes", plan.peak.activation_bytes},
                  {"workspace_bytes", plan.peak.workspace_bytes}};
  json["largest_unit_bytes"] = plan.largest_unit_bytes;
  json["units"] = ordered_json::array();
  for (const auto& unit : plan.units) json["units"].push_back(unit_json(unit));
  json["collectives"] = ordered_json::array();
  for (const auto& total : plan.collectives) {
    json["collectives"].push_back({{"activity", activity_name(total.activity)},
                                   {"collective", collective_name(total.collective)},
                                   {"count", total.count},
                                   {"bytes", total.bytes},
                                   {"moved_bytes", total.moved_bytes}});
  }
  json["step_seconds"] = plan.step_seconds;
  if (with_timeline) json["timeline"] = timeline_json(plan);
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace hydrofoil::plan
