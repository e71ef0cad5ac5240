#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "hydrofoil/comm/group.h"

namespace hydrofoil::comm {

// The input that this rank gives to an all_gather of others: its slice of what OpInfo::joinable names.
using Contribution = std::function<at::Tensor(int64_t id)>;

// A Group over `inner` whose ranks may call different joinable collectives, in different orders. See NOTE [Joining].
//
// An all_gather with OpInfo::joinable is called by some ranks; the others join it with `contribute(id)` while they
// wait in a call of their own. All other collectives are called by all ranks, as on any Group; a barrier with
// Joinable::kPause returns once no rank wants a joinable collective. All run on the calling thread and block: the Work
// is done at once. Each costs an all_gather of 24 bytes a rank more. Throws InvalidArgument for another joinable
// operation than all_gather, and for send and recv; `inner` must not be used beside it.
[[nodiscard]] Group make_joining_group(Group inner, Contribution contribute);

}  // namespace hydrofoil::comm
