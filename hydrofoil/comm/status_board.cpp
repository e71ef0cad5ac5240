#include "hydrofoil/comm/status_board.h"

#include <algorithm>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm {
namespace {

bool has_issued(const RankStatus& status, int channel, uint64_t sequence) {
  return static_cast<size_t>(channel) < status.issued.size() && status.issued[static_cast<size_t>(channel)] >= sequence;
}

std::string activity(const std::optional<RankStatus>& status) {
  if (!status) return " (nothing heard from it)";
  if (!status->failure.empty()) return detail::concat(" (has failed: ", status->failure, ")");
  if (status->blocked) {
    return detail::concat(" (waits for ", status->blocked->what, " on channel ", status->blocked->channel, ")");
  }
  return "";
}

}  // namespace

std::string missing_ranks(StatusBoard& board, int channel, uint64_t sequence) {
  std::string text;
  for (int rank = 0; rank < board.size(); ++rank) {
    if (rank == board.rank()) continue;
    const std::optional<RankStatus> status = board.read(rank);
    if (status && has_issued(*status, channel, sequence)) continue;
    text += detail::concat(text.empty() ? "" : ", ", "rank ", rank, activity(status));
  }
  return text;
}

std::optional<std::string> find_cross_wait(StatusBoard& board) {
  const int size = board.size();
  std::vector<std::optional<RankStatus>> statuses;
  std::vector<bool> stuck;
  for (int rank = 0; rank < size; ++rank) {
    statuses.push_back(board.read(rank));
    stuck.push_back(statuses.back() && statuses.back()->blocked);
  }
  // Largest set in which everyone waits for somebody of the set: drop the others until nothing changes.
  const auto waits_for = [&](int rank, int other) {
    const RankStatus::Wait& wait = *statuses[static_cast<size_t>(rank)]->blocked;
    return other != rank && stuck[static_cast<size_t>(other)] &&
           !has_issued(*statuses[static_cast<size_t>(other)], wait.channel, wait.sequence);
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (int rank = 0; rank < size; ++rank) {
      if (!stuck[static_cast<size_t>(rank)]) continue;
      bool held = false;
      for (int other = 0; other < size && !held; ++other) held = waits_for(rank, other);
      if (!held) {
        stuck[static_cast<size_t>(rank)] = false;
        changed = true;
      }
    }
  }
  if (!stuck[static_cast<size_t>(board.rank())]) return std::nullopt;
  std::string text = "the ranks wait for each other and can never go on:";
  for (int rank = 0; rank < size; ++rank) {
    if (!stuck[static_cast<size_t>(rank)]) continue;
    const RankStatus::Wait& wait = *statuses[static_cast<size_t>(rank)]->blocked;
    text += detail::concat(" rank ", rank, " waits for ", wait.what, " on channel ", wait.channel, ", not issued by");
    const char* separator = " rank ";
    for (int other = 0; other < size; ++other) {
      if (!waits_for(rank, other)) continue;
      text += detail::concat(separator, other);
      separator = ", ";
    }
    text += ";";
  }
  text.back() = '.';
  return text + " The ranks must run the same units in the same order";
}

}  // namespace hydrofoil::comm
