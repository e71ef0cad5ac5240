#include "hydrofoil/comm/detail/explain.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm::detail {
namespace {

constexpr size_t kTextBytes = 256;

}  // namespace

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
  at::Tensor text = at::empty({static_cast<int64_t>(kTextBytes)}, at::kChar);
  std::memset(text.data_ptr(), 0, kTextBytes);
  const std::string what = describe(operation);
  std::memcpy(text.data_ptr(), what.data(), std::min(what.size(), kTextBytes - 1));
  const at::Tensor texts = share(text);
  std::string message =
      concat("[comm] the ranks of group ", where.group, " disagree at operation ", operation.sequence, ":");
  for (int peer = 0; peer < where.size; ++peer) {
    const char* begin = static_cast<const char*>(texts.data_ptr()) + static_cast<size_t>(peer) * kTextBytes;
    message += concat(peer == 0 ? " " : "; ", "rank ", peer, ": ", std::string(begin, ::strnlen(begin, kTextBytes)));
  }
  throw CommError(message);
}

}  // namespace hydrofoil::comm::detail
