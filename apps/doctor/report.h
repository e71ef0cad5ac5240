#pragma once

#include <iosfwd>
#include <string>
#include <utility>
#include <vector>

#include "apps/doctor/finding.h"

namespace hydrofoil::doctor {

using Settings = std::vector<std::pair<std::string, std::string>>;

// For people: a section a block, "->" before what to do, the counts at the end. Control characters of what came from
// outside are replaced.
void print_findings(const std::vector<Finding>& findings, const Settings& settings, std::ostream& out);

// For programs: {"findings": [{"section", "name", "level", "value", "advice"}], "settings": {...}, "warnings",
// "problems"}.
void print_findings_json(const std::vector<Finding>& findings, const Settings& settings, std::ostream& out);

[[nodiscard]] int64_t count_of(const std::vector<Finding>& findings, Level level);

}  // namespace hydrofoil::doctor
