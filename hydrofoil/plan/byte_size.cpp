#include "hydrofoil/plan/byte_size.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>

#include "hydrofoil/base/error.h"

namespace hydrofoil::plan {
namespace {

constexpr std::array<std::pair<std::string_view, double>, 11> kUnits = {{{"B", 1.0},
                                                                         {"KiB", 1024.0},
                                                                         {"MiB", 1048576.0},
                                                                         {"GiB", 1073741824.0},
                                                                         {"TiB", 1099511627776.0},
                                                                         {"PiB", 1125899906842624.0},
                                                                         {"KB", 1e3},
                                                                         {"MB", 1e6},
                                                                         {"GB", 1e9},
                                                                         {"TB", 1e12},
                                                                         {"PB", 1e15}}};

constexpr std::array<std::pair<std::string_view, double>, 4> kDurations = {
    {{"s", 1.0}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}}};

// A decimal number and a unit: the product. nullopt where the text is something else.
template <size_t kCount>
std::optional<double> quantity(std::string_view text,
                               const std::array<std::pair<std::string_view, double>, kCount>& units,
                               std::string_view default_unit = {}) {
  const size_t digits = text.find_first_not_of("0123456789.");
  std::string_view unit = digits == std::string_view::npos ? default_unit : text.substr(digits);
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  const std::string_view number = text.substr(0, digits);
  double value = 0.0;
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end != number.data() + number.size()) return std::nullopt;
  for (const auto& [name, factor] : units) {
    if (unit == name) return value * factor;
  }
  return std::nullopt;
}

}  // namespace

int64_t parse_byte_size(const std::string& what, std::string_view text) {
  const double bytes = quantity(text, kUnits, "B").value_or(0.0);
  constexpr double kMost = 9.2e18;
  HYDROFOIL_CHECK_ARG(
      bytes < kMost && bytes >= 1 && std::floor(bytes) == bytes, "plan", what, ": got \"", text,
      "\", expected a size such as 24GiB, 512MiB or 80GB (powers of 1024: KiB to PiB; of 1000: KB to PB)");
  return static_cast<int64_t>(bytes);
}

double parse_duration(const std::string& what, std::string_view text) {
  const auto seconds = quantity(text, kDurations);
  HYDROFOIL_CHECK_ARG(seconds, "plan", what, ": got \"", text,
                      "\", expected a duration such as 5us or 1.5ms (s, ms, us, ns)");
  return *seconds;
}

double parse_byte_rate(const std::string& what, std::string_view text) {
  constexpr std::string_view kPerSecond = "/s";
  const auto rate =
      text.ends_with(kPerSecond) ? quantity(text.substr(0, text.size() - kPerSecond.size()), kUnits) : std::nullopt;
  HYDROFOIL_CHECK_ARG(rate && *rate >= 1, "plan", what, ": got \"", text,
                      "\", expected bytes a second such as 25GB/s (8 bits each: 200 Gbit/s are 25GB/s)");
  return *rate;
}

std::string format_bytes(int64_t num_bytes) {
  if (num_bytes > -1024 && num_bytes < 1024) return std::to_string(num_bytes) + " B";
  double value = static_cast<double>(num_bytes);
  size_t unit = 0;
  while (std::fabs(value) >= 1024 && unit < 5) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  const int decimals = std::fabs(value) < 10 ? 2 : std::fabs(value) < 100 ? 1 : 0;
  std::snprintf(text.data(), text.size(), "%.*f ", decimals, value);
  return text.data() + std::string(kUnits[unit].first);
}

}  // namespace hydrofoil::plan
