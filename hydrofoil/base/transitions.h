#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"

namespace hydrofoil {

// The states of a lifecycle enum, numbered from 0, by name, and which may follow which.
template <size_t N>
struct Transitions {
  std::array<const char*, N> names;
  std::array<std::array<bool, N>, N> allowed;  // [from][to]

  // state = next. Throws InternalError that names `what` and both states where that is no transition; logs it if asked.
  template <typename State>
  void move(State& state, State next, std::string_view kind, std::string_view what, bool logged) const {
    const auto from = static_cast<size_t>(state);
    const auto to = static_cast<size_t>(next);
    HYDROFOIL_ASSERT(allowed.at(from).at(to), kind, ' ', what, " cannot go from ", names[from], " to ", names[to]);
    if (logged) [[unlikely]]
      log_info_of_rank("state: ", kind, ' ', what, ": ", names[from], " -> ", names[to]);
    state = next;
  }
};

}  // namespace hydrofoil
