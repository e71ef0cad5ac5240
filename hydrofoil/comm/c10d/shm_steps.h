#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "hydrofoil/comm/c10d/plain_reduce.h"
#include "hydrofoil/comm/c10d/shm_lanes.h"

namespace c10d {
struct ReduceOp;
}

// What c10d asks for, as operations of Groups. Tensors are of any dtype and strides; `function` is named in the
// InvalidArgument that each of these throws for tensors it does not serve. `size`: ranks of the group.
namespace hydrofoil::comm::detail {

using TensorList = std::vector<at::Tensor>;

[[nodiscard]] PlainOp plain_op(const c10d::ReduceOp& op, const char* function);
void check_reduction(PlainOp op, at::ScalarType dtype, const char* function);

// Adds what reduces the 1-D `flat` in place on all ranks; `after` follows the last step.
void add_reduction(std::vector<ShmStep>& steps, const at::Tensor& flat, PlainOp op, int size,
                   std::function<void()> after);
[[nodiscard]] ShmStep broadcast_step(const at::Tensor& flat, int root, std::function<void()> after);
[[nodiscard]] ShmStep gather_step(const at::Tensor& output, const at::Tensor& input, int size, const char* function);
// `outputs`: one a rank, or none where this rank keeps nothing.
[[nodiscard]] ShmStep gather_list_step(const TensorList& outputs, const at::Tensor& input, int size,
                                       const char* function);
[[nodiscard]] ShmStep reduce_scatter_step(const at::Tensor& output, const at::Tensor& input, const c10d::ReduceOp& op,
                                          int size, const char* function);
[[nodiscard]] ShmStep message_step(ShmLane lane, bool sends, const at::Tensor& tensor, int peer, int tag);

}  // namespace hydrofoil::comm::detail
