#include "hydrofoil/comm/connect.h"

#include <algorithm>
#include <memory>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>

#include "hydrofoil/base/log.h"
#include "hydrofoil/comm/c10d/c10d_group.h"
#include "hydrofoil/comm/c10d/store_board.h"
#include "hydrofoil/comm/detail/exchange.h"
#include "hydrofoil/comm/detail/text.h"
#include "hydrofoil/comm/local/self_backend.h"
#include "hydrofoil/comm/shm/shm_segments.h"

namespace hydrofoil::comm {
namespace {

using detail::concat;

constexpr const char* kFunction = "comm::connect";

void validate(const ConnectOptions& options) {
  HYDROFOIL_CHECK_ARG(options.size >= 1 && options.size <= detail::kMaxSegmentRanks, kFunction, "size is ",
                      options.size, ", expected 1 to ", detail::kMaxSegmentRanks);
  HYDROFOIL_CHECK_ARG(options.rank >= 0 && options.rank < options.size, kFunction, "rank is ", options.rank,
                      ", expected 0 to ", options.size - 1);
  HYDROFOIL_CHECK_ARG(options.num_channels >= 1 && options.num_channels <= detail::kMaxChannels, kFunction,
                      "num_channels is ", options.num_channels, ", expected 1 to ", detail::kMaxChannels);
  HYDROFOIL_CHECK_ARG(options.backend == "auto" || options.backend == "shm" || options.backend == "c10d", kFunction,
                      "backend is ", options.backend, ", expected auto, shm or c10d");
  HYDROFOIL_CHECK_ARG(options.backend != "shm" || options.device == c10::DeviceType::CPU, kFunction,
                      "backend shm serves CPU tensors only, device is ", c10::DeviceTypeName(options.device, true));
  HYDROFOIL_CHECK_ARG(options.size == 1 || options.store.defined(), kFunction, "store is null");
  const auto names = static_cast<int>(options.process_group_names.size());
  HYDROFOIL_CHECK_ARG(options.size == 1 || options.backend != "c10d" || names == options.num_channels ||
                          options.make_process_groups != nullptr,
                      kFunction, "process_group_names has ", names, " names, expected one for each of ",
                      options.num_channels, " channels");
}

// One value of every rank, by the store.
class Ballot {
 public:
  Ballot(const ConnectOptions& options, std::string prefix) : options_(options), prefix_(std::move(prefix)) {}

  std::vector<std::string> gather(const std::string& step, const std::string& value) const {
    c10d::Store& store = *options_.store;
    const auto key = [&](int rank) { return concat(prefix_, "/", step, "/", rank); };
    std::vector<std::string> keys;
    for (int rank = 0; rank < options_.size; ++rank) keys.push_back(key(rank));
    store.set(key(options_.rank), std::vector<uint8_t>(value.begin(), value.end()));
    try {
      store.wait(keys, options_.group.timeout);
    } catch (const std::exception& error) {
      std::string missing;
      for (int rank = 0; rank < options_.size; ++rank) {
        if (!store.check({key(rank)})) missing += concat(missing.empty() ? "" : ", ", rank);
      }
      throw CommError(concat("[comm] connecting group ", options_.group.name, " on rank ", options_.rank,
                             ": not here after ", options_.group.timeout.count(), " ms: ranks ", missing));
    }
    std::vector<std::string> values;
    for (const auto& k : keys) {
      const std::vector<uint8_t> bytes = store.get(k);
      values.emplace_back(bytes.begin(), bytes.end());
    }
    return values;
  }

  // Every rank says why it cannot go on, or nothing. Returns all that was said.
  std::string vote(const std::string& step, const std::string& problem) const {
    std::string problems;
    const std::vector<std::string> votes = gather(step, problem);
    for (size_t rank = 0; rank < votes.size(); ++rank) {
      if (!votes[rank].empty()) problems += concat(problems.empty() ? "" : "; ", "rank ", rank, ": ", votes[rank]);
    }
    return problems;
  }

 private:
  const ConnectOptions& options_;
  std::string prefix_;
};

template <typename Body>
std::string problem_of(const Body& body) {
  try {
    body();
  } catch (const detail::ShmProblem& problem) {
    return problem.reason;
  }
  return "";
}

void check_same_options(const Ballot& ballot, const ConnectOptions& options) {
  const std::string own = concat("backend ", options.backend, ", device ", c10::DeviceTypeName(options.device, true),
                                 ", ", options.num_channels, " channels");
  const std::vector<std::string> all = ballot.gather("options", own);
  for (size_t rank = 0; rank < all.size(); ++rank) {
    HYDROFOIL_CHECK_ARG(all[rank] == own, kFunction, "rank ", options.rank, " has ", own, ", but rank ", rank, " has ",
                        all[rank]);
  }
}

// The memory of all ranks, or null with the reasons.
std::shared_ptr<detail::ShmSegments> try_shm(const Ballot& ballot, const ConnectOptions& options,
                                             std::string& reasons) {
  const detail::SegmentLayout layout{.size = options.size, .num_channels = options.num_channels};
  detail::ShmRendezvous rendezvous(options.rank, layout);
  std::string address;
  std::string problem = problem_of([&] { address = rendezvous.listen(); });
  const std::vector<std::string> addresses = ballot.gather("address", address);
  reasons = ballot.vote("listen", problem);
  if (!reasons.empty()) return nullptr;
  reasons = ballot.vote("connect", problem_of([&] { rendezvous.connect(addresses); }));
  if (!reasons.empty()) return nullptr;
  std::shared_ptr<detail::ShmSegments> segments;
  reasons = ballot.vote("map", problem_of([&] { segments = rendezvous.exchange(); }));
  return reasons.empty() ? segments : nullptr;
}

std::vector<Group> self_groups(const ConnectOptions& options) {
  std::vector<Group> groups;
  for (int channel = 0; channel < options.num_channels; ++channel) {
    groups.emplace_back(std::make_unique<SelfBackend>(), options.group);
  }
  return groups;
}

std::vector<Group> shm_groups(const ConnectOptions& options, const std::shared_ptr<detail::ShmSegments>& segments) {
  std::vector<Group> groups;
  const auto board = detail::make_segment_board(segments, options.rank);
  for (int channel = 0; channel < options.num_channels; ++channel) {
    detail::ExchangeOptions exchange{
        .backend_name = "shm", .group = options.group.name, .rank = options.rank, .channel = channel};
    groups.emplace_back(std::make_unique<detail::Exchange>(segments, board, std::move(exchange)), options.group);
  }
  return groups;
}

std::vector<Group> c10d_groups(const ConnectOptions& options, const std::string& prefix) {
  const bool make = options.process_group_names.empty() && options.make_process_groups != nullptr;
  const std::vector<std::string> group_names = make ? options.make_process_groups() : options.process_group_names;
  const auto names = static_cast<int>(group_names.size());
  HYDROFOIL_CHECK_ARG(names == options.num_channels, kFunction, "process_group_names has ", names,
                      " names, expected one for each of ", options.num_channels, " channels");
  // A connection of its own: the board must answer while another thread waits on the user's.
  const auto board = std::make_shared<StoreBoard>(options.store->clone(), prefix + "/status", options.rank,
                                                  options.size, options.num_channels);
  std::vector<Group> groups;
  for (int channel = 0; channel < options.num_channels; ++channel) {
    groups.push_back(make_c10d_group(group_names[static_cast<size_t>(channel)],
                                     {.group = options.group, .board = board, .channel = channel}));
    HYDROFOIL_CHECK_ARG(groups.back().rank() == options.rank && groups.back().size() == options.size, kFunction,
                        "process group ", group_names[static_cast<size_t>(channel)], " is rank ", groups.back().rank(),
                        " of ", groups.back().size(), ", expected ", options.rank, " of ", options.size);
  }
  return groups;
}

}  // namespace

std::vector<Group> connect(const ConnectOptions& options) {
  validate(options);
  if (options.size == 1) return self_groups(options);
  // Each connection has keys of its own: all ranks count their calls.
  const std::string base = "hydrofoil/" + options.group.name;
  const int64_t generation = options.store->add(concat(base, "/calls/", options.rank), 1);
  const std::string prefix = concat(base, "/", generation);
  const Ballot ballot(options, prefix);
  check_same_options(ballot, options);
  if (options.backend == "c10d" || options.device != c10::DeviceType::CPU) return c10d_groups(options, prefix);
  std::string reasons;
  if (const auto segments = try_shm(ballot, options, reasons)) return shm_groups(options, segments);
  if (options.backend == "shm") {
    throw CommError(concat("[comm] backend shm is not possible for group ", options.group.name, ": ", reasons));
  }
  if (options.rank == 0) {
    log_info("comm: group ", options.group.name, " uses c10d, because the ranks cannot share memory: ", reasons);
  }
  HYDROFOIL_CHECK_ARG(!options.process_group_names.empty() || options.make_process_groups != nullptr, kFunction,
                      "the ranks cannot share memory (", reasons, ") and process_group_names is empty");
  return c10d_groups(options, prefix);
}

}  // namespace hydrofoil::comm
