#include "hydrofoil/trace/summary.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/strict_json.h"
#include "hydrofoil/trace/event.h"

namespace hydrofoil::trace {
namespace {

using Json = nlohmann::json;
constexpr int kMaxDepth = 8;
constexpr int64_t kMaxRanks = 1 << 24;
constexpr const char* kFunction = "hydrofoil trace";

// In whole nanoseconds, as the file has them: one event ends exactly where the next begins.
struct Slice {
  std::string what;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t own = 0;  // without what is nested in it
};

struct Rank {
  std::array<std::vector<Slice>, kNumLanes> lanes;
};

// What is wrong with event `index` of a file is named from here.
struct Reader {
  std::string_view file;
  size_t index = 0;

  [[nodiscard]] const Json& find(const Json& event, const char* key, bool (*good)(const Json&),
                                 const char* expected) const {
    const auto found = event.find(key);
    HYDROFOIL_CHECK_ARG(found != event.end() && good(*found), kFunction, "'", file, "': traceEvents[", index, "].", key,
                        ": got ", found == event.end() ? "nothing" : found->dump(), ", expected ", expected);
    return *found;
  }
  [[nodiscard]] std::string text(const Json& event, const char* key) const {
    return find(
               event, key, [](const Json& value) { return value.is_string(); }, "a string")
        .get<std::string>();
  }
  // Of a number of microseconds.
  [[nodiscard]] int64_t nanoseconds(const Json& event, const char* key) const {
    const auto is_time = [](const Json& value) { return value.is_number() && std::abs(value.get<double>()) < 1e15; };
    return std::llround(1e3 * find(event, key, is_time, "a number of microseconds below 1e15").get<double>());
  }
  // From 0, below `end`.
  [[nodiscard]] int64_t number(const Json& event, const char* key, int64_t end) const {
    const auto is_integer = [](const Json& value) { return value.is_number_integer(); };
    const auto value = find(event, key, is_integer, "an integer").get<int64_t>();
    HYDROFOIL_CHECK_ARG(value >= 0 && value < end, kFunction, "'", file, "': traceEvents[", index, "].", key, ": got ",
                        value, ", expected 0 to ", end - 1);
    return value;
  }
};

std::map<int64_t, Rank> read(std::string_view text, std::string_view file) {
  const Json root = storage::parse_strict_json(text, kFunction, file, kMaxDepth);
  HYDROFOIL_CHECK_ARG(root.is_object() && root.contains("traceEvents") && root["traceEvents"].is_array(), kFunction,
                      "'", file, "': got no list traceEvents, expected a file that hydrofoil.trace wrote");
  std::map<int64_t, Rank> ranks;
  Reader reader{file};
  for (const Json& event : root["traceEvents"]) {
    HYDROFOIL_CHECK_ARG(event.is_object(), kFunction, "'", file, "': traceEvents[", reader.index, "]: got a ",
                        event.type_name(), ", expected an object");
    if (reader.text(event, "ph") == "X") {
      const int64_t begin = reader.nanoseconds(event, "ts");
      const int64_t length = reader.nanoseconds(event, "dur");
      ranks[reader.number(event, "pid", kMaxRanks)].lanes[reader.number(event, "tid", kNumLanes)].push_back(
          {reader.text(event, "cat"), begin, begin + length, length});
    }
    ++reader.index;
  }
  HYDROFOIL_CHECK_ARG(!ranks.empty(), kFunction, "'", file, "': it has no events");
  return ranks;
}

void take_off_nested(std::vector<Slice>& slices) {
  std::stable_sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  std::vector<Slice*> open;
  for (Slice& slice : slices) {
    while (!open.empty() && open.back()->end <= slice.begin) open.pop_back();
    if (!open.empty()) open.back()->own -= std::min(slice.end, open.back()->end) - slice.begin;
    open.push_back(&slice);
  }
}

template <typename... Args>
void append(std::string& text, const char* pattern, Args... args) {
  std::array<char, 256> line{};
  std::snprintf(line.data(), line.size(), pattern, args...);
  text += line.data();
}

}  // namespace

std::string summarize(std::string_view text, std::string_view file) {
  std::string table;
  append(table, "%-6s %-8s %-22s %8s %13s %9s\n", "rank", "lane", "what", "a step", "ms a step", "of step");
  for (auto& [number, rank] : read(text, file)) {
    int64_t step_ns = 0;
    int num_steps = 0;
    for (const Slice& slice : rank.lanes[static_cast<size_t>(Lane::kStep)]) {
      if (slice.what != "step") continue;
      step_ns += slice.end - slice.begin;
      ++num_steps;
    }
    HYDROFOIL_CHECK_ARG(num_steps > 0, kFunction, "'", file, "': rank ", number, " has no event of category step");
    append(table, "%-6lld %-8s %-22s %8d %13.3f\n", static_cast<long long>(number), "step", "a step, whole", 1,
           1e-6 * static_cast<double>(step_ns) / num_steps);
    for (size_t lane = 0; lane < kNumLanes; ++lane) {
      take_off_nested(rank.lanes[lane]);
      std::map<std::string, std::pair<int64_t, int64_t>> sums;
      for (const Slice& slice : rank.lanes[lane]) {
        auto& [count, own] = sums[slice.what == "step" ? "rest of the step" : slice.what];
        ++count;
        own += slice.own;
      }
      for (const auto& [what, sum] : sums) {
        append(table, "%-6lld %-8s %-22.22s %8.1f %13.3f %8.1f%%\n", static_cast<long long>(number),
               lane_name(static_cast<Lane>(lane)), what.c_str(), static_cast<double>(sum.first) / num_steps,
               1e-6 * static_cast<double>(sum.second) / num_steps,
               100.0 * static_cast<double>(sum.second) / static_cast<double>(step_ns));
      }
    }
  }
  return table;
}

}  // namespace hydrofoil::trace
