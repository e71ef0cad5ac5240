#pragma once

#include <string>
#include <string_view>

namespace hydrofoil::trace {

// Where the time of a trace file goes, as a table: for each rank and each lane, the milliseconds a step of each kind of
// event, what is nested in it taken off. `file` is named in errors.
//
// Throws InvalidArgument where the text is no trace that hydrofoil wrote.
[[nodiscard]] std::string summarize(std::string_view text, std::string_view file);

}  // namespace hydrofoil::trace
