#include "apps/doctor/report.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

namespace hydrofoil::doctor {
namespace {

constexpr size_t kNameWidth = 16;
constexpr size_t kLevelWidth = 9;

std::string padded(std::string text, size_t width) {
  text.resize(std::max(text.size() + 1, width), ' ');
  return text;
}

// One line: an exception's text may have several.
std::string one_line(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const bool control = static_cast<unsigned char>(c) < 32 || c == 127;
    if (!control) result += c;
    if (control && !result.empty() && result.back() != ' ') result += ' ';
  }
  return result;
}

std::string counted(int64_t count, const std::string& noun) {
  return (count == 0 ? "no" : std::to_string(count)) + " " + noun + (count == 1 ? "" : "s");
}

}  // namespace

const char* level_name(Level level) {
  switch (level) {
    case Level::kOk:
      return "ok";
    case Level::kWarning:
      return "warning";
    case Level::kProblem:
      return "problem";
  }
  return "unknown";
}

int64_t count_of(const std::vector<Finding>& findings, Level level) {
  return std::count_if(findings.begin(), findings.end(), [&](const Finding& one) { return one.level == level; });
}

void print_report(const Report& report, std::ostream& out) {
  const auto& [findings, settings, hide_problems] = report;
  const std::string* section = nullptr;
  for (const Finding& one : findings) {
    if (hide_problems && one.level != Level::kOk) continue;
    if (section == nullptr || *section != one.section) out << (section == nullptr ? "" : "\n") << one.section << "\n";
    section = &one.section;
    out << "  " << padded(level_name(one.level), kLevelWidth) << padded(one.name, kNameWidth) << one_line(one.value)
        << "\n";
    if (!one.advice.empty()) out << std::string(2 + kLevelWidth, ' ') << "-> " << one_line(one.advice) << "\n";
  }
  if (!settings.empty()) out << "\nSet in the environment\n";
  for (const auto& [name, value] : settings) out << "  " << name << "=" << one_line(value) << "\n";
  out << "\n"
      << counted(count_of(findings, Level::kProblem), "problem") << ", "
      << counted(count_of(findings, Level::kWarning), "warning") << "\n";
}

void print_report_json(const Report& report, std::ostream& out) {
  using Json = nlohmann::ordered_json;
  const auto& [findings, settings, hide_problems] = report;
  Json rows = Json::array();
  for (const Finding& one : findings) {
    if (hide_problems && one.level != Level::kOk) continue;
    rows.push_back({{"section", one.section},
                    {"name", one.name},
                    {"level", level_name(one.level)},
                    {"value", one.value},
                    {"advice", one.advice}});
  }
  Json variables = Json::object();
  for (const auto& [name, value] : settings) variables[name] = value;
  const Json all = {{"findings", rows},
                    {"settings", variables},
                    {"warnings", count_of(findings, Level::kWarning)},
                    {"problems", count_of(findings, Level::kProblem)}};
  // Paths and variables are bytes of any kind.
  out << all.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
}

}  // namespace hydrofoil::doctor
