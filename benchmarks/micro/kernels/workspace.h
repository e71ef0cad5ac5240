#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hydrofoil::bench {

// Memory that all benchmarks of the program share, made as the engine makes its own, far larger than the caches.
struct Workspace {
  explicit Workspace(int64_t numel);

  int64_t numel;
  at::Tensor master, first, second, gradient;      // fp32
  at::Tensor low, low_too, low_first, low_second;  // bf16
};

// Each registers its benchmarks, for 1 and 2 threads. A benchmark of memory has the counters read_bytes, updated_bytes
// (both ways) and written_bytes of one run, from which benchmarks/micro/run.py takes its roof, and num_elements.
void register_roofs(Workspace& workspace);
void register_optimizer(Workspace& workspace);
void register_gradient_stats(Workspace& workspace);
void register_cast(Workspace& workspace);

}  // namespace hydrofoil::bench
