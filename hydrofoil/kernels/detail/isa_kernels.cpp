#include "hydrofoil/kernels/detail/isa_kernels.h"

#include "hydrofoil/base/error.h"

namespace hydrofoil::kernels::detail {

const IsaKernels& isa_kernels(CpuIsa isa) {
  static constexpr IsaKernels kScalar{scalar::optimizer_update, scalar::sum_of_squares, scalar::accumulate};
  static constexpr IsaKernels kAvx2{avx2::optimizer_update, avx2::sum_of_squares, avx2::accumulate};
  static constexpr IsaKernels kAvx512{avx512::optimizer_update, avx512::sum_of_squares, avx512::accumulate};
  HYDROFOIL_CHECK_ARG(isa <= detected_cpu_isa(), "kernels", "instruction set: got ", cpu_isa_name(isa),
                      ", but this processor offers at most ", cpu_isa_name(detected_cpu_isa()));
  switch (isa) {
    case CpuIsa::kAvx512:
      return kAvx512;
    case CpuIsa::kAvx2:
      return kAvx2;
    case CpuIsa::kScalar:
      break;
  }
  return kScalar;
}

}  // namespace hydrofoil::kernels::detail
