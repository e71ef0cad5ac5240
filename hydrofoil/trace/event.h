#pragma once

#include <cstdint>
#include <string>

namespace hydrofoil::trace {

// A row of a rank in the viewer: whole steps and their optimizer step; what the rank computes or waits for; the
// collectives of its two channels.
enum class Lane { kStep, kCompute, kGather, kReduce };
inline constexpr int kNumLanes = 4;

[[nodiscard]] const char* lane_name(Lane lane);

// What ran on one lane of one rank. Events of a lane are disjoint or nested in a file that chrome_trace() makes.
struct Event {
  Lane lane = Lane::kCompute;
  std::string what;     // "forward", "gather wait", "all_gather", ...
  std::string subject;  // the module, unit or step; may be empty
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
  int64_t bytes = 0;  // of a collective's message
};

}  // namespace hydrofoil::trace
