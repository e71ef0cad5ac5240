#pragma once

#include <vector>

#include "hydrofoil/comm/group.h"

namespace hydrofoil::comm {

// Groups of `size` ranks that are threads of this process: element r is for the thread of rank r. For tests. A group of
// one runs on the calling thread and takes tensors of any device. Throws InvalidArgument if `size` < 1.
[[nodiscard]] std::vector<Group> make_local_groups(int size, GroupOptions options = {});

// The same with several channels over the same ranks: element [rank][channel].
[[nodiscard]] std::vector<std::vector<Group>> make_local_channels(int size, int num_channels,
                                                                  GroupOptions options = {});

}  // namespace hydrofoil::comm
