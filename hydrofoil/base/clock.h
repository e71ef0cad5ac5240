#pragma once

#include <cstdint>

namespace hydrofoil {

// Nanoseconds of a monotonic clock that all processes of one host share (CLOCK_MONOTONIC).
[[nodiscard]] int64_t monotonic_ns();

// The same in seconds.
[[nodiscard]] inline double monotonic_seconds() { return 1e-9 * static_cast<double>(monotonic_ns()); }

}  // namespace hydrofoil
