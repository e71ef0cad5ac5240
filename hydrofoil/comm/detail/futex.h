#pragma once

#include <atomic>
#include <cstdint>

namespace hydrofoil::comm::detail {

// Sleeps while `word` holds `value`, at most `timeout_ns`; may return early. Works across processes.
void futex_wait(const std::atomic<uint32_t>& word, uint32_t value, int64_t timeout_ns);

// Wakes all that sleep on `word`.
void futex_wake(const std::atomic<uint32_t>& word);

}  // namespace hydrofoil::comm::detail
