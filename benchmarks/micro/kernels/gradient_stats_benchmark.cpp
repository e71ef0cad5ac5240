#include "hydrofoil/kernels/gradient_stats.h"

#include "benchmarks/micro/kernels/memory_benchmark.h"
#include "benchmarks/micro/kernels/workspace.h"

namespace hydrofoil::bench {

void register_gradient_stats(Workspace& w) {
  for (const bool low : {false, true}) {
    const at::Tensor values = low ? w.low : w.gradient;
    const auto type = low ? kernels::ElementType::kBFloat16 : kernels::ElementType::kFloat32;
    register_memory_benchmark(
        std::string("gradient_stats/") + (low ? "bf16" : "fp32"), w.numel,
        {.read_bytes = w.numel * kernels::element_bytes(type)}, [values] { values.fill_(1e-3); },
        [=] { benchmark::DoNotOptimize(kernels::gradient_stats(values.data_ptr(), type, values.numel())); });
  }
}

}  // namespace hydrofoil::bench
