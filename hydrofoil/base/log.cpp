#include "hydrofoil/base/log.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <optional>

#include "hydrofoil/base/environment.h"

namespace hydrofoil {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"debug", "info", "warning", "error", "critical"};

// What set_log_level said. Of the process, as stderr is.
std::atomic<std::optional<LogLevel>> chosen_level;

LogLevel threshold() {
  if (const auto chosen = chosen_level.load()) return *chosen;
  const std::string name = environment("HYDROFOIL_LOG_LEVEL").value_or("info");
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<LogLevel>(i);
  }
  return LogLevel::kInfo;
}

}  // namespace

void set_log_level(LogLevel level) { chosen_level.store(level); }

bool log_enabled(LogLevel level) { return static_cast<int>(level) >= static_cast<int>(threshold()); }

bool logs_info() {
  return log_enabled(LogLevel::kDebug) || (log_enabled(LogLevel::kInfo) && environment("RANK").value_or("0") == "0");
}

void log(LogLevel level, std::string_view message) {
  if (!log_enabled(level)) return;
  const auto rank = environment("RANK");
  const std::string line = detail::concat("[hydrofoil", rank ? " rank " + *rank : std::string(), "] ",
                                          kNames[static_cast<size_t>(level)], ": ", message, "\n");
  // One write per line keeps the lines of several ranks whole; a closed stderr is not an error of the program.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace hydrofoil
