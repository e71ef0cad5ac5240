#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace hydrofoil::comm {

struct ShmProcessGroupOptions {
  std::string name;                                             // of the group, in errors
  std::vector<int64_t> global_ranks;                            // of its members, in errors; may be empty
  std::chrono::milliseconds timeout{std::chrono::minutes(10)};  // deadline of each operation
};

// The name by which torch.distributed knows the backend.
inline constexpr const char* kShmProcessGroupName = "hydrofoil_shm";

// Shared memory as a backend of torch.distributed, for CPU tensors of any dtype and strides. Every rank calls it, with
// a store of the group's own.
//
// Collectives run in the order of the calls; 16-bit sums are taken in fp32. Sends and receives run beside them, in
// order for each pair of ranks and direction, and so do all-to-alls; a receive whose numel or tag is not that of the
// next message is an error. Futures hold the output tensors and complete on a thread of the group, or within a call
// with asyncOp false. shutdown() lets what is under way end for a second, then aborts it.
//
// Throws InvalidArgument for what the backend does not serve, CommError where ranks do not come in time or do not share
// a host. An error of an operation is thrown by Work::wait() and held by its future.
[[nodiscard]] c10::intrusive_ptr<c10d::Backend> make_shm_process_group(const c10::intrusive_ptr<c10d::Store>& store,
                                                                       int rank, int size,
                                                                       const ShmProcessGroupOptions& options);

}  // namespace hydrofoil::comm
