#include "hydrofoil/comm/connect.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <memory>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>

#include "hydrofoil/base/debug.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/comm/c10d/c10d_group.h"
#include "hydrofoil/comm/c10d/store_board.h"
#include "hydrofoil/comm/detail/ballot.h"
#include "hydrofoil/comm/detail/exchange.h"
#include "hydrofoil/comm/detail/text.h"
#include "hydrofoil/comm/local/self_backend.h"
#include "hydrofoil/comm/mpi/mpi_groups.h"
#include "hydrofoil/comm/shm/shm_meeting.h"

namespace hydrofoil::comm {
namespace {

using detail::concat;

constexpr const char* kFunction = "comm::connect";

bool known(const std::string& backend) {
  return backend == "auto" || backend == "shm" || backend == "c10d" || backend == "mpi";
}

void validate(const ConnectOptions& options) {
  HYDROFOIL_CHECK_ARG(options.size >= 1 && options.size <= detail::kMaxSegmentRanks, kFunction, "size is ",
                      options.size, ", expected 1 to ", detail::kMaxSegmentRanks);
  HYDROFOIL_CHECK_ARG(options.rank >= 0 && options.rank < options.size, kFunction, "rank is ", options.rank,
                      ", expected 0 to ", options.size - 1);
  HYDROFOIL_CHECK_ARG(options.num_channels >= 1 && options.num_channels <= detail::kMaxChannels, kFunction,
                      "num_channels is ", options.num_channels, ", expected 1 to ", detail::kMaxChannels);
  HYDROFOIL_CHECK_ARG(known(options.backend), kFunction, "backend is ", options.backend,
                      ", expected auto, shm, c10d or mpi");
  const bool cpu_only = options.backend == "shm" || options.backend == "mpi";
  HYDROFOIL_CHECK_ARG(!cpu_only || options.device == c10::DeviceType::CPU, kFunction, "backend ", options.backend,
                      " serves CPU tensors only, device is ", c10::DeviceTypeName(options.device, true));
  HYDROFOIL_CHECK_ARG(options.size == 1 || options.store.defined(), kFunction, "store is null");
  const auto names = static_cast<int>(options.process_group_names.size());
  const bool needs_process_groups = options.backend == "c10d" || options.device != c10::DeviceType::CPU;
  HYDROFOIL_CHECK_ARG(options.size == 1 || !needs_process_groups || names == options.num_channels ||
                          options.make_process_groups != nullptr,
                      kFunction, "backend ", options.backend, " on ", c10::DeviceTypeName(options.device, true),
                      " needs process groups: process_group_names has ", names, " names, expected one for each of ",
                      options.num_channels, " channels");
}

void check_same_options(const detail::Ballot& ballot, const ConnectOptions& options) {
  const std::string own = concat("backend ", options.backend, ", device ", c10::DeviceTypeName(options.device, true),
                                 ", ", options.num_channels, " channels");
  const std::vector<std::string> all = ballot.gather("options", own);
  for (size_t rank = 0; rank < all.size(); ++rank) {
    HYDROFOIL_CHECK_ARG(all[rank] == own, kFunction, "rank ", options.rank, " has ", own, ", but rank ", rank, " has ",
                        all[rank]);
  }
}

std::vector<Group> self_groups(const ConnectOptions& options) {
  std::vector<Group> groups;
  for (int channel = 0; channel < options.num_channels; ++channel) {
    groups.emplace_back(std::make_unique<SelfBackend>(), options.group);
  }
  return groups;
}

std::vector<Group> shm_groups(const ConnectOptions& options, const std::shared_ptr<detail::SegmentSet>& segments) {
  std::vector<Group> groups;
  const auto board = detail::make_segment_board(segments, options.rank);
  for (int channel = 0; channel < options.num_channels; ++channel) {
    detail::ExchangeOptions exchange{
        .backend_name = "shm", .group = options.group.name, .rank = options.rank, .channel = channel};
    groups.emplace_back(std::make_unique<detail::Exchange>(segments, board, std::move(exchange)), options.group);
  }
  return groups;
}

// A connection of its own: the board must answer while another thread waits on the user's.
std::shared_ptr<StoreBoard> make_board(const ConnectOptions& options, const std::string& prefix) {
  return std::make_shared<StoreBoard>(options.store->clone(), prefix + "/status", options.rank, options.size,
                                      options.num_channels);
}

std::vector<Group> c10d_groups(const ConnectOptions& options, const std::string& prefix) {
  const bool make = options.process_group_names.empty() && options.make_process_groups != nullptr;
  const std::vector<std::string> group_names = make ? options.make_process_groups() : options.process_group_names;
  const auto names = static_cast<int>(group_names.size());
  HYDROFOIL_CHECK_ARG(names == options.num_channels, kFunction, "process_group_names has ", names,
                      " names, expected one for each of ", options.num_channels, " channels");
  const auto board = make_board(options, prefix);
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

std::vector<Group> mpi_groups(const detail::Ballot& ballot, const ConnectOptions& options) {
  const std::string problems = ballot.vote("mpi", mpi_problem());
  HYDROFOIL_CHECK_ARG(problems.empty(), kFunction, "backend mpi is not possible for group ", options.group.name, ": ",
                      problems);
  return make_mpi_groups({.rank = options.rank,
                          .size = options.size,
                          .num_channels = options.num_channels,
                          .group = options.group,
                          .board = make_board(options, ballot.options().prefix)});
}

// What all ranks have in common, where they cannot share memory.
std::vector<Group> fallback_groups(const detail::Ballot& ballot, const ConnectOptions& options,
                                   const std::string& reasons) {
  const bool has_groups = !options.process_group_names.empty() || options.make_process_groups != nullptr;
  const std::string problem = mpi_problem();
  const std::string own = has_groups ? "c10d" : problem.empty() ? "mpi" : "no process group; " + problem;
  const std::vector<std::string> all = ballot.gather("fallback", own);
  const bool agreed = std::all_of(all.begin(), all.end(), [&](const std::string& each) { return each == own; });
  if (!agreed || (own != "c10d" && own != "mpi")) {
    std::string ways;
    for (size_t rank = 0; rank < all.size(); ++rank) {
      ways += detail::concat(rank == 0 ? "" : "; ", "rank ", rank, ": ", all[rank]);
    }
    HYDROFOIL_CHECK_ARG(false, kFunction, "the ranks cannot share memory (", reasons,
                        ") and have no other way in common (", ways,
                        "): give process_group_names, or start the ranks with mpirun");
  }
  if (options.rank == 0) {
    log_info("comm: group ", options.group.name, " uses ", own, ", because the ranks cannot share memory: ", reasons);
  }
  return own == "c10d" ? c10d_groups(options, ballot.options().prefix) : mpi_groups(ballot, options);
}

std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

std::vector<Group> connect_ranks(const ConnectOptions& options) {
  const std::string prefix = detail::next_ballot_prefix(*options.store, options.group.name, options.rank);
  const detail::Ballot ballot({.store = options.store,
                               .prefix = prefix,
                               .group = options.group.name,
                               .rank = options.rank,
                               .size = options.size,
                               .timeout = options.group.timeout});
  check_same_options(ballot, options);
  if (options.backend == "mpi") return mpi_groups(ballot, options);
  if (options.backend == "c10d" || options.device != c10::DeviceType::CPU) return c10d_groups(options, prefix);
  const auto [segments, reasons] = detail::meet_in_shared_memory(ballot, options.num_channels);
  if (segments) return shm_groups(options, segments);
  if (options.backend == "shm") {
    throw CommError(concat("[comm] backend shm is not possible for group ", options.group.name, ": ", reasons));
  }
  return fallback_groups(ballot, options, reasons);
}

}  // namespace

std::vector<Group> connect(const ConnectOptions& given) {
  ConnectOptions options = given;
  options.group.debug = options.group.debug || debug_checks_from_environment().comm;
  validate(options);
  if (options.size == 1) return self_groups(options);
  try {
    return connect_ranks(options);
  } catch (const c10::Error& error) {
    throw CommError(concat(
        "[comm] rank ", options.rank, " of ", options.size, " lost the store through which group ", options.group.name,
        " connects; the rank that serves it may have ended: ", first_line(error.what_without_backtrace())));
  }
}

}  // namespace hydrofoil::comm
