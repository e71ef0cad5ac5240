#include "hydrofoil/comm/shm/shm_meeting.h"

#include <vector>

#include "hydrofoil/comm/shm/shm_segments.h"

namespace hydrofoil::comm::detail {
namespace {

template <typename Body>
std::string problem_of(const Body& body) {
  try {
    body();
  } catch (const ShmProblem& problem) {
    return problem.reason;
  }
  return "";
}

}  // namespace

ShmMeeting meet_in_shared_memory(const Ballot& ballot, int num_channels) {
  const SegmentLayout layout{.size = ballot.options().size, .num_channels = num_channels};
  ShmRendezvous rendezvous(ballot.options().rank, layout);
  std::string address;
  std::string problem = problem_of([&] { address = rendezvous.listen(); });
  const std::vector<std::string> addresses = ballot.gather("address", address);
  std::string reasons = ballot.vote("listen", problem);
  if (!reasons.empty()) return {.segments = nullptr, .reasons = std::move(reasons)};
  reasons = ballot.vote("connect", problem_of([&] { rendezvous.connect(addresses); }));
  if (!reasons.empty()) return {.segments = nullptr, .reasons = std::move(reasons)};
  std::shared_ptr<ShmSegments> segments;
  reasons = ballot.vote("map", problem_of([&] { segments = rendezvous.exchange(); }));
  if (!reasons.empty()) return {.segments = nullptr, .reasons = std::move(reasons)};
  return {.segments = std::move(segments), .reasons = ""};
}

}  // namespace hydrofoil::comm::detail
