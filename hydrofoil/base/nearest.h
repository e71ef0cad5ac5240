#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace hydrofoil {

// Number of single-character edits between two names (Levenshtein), case-insensitive for ASCII.
[[nodiscard]] inline size_t edit_distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

// The valid name closest to `name`; empty where `names` is empty. Names over 256 characters are compared by their
// start.
[[nodiscard]] inline std::string nearest_name(std::string_view name, const std::vector<std::string>& names) {
  std::string best;
  size_t best_distance = static_cast<size_t>(-1);
  for (const auto& candidate : names) {
    const size_t distance = edit_distance(name.substr(0, 256), candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace hydrofoil
