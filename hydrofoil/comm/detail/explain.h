#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/status_board.h"

namespace hydrofoil::comm::detail {

// What errors of an operation say of where it ran, for backends that share nothing but a board.
struct Whereabouts {
  const Operation& operation;
  const CallControl& control;
  std::string group;
  std::string backend;
  int rank = 0;
  int size = 1;
  int channel = 0;
  StatusBoard* board = nullptr;  // may be null
};

// "[comm] all_reduce of unit a (numel 8, float32, sum) in group world (mpi) on rank 0"
[[nodiscard]] std::string context(const Whereabouts& where);

// Throws CommError where a peer has failed, with its reason, or where the deadline has passed, with the ranks that did
// not arrive. Takes round trips to the board.
void throw_if_in_trouble(const Whereabouts& where);

// What a rank shows of its history: text of less than max_bytes, its end where it is longer; "" where there is none.
// Where ranks are compared at each unit, what differs lies at the end.
inline constexpr size_t kHistoryBytes = 8192;
[[nodiscard]] std::string pack_history(const RunHistory* history, size_t max_bytes = kHistoryBytes);
// " Unit 3 since the last step is the first that differs: rank 0 ran a; rank 1 ran b", from every rank's
// pack_history();
// "" where nothing differs.
[[nodiscard]] std::string first_difference(const std::vector<std::string>& packed);
// The same, collective: `share` gathers a 1-D CPU tensor of every rank.
[[nodiscard]] std::string first_difference(const RunHistory* history, int size,
                                           const std::function<at::Tensor(const at::Tensor&)>& share);

// Throws CommError with what each rank wanted, on every rank, unless all want the same. Collective: `share` gathers a
// 1-D CPU tensor of every rank.
void compare_operations(const Whereabouts& where, const std::function<at::Tensor(const at::Tensor&)>& share);

}  // namespace hydrofoil::comm::detail
