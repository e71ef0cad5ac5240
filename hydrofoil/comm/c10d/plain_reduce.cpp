#include "hydrofoil/comm/c10d/plain_reduce.h"

#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <c10/core/ScalarType.h>

#include <algorithm>

#include "hydrofoil/base/error.h"

namespace hydrofoil::comm::detail {
namespace {

// Up to here torch's operators stay on the calling thread: a second OpenMP team would fight with the user's.
constexpr int64_t kPieceNumel = 32768;

bool is_number(at::ScalarType dtype) {
  switch (dtype) {
    case at::kByte:
    case at::kChar:
    case at::kShort:
    case at::kInt:
    case at::kLong:
    case at::kBool:
    case at::kHalf:
    case at::kBFloat16:
    case at::kFloat:
    case at::kDouble:
    case at::ScalarType::Float8_e4m3fn:
    case at::ScalarType::Float8_e5m2:
    case at::ScalarType::ComplexFloat:
    case at::ScalarType::ComplexDouble:
      return true;
    default:
      return false;
  }
}

at::ScalarType wide(at::ScalarType dtype) {
  return c10::isFloatingType(dtype) && c10::elementSize(dtype) < 4 ? at::kFloat : dtype;
}

PlainOp of_bits(PlainOp op) {
  if (op == PlainOp::kSum || op == PlainOp::kMax) return PlainOp::kBitOr;
  if (op == PlainOp::kProduct || op == PlainOp::kMin) return PlainOp::kBitAnd;
  return op;
}

at::Tensor join(PlainOp op, const at::Tensor& a, const at::Tensor& b) {
  switch (op) {
    case PlainOp::kSum:
    case PlainOp::kAvg:
      return a.add(b);
    case PlainOp::kProduct:
      return a.mul(b);
    case PlainOp::kMin:
      return at::minimum(a, b);
    case PlainOp::kMax:
      return at::maximum(a, b);
    case PlainOp::kBitAnd:
      return a.bitwise_and(b);
    case PlainOp::kBitOr:
      return a.bitwise_or(b);
    case PlainOp::kBitXor:
      return a.bitwise_xor(b);
  }
  HYDROFOIL_ASSERT(false, "plain operation ", static_cast<int>(op));
}

}  // namespace

const char* plain_op_name(PlainOp op) {
  switch (op) {
    case PlainOp::kSum:
      return "sum";
    case PlainOp::kAvg:
      return "avg";
    case PlainOp::kProduct:
      return "product";
    case PlainOp::kMin:
      return "min";
    case PlainOp::kMax:
      return "max";
    case PlainOp::kBitAnd:
      return "band";
    case PlainOp::kBitOr:
      return "bor";
    case PlainOp::kBitXor:
      return "bxor";
  }
  HYDROFOIL_ASSERT(false, "plain operation ", static_cast<int>(op));
}

bool reduces_plainly(PlainOp op, at::ScalarType dtype) {
  if (!is_number(dtype)) return false;
  const bool whole = c10::isIntegralType(dtype, /*includeBool=*/true);
  if (op == PlainOp::kBitAnd || op == PlainOp::kBitOr || op == PlainOp::kBitXor) return whole;
  if (op == PlainOp::kAvg) return !whole;
  if (op == PlainOp::kMin || op == PlainOp::kMax) return !c10::isComplexType(dtype);
  return true;
}

void reduce_plainly(const at::Tensor& slices, int size, PlainOp op, const at::Tensor& output) {
  const int64_t numel = output.numel();
  const at::ScalarType dtype = wide(output.scalar_type());
  if (output.scalar_type() == at::kBool) op = of_bits(op);
  for (int64_t begin = 0; begin < numel; begin += kPieceNumel) {
    const int64_t count = std::min(kPieceNumel, numel - begin);
    const auto piece = [&](int rank) { return slices.narrow(0, rank * numel + begin, count).to(dtype); };
    at::Tensor result = piece(0);
    for (int rank = 1; rank < size; ++rank) result = join(op, result, piece(rank));
    output.narrow(0, begin, count).copy_(op == PlainOp::kAvg ? result.div(size) : result);
  }
}

}  // namespace hydrofoil::comm::detail
