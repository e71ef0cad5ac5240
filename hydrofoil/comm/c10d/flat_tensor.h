#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

// Tensors of any dtype, strides and dimensions as flat host memory, for the operations of a c10d backend. All calls
// leave autograd out.
namespace hydrofoil::comm::detail {

// Throw InvalidArgument "[function] ..." unless the tensor is a strided one on the CPU; the dtypes are one; the numel
// is that.
void check_tensor(const at::Tensor& tensor, const char* function);
void check_same_dtype(const at::Tensor& a, const at::Tensor& b, const char* function);
void check_numel(const at::Tensor& tensor, int64_t numel, const char* function);

// The elements in order, 1-D: a view where the tensor is contiguous, else a copy.
[[nodiscard]] at::Tensor elements_of(const at::Tensor& tensor);

// 1-D memory for the elements of an output: the tensor's own where it is contiguous. place() brings them home.
[[nodiscard]] at::Tensor flat_output(const at::Tensor& tensor);

// Writes 1-D elements to where the tensor wants them; nothing where they are its own memory.
void place(const at::Tensor& flat, const at::Tensor& tensor);

[[nodiscard]] at::Tensor as_bytes(const at::Tensor& flat);
[[nodiscard]] at::Tensor scratch_of(const at::Tensor& like, int64_t numel);

// Views of a flat tensor, one a rank, of so many of the rows (slices of the first dimension) of `tensor` each; no
// `rows`: equally many. Throws InvalidArgument where they are not the tensor's.
[[nodiscard]] std::vector<at::Tensor> split_rows(const at::Tensor& flat, const at::Tensor& tensor,
                                                 const std::vector<int64_t>& rows, int size, const char* function);

}  // namespace hydrofoil::comm::detail
