// Kernels and the machine's roofs in one program, so that a share of a roof compares what ran side by side:
//   bench_kernels --benchmark_enable_random_interleaving=true --benchmark_repetitions=5
// runs the repetitions of all benchmarks in turns.
#include <benchmark/benchmark.h>

#include "benchmarks/micro/kernels/workspace.h"
#include "hydrofoil/memory/allocation.h"

namespace hydrofoil::bench {

Workspace::Workspace(int64_t numel)
    : numel(numel),
      master(memory::make_flat_tensor(numel, at::kFloat, at::kCPU)),
      first(memory::make_flat_tensor(numel, at::kFloat, at::kCPU)),
      second(memory::make_flat_tensor(numel, at::kFloat, at::kCPU)),
      gradient(memory::make_flat_tensor(numel, at::kFloat, at::kCPU)),
      low(memory::make_flat_tensor(numel, at::kBFloat16, at::kCPU)),
      low_too(memory::make_flat_tensor(numel, at::kBFloat16, at::kCPU)),
      low_first(memory::make_flat_tensor(numel, at::kBFloat16, at::kCPU)),
      low_second(memory::make_flat_tensor(numel, at::kBFloat16, at::kCPU)) {}

}  // namespace hydrofoil::bench

int main(int argc, char** argv) {
  constexpr int64_t kNumel = int64_t{1} << 24;
  hydrofoil::bench::Workspace workspace(kNumel);
  hydrofoil::bench::register_roofs(workspace);
  hydrofoil::bench::register_optimizer(workspace);
  hydrofoil::bench::register_gradient_stats(workspace);
  hydrofoil::bench::register_cast(workspace);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
