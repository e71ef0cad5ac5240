#include "hydrofoil/comm/detail/explain.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm::detail {
namespace {

constexpr size_t kTextBytes = 256;

// Every rank's text, cut to num_bytes - 1.
std::vector<std::string> share_texts(const std::string& mine, size_t num_bytes, int size,
                                     const std::function<at::Tensor(const at::Tensor&)>& share) {
  at::Tensor text = at::empty({static_cast<int64_t>(num_bytes)}, at::kChar);
  std::memset(text.data_ptr(), 0, num_bytes);
  std::memcpy(text.data_ptr(), mine.data(), std::min(mine.size(), num_bytes - 1));
  const at::Tensor all = share(text);
  std::vector<std::string> texts;
  for (int rank = 0; rank < size; ++rank) {
    const char* begin = static_cast<const char*>(all.data_ptr()) + static_cast<size_t>(rank) * num_bytes;
    texts.emplace_back(begin, ::strnlen(begin, num_bytes));
  }
  return texts;
}

struct Unpacked {
  int64_t first = 1;
  std::vector<std::string> units;

  explicit Unpacked(const std::string& packed) {
    size_t begin = packed.find('\n');
    if (begin == std::string::npos) return;
    first = std::stoll(packed.substr(0, begin));
    for (++begin; begin < packed.size();) {
      const size_t end = packed.find('\n', begin);
      if (end == std::string::npos) return;
      units.push_back(packed.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  [[nodiscard]] int64_t end() const { return first + static_cast<int64_t>(units.size()); }
  [[nodiscard]] std::string at(int64_t number) const {
    return number < end() ? units[static_cast<size_t>(number - first)] : "nothing more";
  }
};

}  // namespace

std::string pack_history(const RunHistory* history, size_t max_bytes) {
  if (history == nullptr) return "";
  RunHistory::Part part = history->recent();
  size_t bytes = 32;  // of the number and the end
  size_t kept = 0;
  while (kept < part.units.size()) {
    bytes += part.units[part.units.size() - kept - 1].size() + 1;
    if (bytes > max_bytes) break;
    ++kept;
  }
  const size_t dropped = part.units.size() - kept;
  std::string packed = concat(part.first + static_cast<int64_t>(dropped), '\n');
  for (size_t i = dropped; i < part.units.size(); ++i) packed += part.units[i] + '\n';
  return packed;
}

std::string first_difference(const std::vector<std::string>& packed) {
  std::vector<Unpacked> ranks;
  int64_t begin = 1;
  int64_t end = 1;
  for (const auto& text : packed) {
    ranks.emplace_back(text);
    begin = std::max(begin, ranks.back().first);
    end = std::max(end, ranks.back().end());
  }
  for (int64_t number = begin; number < end; ++number) {
    const std::string of_rank_0 = ranks[0].at(number);
    if (std::all_of(ranks.begin(), ranks.end(), [&](const Unpacked& rank) { return rank.at(number) == of_rank_0; })) {
      continue;
    }
    std::string text = concat(" Unit ", number, " since the last step is the first that differs:");
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      text += concat(rank == 0 ? " " : "; ", "rank ", rank, " ran ", ranks[rank].at(number));
    }
    return text;
  }
  return "";
}

std::string first_difference(const RunHistory* history, int size,
                             const std::function<at::Tensor(const at::Tensor&)>& share) {
  return first_difference(share_texts(pack_history(history), kHistoryBytes, size, share));
}

std::string context(const Whereabouts& where) {
  return concat("[comm] ", describe(where.operation), " in group ", where.group, " (", where.backend, ") on rank ",
                where.rank);
}

void throw_if_in_trouble(const Whereabouts& where) {
  if (where.board != nullptr) {
    where.board->post();
    for (int peer = 0; peer < where.size; ++peer) {
      if (peer == where.rank) continue;
      const std::optional<RankStatus> status = where.board->read(peer);
      if (!status || status->failure.empty()) continue;
      throw CommError(concat(context(where), ": rank ", peer, " has failed: ", status->failure));
    }
  }
  if (!where.control.expired()) return;
  std::string missing = "unknown (the group has no store)";
  if (is_point_to_point(where.operation.kind)) {
    missing = concat("rank ", where.operation.peer);
  } else if (where.board != nullptr) {
    missing = missing_ranks(*where.board, where.channel, where.operation.sequence);
    if (missing.empty()) missing = "none (all have called it)";
  }
  throw CommError(concat(context(where), ": deadline of ", where.control.timeout().count(),
                         " ms passed; did not arrive: ", missing));
}

void compare_operations(const Whereabouts& where, const std::function<at::Tensor(const at::Tensor&)>& share) {
  const Operation& operation = where.operation;
  const std::array<int64_t, 4> own = {
      static_cast<int64_t>(operation.kind) << 32 | static_cast<int64_t>(operation.reduce) << 24 | operation.peer,
      operation.numel(), static_cast<int64_t>(operation.dtype()), static_cast<int64_t>(operation.info.signature)};
  at::Tensor mine = at::empty({static_cast<int64_t>(own.size())}, at::kLong);
  std::memcpy(mine.data_ptr(), own.data(), sizeof(own));
  const at::Tensor all = share(mine);
  bool agreed = true;
  for (int peer = 0; peer < where.size; ++peer) {
    agreed = agreed && std::memcmp(static_cast<const char*>(all.data_ptr()) + static_cast<size_t>(peer) * sizeof(own),
                                   own.data(), sizeof(own)) == 0;
  }
  if (agreed) return;
  const std::vector<std::string> texts = share_texts(describe(operation), kTextBytes, where.size, share);
  std::string message =
      concat("[comm] the ranks of group ", where.group, " disagree at operation ", operation.sequence, ":");
  for (size_t peer = 0; peer < texts.size(); ++peer) {
    message += concat(peer == 0 ? " " : "; ", "rank ", peer, ": ", texts[peer]);
  }
  message += '.';
  throw CommError(message + first_difference(operation.info.history.get(), where.size, share));
}

}  // namespace hydrofoil::comm::detail
