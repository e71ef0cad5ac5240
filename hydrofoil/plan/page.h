#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "hydrofoil/plan/plan.h"
#include "hydrofoil/plan/scaling.h"

namespace hydrofoil::plan {

// How a page begins, by which it is told from other files.
inline constexpr std::string_view kPageStart = "<!doctype html>\n<!-- hydrofoil plan -->\n";

// The plan as one HTML page that needs nothing else: memory over one step and what computes and communicates meanwhile,
// tables of bytes, collectives and units, and `scaling` as a curve. `memory_bytes` of a rank are drawn as a line. Names
// are escaped: no text of the model's acts as HTML or script.
[[nodiscard]] std::string to_html(const Plan& plan, std::optional<int64_t> memory_bytes = std::nullopt,
                                  const std::optional<Scaling>& scaling = std::nullopt);

// Writes a page, whole or not at all. Throws InvalidArgument where `path` is a file that is no such page, SystemError
// where it cannot be written.
void write_page(const std::string& path, const std::string& html);

}  // namespace hydrofoil::plan
