#include "hydrofoil/base/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "hydrofoil/base/environment.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil {
namespace {

#if defined(__x86_64__)
// Clang 14 does not know __builtin_cpu_supports("f16c"). Whether the system saves the registers, "avx2" says.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

CpuIsa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) return CpuIsa::kAvx512;
  if (avx2) return CpuIsa::kAvx2;
#endif
  return CpuIsa::kScalar;
}

}  // namespace

CpuIsa detected_cpu_isa() {
  // Once: every kernel asks, and a virtual machine leaves to its host for each CPUID, which takes microseconds.
  static const CpuIsa isa = detect();
  return isa;
}

const char* cpu_isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return "scalar";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

CpuIsa cpu_isa() {
  const CpuIsa best = detected_cpu_isa();
  const auto wanted = environment("HYDROFOIL_CPU_ISA");
  if (!wanted) return best;
  for (const CpuIsa isa : {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (*wanted != cpu_isa_name(isa)) continue;
    HYDROFOIL_CHECK_ARG(isa <= best, "cpu_isa", "HYDROFOIL_CPU_ISA: got ", *wanted,
                        ", but this processor offers at most ", cpu_isa_name(best));
    return isa;
  }
  HYDROFOIL_CHECK_ARG(false, "cpu_isa", "HYDROFOIL_CPU_ISA: got '", *wanted, "', expected scalar, avx2 or avx512");
}

}  // namespace hydrofoil
