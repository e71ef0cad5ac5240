#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hydrofoil::comm::detail {

enum class PlainOp : uint8_t { kSum, kAvg, kProduct, kMin, kMax, kBitAnd, kBitOr, kBitXor };

[[nodiscard]] const char* plain_op_name(PlainOp op);

// Whether `op` has a meaning for the dtype: bits for integers and bool, averages for floats and complex numbers, order
// for what is not complex. Of bool, sums and products are "or" and "and".
[[nodiscard]] bool reduces_plainly(PlainOp op, at::ScalarType dtype);

// output = the reduction, in order, of the `size` equal slices of the 1-D `slices`, by torch's operators. Floats of 16
// and 8 bits are reduced in fp32 and rounded once. `output` may be one of the slices. Runs on the calling thread.
void reduce_plainly(const at::Tensor& slices, int size, PlainOp op, const at::Tensor& output);

}  // namespace hydrofoil::comm::detail
