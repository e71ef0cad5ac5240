#pragma once

#include <cstdint>

namespace hydrofoil::bench {

// What limits any kernel, each on its own part of memory by one thread. The memory roofs count what must travel:
// numel floats read, written, or both.

double read_floats(const float* source, int64_t numel);               // returns the sum, so that it is not left out
void write_floats(float* target, int64_t numel);                      // past the caches
void update_floats(float* target, int64_t numel);                     // in place
void copy_floats(float* target, const float* source, int64_t numel);  // memcpy

// Rounds of independent chains of fused multiply-adds in registers; returns the floating-point operations done.
double multiply_add_fp32(int64_t rounds);
// The same by vdpbf16ps: pairs of bf16 into fp32. Call it only where has_bf16_dot().
double multiply_add_bf16(int64_t rounds);
[[nodiscard]] bool has_bf16_dot();

}  // namespace hydrofoil::bench
