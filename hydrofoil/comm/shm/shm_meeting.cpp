#include "hydrofoil/comm/shm/shm_meeting.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
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

// Addresses for the tensors of a rank: twice the memory of the machine, of which only touched pages exist. 0 where the
// address space or the size of files is limited (ulimit -v, -f): then tensors go through the slots.
int64_t heap_bytes(int num_ranks) {
  constexpr int64_t kUnit = int64_t{1} << 22;
  constexpr int64_t kAllRanks = int64_t{32} << 40;  // of the 128 TiB that a process can address
  for (const auto resource : {RLIMIT_AS, RLIMIT_FSIZE}) {
    rlimit limit{};
    if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return 0;
  }
  const int64_t machine = int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE);
  return std::min(2 * machine, kAllRanks / num_ranks) / kUnit * kUnit;
}

}  // namespace

ShmMeeting meet_in_shared_memory(const Ballot& ballot, int num_channels) {
  const SegmentLayout layout{
      .size = ballot.options().size, .num_channels = num_channels, .heap_bytes = heap_bytes(ballot.options().size)};
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
