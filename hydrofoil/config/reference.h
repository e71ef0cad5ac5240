#pragma once

#include <string>

#include "hydrofoil/config/field.h"

namespace hydrofoil::config {

// Markdown of a section's keys: a heading, the section's doc, and a table (key, takes, default, meaning); nested
// sections follow. `title` is the heading of the section itself, `path` the prefix of its keys.
[[nodiscard]] std::string section_markdown(const Section& section, const std::string& title, const std::string& path);

}  // namespace hydrofoil::config
