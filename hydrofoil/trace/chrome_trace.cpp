#include "hydrofoil/trace/chrome_trace.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace hydrofoil::trace {
namespace {

using Json = nlohmann::ordered_json;

void append(std::string& lines, const Json& object) {
  lines += object.dump(-1, ' ', false, Json::error_handler_t::replace);
  lines += ",\n";
}

Json metadata(const char* name, int rank, int lane, Json arguments) {
  return {{"name", name}, {"ph", "M"}, {"pid", rank}, {"tid", lane}, {"args", std::move(arguments)}};
}

// Of one lane.
void nest(std::vector<Event*>& events) {
  std::stable_sort(events.begin(), events.end(), [](const Event* a, const Event* b) {
    return a->begin_ns != b->begin_ns ? a->begin_ns < b->begin_ns : a->end_ns > b->end_ns;
  });
  std::vector<Event*> open;
  for (Event* event : events) {
    while (!open.empty() && open.back()->end_ns < event->end_ns) {
      open.back()->end_ns = std::min(open.back()->end_ns, event->begin_ns);
      open.pop_back();
    }
    open.push_back(event);
  }
}

}  // namespace

std::string rank_lines(std::vector<Event> events, int rank, int64_t origin_ns) {
  std::string lines;
  append(lines, metadata("process_name", rank, 0, {{"name", "rank " + std::to_string(rank)}}));
  append(lines, metadata("process_sort_index", rank, 0, {{"sort_index", rank}}));
  std::array<std::vector<Event*>, kNumLanes> lanes;
  for (Event& event : events) lanes.at(static_cast<size_t>(event.lane)).push_back(&event);
  for (int lane = 0; lane < kNumLanes; ++lane) {
    append(lines, metadata("thread_name", rank, lane, {{"name", lane_name(static_cast<Lane>(lane))}}));
    append(lines, metadata("thread_sort_index", rank, lane, {{"sort_index", lane}}));
    nest(lanes[lane]);
    for (const Event* event : lanes[lane]) {
      Json object = {{"name", event->subject.empty() ? event->what : event->what + " " + event->subject},
                     {"cat", event->what},
                     {"ph", "X"},
                     {"ts", 1e-3 * static_cast<double>(event->begin_ns - origin_ns)},
                     {"dur", 1e-3 * static_cast<double>(event->end_ns - event->begin_ns)},
                     {"pid", rank},
                     {"tid", lane}};
      if (event->bytes > 0) object["args"] = {{"bytes", event->bytes}};
      append(lines, object);
    }
  }
  return lines;
}

std::string chrome_trace(const std::vector<std::string>& ranks) {
  std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n";
  for (const std::string& lines : ranks) text += lines;
  if (text.ends_with(",\n")) text.resize(text.size() - 2);
  return text + "\n]}\n";
}

}  // namespace hydrofoil::trace
