#pragma once

#include <iosfwd>
#include <string>
#include <utility>
#include <vector>

#include "apps/doctor/finding.h"

namespace hydrofoil::doctor {

using Settings = std::vector<std::pair<std::string, std::string>>;

struct Report {
  const std::vector<Finding>& findings;
  const Settings& settings;
  bool hide_problems = false;  // only the lines that are ok; the counts are of all
};

// For people: a section a block, "->" before what to do, the counts at the end. Control characters of what came from
// outside are replaced.
void print_report(const Report& report, std::ostream& out);

// For programs: {"findings": [{"section", "name", "level", "value", "advice"}], "settings": {...}, "warnings",
// "problems"}.
void print_report_json(const Report& report, std::ostream& out);

[[nodiscard]] int64_t count_of(const std::vector<Finding>& findings, Level level);

}  // namespace hydrofoil::doctor
