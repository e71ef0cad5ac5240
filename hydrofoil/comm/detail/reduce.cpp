#include "hydrofoil/comm/detail/reduce.h"

namespace hydrofoil::comm::detail {

namespace reduce_scalar {
void reduce_buffers_isa(const ReduceArgs& args);
}
namespace reduce_avx2 {
void reduce_buffers_isa(const ReduceArgs& args);
}
namespace reduce_avx512 {
void reduce_buffers_isa(const ReduceArgs& args);
}

void reduce_buffers(const ReduceArgs& args) {
  static const CpuIsa isa = cpu_isa();
  reduce_buffers(args, isa);
}

void reduce_buffers(const ReduceArgs& args, CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512:
      return reduce_avx512::reduce_buffers_isa(args);
    case CpuIsa::kAvx2:
      return reduce_avx2::reduce_buffers_isa(args);
    case CpuIsa::kScalar:
      return reduce_scalar::reduce_buffers_isa(args);
  }
}

}  // namespace hydrofoil::comm::detail
