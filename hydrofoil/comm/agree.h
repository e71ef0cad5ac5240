#pragma once

#include <string>
#include <vector>

#include "hydrofoil/comm/group.h"

namespace hydrofoil::comm {

// Compares what each rank was told. Collective.
//
// Throws CommError "[function] ..." on every rank unless `lines` are the same everywhere; it names, for each rank that
// differs from rank 0, the first line that does and what rank 0 has there. Costs one all_gather of 8 bytes a rank where
// all agree.
void require_agreement(const Group& group, const std::string& function, const std::vector<std::string>& lines);

// Throws CommError "[function] ..." that names the first unit in which the ranks' histories differ, on each rank.
// Called by all ranks once they know that they do. Collective.
[[noreturn]] void throw_different_history(const Group& group, const std::string& function, const RunHistory& history);

}  // namespace hydrofoil::comm
