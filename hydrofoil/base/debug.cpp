#include "hydrofoil/base/debug.h"

#include <algorithm>

#include "hydrofoil/base/environment.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil {

DebugChecks parse_debug_checks(std::string_view text) {
  DebugChecks checks;
  while (true) {
    const size_t end = text.find_first_of(",|");
    std::string_view word = text.substr(0, end);
    word.remove_prefix(std::min(word.find_first_not_of(' '), word.size()));
    word = word.substr(0, word.find_last_not_of(' ') + 1);
    if (word == "memory") {
      checks.memory = true;
    } else if (word == "comm") {
      checks.comm = true;
    } else if (word == "state") {
      checks.state = true;
    } else {
      HYDROFOIL_CHECK_ARG(false, "HYDROFOIL_DEBUG", "got '", word, "', expected memory, comm or state, separated by ",
                          "commas or bars; nothing is checked where it is not set");
    }
    if (end == std::string_view::npos) return checks;
    text.remove_prefix(end + 1);
  }
}

DebugChecks debug_checks_from_environment() {
  const auto text = environment("HYDROFOIL_DEBUG");
  return text ? parse_debug_checks(*text) : DebugChecks{};
}

}  // namespace hydrofoil
