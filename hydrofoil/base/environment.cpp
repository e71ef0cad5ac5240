#include "hydrofoil/base/environment.h"

#include <charconv>
#include <cstdlib>

#include "hydrofoil/base/error.h"

namespace hydrofoil {

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

std::optional<int64_t> environment_int(const char* name) {
  const auto text = environment(name);
  if (!text) return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  HYDROFOIL_CHECK_ARG(error == std::errc() && end == text->data() + text->size(), "environment", "variable ", name,
                      ": got '", *text, "', expected an integer");
  return value;
}

}  // namespace hydrofoil
