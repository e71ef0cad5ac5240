#pragma once

#include <string>
#include <string_view>

#include "hydrofoil/base/error.h"

namespace hydrofoil {

enum class LogLevel { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3, kCritical = 4 };

// Writes one line "[hydrofoil rank R] LEVEL: message" to stderr if `level` is at or above what set_log_level said, or
// else HYDROFOIL_LOG_LEVEL (debug, info, warning, error, critical; default info). The rank is RANK of the environment.
// Thread-safe, one write per line.
void log(LogLevel level, std::string_view message);

// From now on `level` decides in this process, not the environment (the config's log_level). Thread-safe.
void set_log_level(LogLevel level);

// True where log(level, ...) would write.
[[nodiscard]] bool log_enabled(LogLevel level);

// Whether info is written here: by rank 0 only, or by all ranks at the level debug.
[[nodiscard]] bool logs_info();

template <typename... Args>
void log_info(const Args&... args) {
  if (logs_info()) log(LogLevel::kInfo, detail::concat(args...));
}
// Info that each rank writes: what HYDROFOIL_DEBUG asks for.
template <typename... Args>
void log_info_of_rank(const Args&... args) {
  if (log_enabled(LogLevel::kInfo)) log(LogLevel::kInfo, detail::concat(args...));
}
template <typename... Args>
void log_warning(const Args&... args) {
  if (log_enabled(LogLevel::kWarning)) log(LogLevel::kWarning, detail::concat(args...));
}
template <typename... Args>
void log_debug(const Args&... args) {
  if (log_enabled(LogLevel::kDebug)) log(LogLevel::kDebug, detail::concat(args...));
}

}  // namespace hydrofoil
