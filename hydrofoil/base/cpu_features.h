#pragma once

namespace hydrofoil {

// Instruction sets for which the kernels have a build, in rising order.
enum class CpuIsa { kScalar = 0, kAvx2 = 1, kAvx512 = 2 };

// Best set that this processor runs (AVX2 means AVX2 + FMA + F16C; AVX-512 means F, BW, DQ, VL besides), or the lower
// one that HYDROFOIL_CPU_ISA (scalar, avx2, avx512) names. Throws InvalidArgument where that names an unknown or
// unsupported set.
[[nodiscard]] CpuIsa cpu_isa();

// Best set of the processor itself, whatever the environment says.
[[nodiscard]] CpuIsa detected_cpu_isa();

[[nodiscard]] const char* cpu_isa_name(CpuIsa isa);

}  // namespace hydrofoil
