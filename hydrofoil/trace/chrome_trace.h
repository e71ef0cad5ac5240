#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hydrofoil/trace/event.h"

namespace hydrofoil::trace {

// The events of one rank as JSON objects of the Trace Event Format, one a line: pid is the rank, tid the lane, times
// are microseconds after `origin_ns`. Where the end of an event lies within a later one of its lane (a unit's backward
// ends when the gradient of its input is there, which begins the next one's), the earlier ends where the later begins.
[[nodiscard]] std::string rank_lines(std::vector<Event> events, int rank, int64_t origin_ns);

// One file that chrome://tracing and ui.perfetto.dev open, of the ranks' lines.
[[nodiscard]] std::string chrome_trace(const std::vector<std::string>& ranks);

}  // namespace hydrofoil::trace
