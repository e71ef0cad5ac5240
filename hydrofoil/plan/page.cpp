#include "hydrofoil/plan/page.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/plan/byte_size.h"
#include "hydrofoil/plan/detail/page_assets.h"
#include "hydrofoil/plan/detail/report_text.h"
#include "hydrofoil/storage/file.h"

namespace hydrofoil::plan {
namespace {

using detail::format_seconds;
using detail::with_commas;
using nlohmann::ordered_json;

struct Category {
  const char* name;
  const char* color;  // of the style sheet
  int64_t bytes;
};

std::vector<Category> states(const Plan& plan) {
  return {{"parameters", "parameters", plan.states.parameters},
          {"gradients", "gradients", plan.states.gradients},
          {"fp32 masters", "masters", plan.states.masters},
          {"optimizer states", "states", plan.states.optimizer_states}};
}

std::string escape(std::string_view text) {
  std::string result;
  for (const char letter : text) {
    switch (letter) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += letter;
    }
  }
  return result;
}

// JSON inside a script element: "<" stands in strings alone, and must not end the element.
std::string embed(const ordered_json& json) {
  std::string result;
  for (const char letter : json.dump(-1, ' ', true, ordered_json::error_handler_t::replace)) {
    if (letter == '<') {
      result += "\\u003c";
    } else {
      result += letter;
    }
  }
  return result;
}

ordered_json page_data(const Plan& plan, std::optional<int64_t> memory_bytes, const std::optional<Scaling>& scaling) {
  const Timeline& timeline = plan.timeline;
  ordered_json data;
  data["end_s"] = timeline.end_s;
  data["limit"] = memory_bytes ? ordered_json(*memory_bytes) : ordered_json(nullptr);
  data["gap"] = {{"at", timeline.repeated_end_s},
                 {"length", static_cast<double>(timeline.left_out_micro_steps) * timeline.micro_step_s},
                 {"count", timeline.left_out_micro_steps}};
  data["peak"] = {{"bytes", plan.peak.bytes}};
  data["states"] = ordered_json::array();
  for (const auto& state : states(plan)) data["states"].push_back({{"color", state.color}, {"bytes", state.bytes}});
  data["units"] = ordered_json::array();
  for (const auto& unit : plan.units) data["units"].push_back(unit.name);
  data["modules"] = plan.modules;
  data["events"] = ordered_json::array();
  for (const auto& event : timeline.events) {
    data["events"].push_back({activity_name(event.activity), lane_name(event.lane), phase_name(event.phase),
                              event.micro_step, event.unit, event.module, event.begin_s, event.end_s, event.bytes});
  }
  data["memory"] = ordered_json::array();
  for (const auto& point : timeline.memory) {
    data["memory"].push_back({point.time_s, point.slot_bytes, point.activation_bytes, point.workspace_bytes,
                              phase_name(point.phase), point.micro_step, point.unit, point.module});
  }
  if (scaling) data["scaling"] = ordered_json::parse(to_json(*scaling));
  return data;
}

std::string swatch(const std::string& color) {
  return "<span class=\"swatch\" style=\"background: var(--" + color + ")\"></span>";
}

// A table of which the first column is text, marked up, and the others are numbers. Rows may have a class.
struct Row {
  std::vector<std::string> cells;
  std::string style;
};

std::string table(const std::string& id, const std::vector<std::string>& heads, const std::vector<Row>& rows,
                  const std::string& last_style = "") {
  const auto cell = [&](const char* tag, size_t column, size_t count, const std::string& text) {
    std::string style = column > 0 ? "number" : "";
    if (column > 1 && column + 1 == count) style += last_style;
    return std::string("<") + tag + (style.empty() ? "" : " class=\"" + style + "\"") + ">" + text + "</" + tag + ">";
  };
  std::string text = "<div class=\"scroll\"><table id=\"" + id + "\"><thead><tr>";
  for (size_t i = 0; i < heads.size(); ++i) text += cell("th", i, heads.size(), heads[i]);
  text += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    text += row.style.empty() ? "<tr>" : "<tr class=\"" + row.style + "\">";
    for (size_t i = 0; i < row.cells.size(); ++i) text += cell("td", i, row.cells.size(), row.cells[i]);
    text += "</tr>\n";
  }
  return text + "</tbody></table></div>\n";
}

std::string bytes_table(const Plan& plan, std::optional<int64_t> memory_bytes) {
  std::vector<Row> rows;
  const auto add = [&](const std::string& name, int64_t bytes, const std::string& style = "") {
    rows.push_back({{name, format_bytes(bytes), with_commas(bytes)}, style});
  };
  for (const auto& state : states(plan)) add(swatch(state.color) + state.name, state.bytes);
  add("states in all", plan.states.total(), "sum");
  add(swatch("slots") + "gathered units and buckets, most", plan.peak_slot_bytes);
  add(swatch("activations") + "activations, most", plan.peak_activation_bytes);
  add(swatch("workspace") + "temporaries, at the peak", plan.peak.workspace_bytes);
  const bool over = memory_bytes && plan.peak.bytes > *memory_bytes;
  add("peak", plan.peak.bytes, over ? "sum over" : "sum");
  if (memory_bytes) add("memory of a rank", *memory_bytes);
  return table("bytes", {"Bytes a rank", "", "exactly"}, rows, " exact");
}

std::string collectives_table(const Plan& plan) {
  std::vector<Row> rows;
  for (const auto& total : plan.collectives) {
    rows.push_back(
        {{swatch(total.activity == Activity::kReduce ? "reduce" : "gather") + activity_name(total.activity) + ": " +
              collective_name(total.collective),
          with_commas(total.count), format_bytes(total.bytes), format_bytes(static_cast<int64_t>(total.moved_bytes))},
         ""});
  }
  if (rows.empty()) return "<p class=\"soft\" id=\"collectives\">No collectives.</p>\n";
  return table("collectives", {"Collectives a step", "count", "tensors", "a rank sends"}, rows);
}

std::string units_table(const Plan& plan) {
  std::vector<const UnitBytes*> units;
  for (const auto& unit : plan.units) units.push_back(&unit);
  std::stable_sort(units.begin(), units.end(),
                   [](const auto* a, const auto* b) { return a->full_bytes > b->full_bytes; });
  constexpr size_t kShown = 12;
  std::vector<Row> rows;
  for (size_t i = 0; i < std::min(kShown, units.size()); ++i) {
    rows.push_back({{escape(units[i]->name), with_commas(units[i]->numel), format_bytes(units[i]->full_bytes),
                     format_bytes(units[i]->states.total())},
                    ""});
  }
  std::string text = table("units", {"Largest units", "parameters", "gathered", "states a rank"}, rows);
  if (units.size() > kShown)
    text += "<p class=\"soft\">and " + with_commas(static_cast<int64_t>(units.size() - kShown)) +
            " smaller or like them</p>\n";
  return text;
}

std::string scaling_section(const Scaling& scaling) {
  std::vector<Row> rows;
  for (const auto& p : scaling.points) {
    std::array<char, 32> efficiency{};
    std::snprintf(efficiency.data(), efficiency.size(), "%.1f %%", 100 * p.efficiency);
    rows.push_back(
        {{swatch("stage" + std::to_string(p.stage)) + std::to_string(p.world_size) + " ranks, stage " +
              std::to_string(p.stage),
          format_seconds(p.step_seconds), efficiency.data(), format_bytes(static_cast<int64_t>(p.moved_bytes)),
          format_bytes(p.state_bytes), format_bytes(p.peak_bytes)},
         ""});
  }
  std::string text =
      "<h2>Scaling</h2>\n<p class=\"soft\">Forward and backward as a share of the step, by the alpha-beta model of the "
      "links; each rank keeps its micro batches.</p>\n<ul class=\"legend\">";
  for (const char* stage : {"1", "2", "3"})
    text += "<li>" + swatch(std::string("stage") + stage) + "stage " + stage + "</li>";
  text += "</ul>\n<div id=\"scaling\"></div>\n";
  return text + "<details><summary>The numbers</summary>\n" +
         table("scaling-table", {"Job", "step", "efficiency", "a rank sends", "states a rank", "peak a rank"}, rows) +
         "</details>\n";
}

std::string legend(const Plan& plan) {
  std::string text = "<ul class=\"legend\">";
  for (const auto& state : states(plan)) {
    if (state.bytes > 0) text += "<li>" + swatch(state.color) + state.name + "</li>";
  }
  for (const auto& [color, name] :
       {std::pair{"slots", "gathered units and buckets"}, std::pair{"activations", "activations"},
        std::pair{"workspace", "temporaries"}, std::pair{"forward", "forward"}, std::pair{"backward", "backward"},
        std::pair{"update", "update"}, std::pair{"gather", "gather"}, std::pair{"reduce", "reduce"}}) {
    text += "<li>" + swatch(color) + name + "</li>";
  }
  return text + "</ul>\n";
}

std::string number(const std::string& name, const std::string& value, bool over = false) {
  return std::string("<div") + (over ? " class=\"over\"" : "") + "><b>" + value + "</b>" + name + "</div>\n";
}

std::string timeline_section(const Plan& plan) {
  const int64_t left_out = plan.timeline.left_out_micro_steps;
  std::string text = "<h2>One step</h2>\n" + legend(plan);
  text += "<div class=\"bar soft\"><span>Hover for names and bytes; drag to zoom.";
  if (left_out > 0) {
    text += " " + with_commas(left_out) + (left_out == 1 ? " micro step" : " micro steps") +
            " like the one before, at the dashed line, " + (left_out == 1 ? "is" : "are") + " not drawn.";
  }
  return text +
         "</span><button id=\"whole-step\" hidden>Whole step</button></div>\n<div "
         "id=\"timeline\"></div>\n<noscript><p>The drawing needs JavaScript; the tables do not.</p></noscript>\n";
}

}  // namespace

std::string to_html(const Plan& plan, std::optional<int64_t> memory_bytes, const std::optional<Scaling>& scaling) {
  const bool over = memory_bytes && plan.peak.bytes > *memory_bytes;
  std::string html(kPageStart);
  html += "<html lang=\"en\"><head><meta charset=\"utf-8\">\n";
  // Nothing is loaded, whatever stands in the page.
  html +=
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'unsafe-inline'\">\n";
  html +=
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Plan of a training "
      "step</title>\n<style>";
  html += detail::kPageStyle;
  html += "</style></head><body>\n<h1>Plan of a training step</h1>\n<p class=\"soft\">" +
          escape(detail::heading(plan)) + "</p>\n";
  html += "<div class=\"numbers\">\n" +
          number(over ? "peak a rank: does not fit" : "peak a rank", format_bytes(plan.peak.bytes), over) +
          number("states a rank", format_bytes(plan.states.total()));
  html += number("a step, predicted", format_seconds(plan.step_seconds));
  double moved = 0.0;
  for (const auto& total : plan.collectives) moved += total.moved_bytes;
  html += number("a rank sends a step", format_bytes(static_cast<int64_t>(moved))) + "</div>\n";
  html += timeline_section(plan);
  html += std::string("<p>The peak is in ") + phase_name(plan.peak.phase) +
          (plan.peak.phase == Phase::kStep ? "" : " of micro step " + with_commas(plan.peak.micro_step + 1)) + " at " +
          escape(plan.peak.where) + ".</p>\n";
  html += "<div class=\"tables\"><section><h2>Memory</h2>\n" + bytes_table(plan, memory_bytes) +
          "</section>\n<section><h2>Communication</h2>\n" + collectives_table(plan) + "</section></div>\n";
  if (scaling) html += scaling_section(*scaling);
  html += "<h2>Units</h2>\n" + units_table(plan);
  html += "<div id=\"tip\" role=\"status\" hidden></div>\n<script type=\"application/json\" id=\"plan-data\">" +
          embed(page_data(plan, memory_bytes, scaling)) + "</script>\n<script>";
  html += detail::kPageScript;
  return html + "</script>\n</body></html>\n";
}

void write_page(const std::string& path, const std::string& html) {
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) {
    const storage::File old = storage::File::open(path);
    std::string start(std::min<size_t>(kPageStart.size(), static_cast<size_t>(old.size())), '\0');
    old.read_at(start.data(), static_cast<int64_t>(start.size()), 0);
    HYDROFOIL_CHECK_ARG(start == kPageStart, "write_page", "'", path,
                        "': got a file that is no page of hydrofoil plan, expected such a page or no file");
  }
  storage::write_file_atomically(path, html);
}

}  // namespace hydrofoil::plan
