#pragma once

#include <c10/util/intrusive_ptr.h>

#include <memory>
#include <string>

#include "hydrofoil/comm/group.h"

namespace c10d {
class ProcessGroup;
}

namespace hydrofoil::comm {

class StoreBoard;

struct C10dOptions {
  GroupOptions group;
  std::shared_ptr<StoreBoard> board;  // null: errors cannot say what the other ranks do
  int channel = 0;                    // number of this group on the board
  bool native_16_bit_sums = false;    // leave 16-bit sums to the backend's own arithmetic (always so on NCCL)
};

// A Group over any c10d::ProcessGroup (Gloo, NCCL, MPI, UCC). The process group must serve this Group alone. Sums of
// 16-bit floats, all reduce-scatters and reductions of int8 go by all_to_all and a local reduction in rank order,
// except on NCCL. A send or recv under way ends at its deadline, not before: destroying the Group waits for it. Throws
// InvalidArgument where the process group is null.
[[nodiscard]] Group make_c10d_group(c10::intrusive_ptr<c10d::ProcessGroup> process_group, C10dOptions options = {});

// The same for the process group that torch.distributed registered under this name. Throws InvalidArgument where there
// is none.
[[nodiscard]] Group make_c10d_group(const std::string& process_group_name, C10dOptions options = {});

}  // namespace hydrofoil::comm
