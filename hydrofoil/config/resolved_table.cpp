#include "hydrofoil/config/resolved_table.h"

#include <algorithm>

namespace hydrofoil::config {

const char* why_name(Why why) {
  switch (why) {
    case Why::kGiven:
      return "given";
    case Why::kDefault:
      return "default";
    case Why::kDerived:
      return "derived";
    case Why::kAuto:
      return "auto";
  }
  return "unknown";
}

void ResolvedTable::derive(std::string_view path, const Scalar& value, std::string note) {
  for (auto& row : rows_) {
    if (row.path != path) continue;
    row.value = config::to_text(value);
    if (row.why == Why::kDefault) row.why = Why::kDerived;
    if (!note.empty()) row.note = std::move(note);
    return;
  }
  add({std::string(path), config::to_text(value), Why::kDerived, std::move(note)});
}

void ResolvedTable::annotate(std::string_view path, const std::string& note) {
  for (auto& row : rows_) {
    if (row.path == path) row.note += (row.note.empty() ? "" : "; ") + note;
  }
}

const ResolvedRow* ResolvedTable::find(std::string_view path) const {
  for (const auto& row : rows_) {
    if (row.path == path) return &row;
  }
  return nullptr;
}

bool ResolvedTable::given(std::string_view path) const {
  const auto* row = find(path);
  return row != nullptr && row->why == Why::kGiven;
}

std::string ResolvedTable::to_text() const {
  // A few long values must not push every other row's columns away.
  constexpr size_t kWidestValue = 24;
  size_t path_width = 3;
  size_t value_width = 5;
  for (const auto& row : rows_) {
    path_width = std::max(path_width, row.path.size());
    value_width = std::max(value_width, std::min(row.value.size(), kWidestValue));
  }
  std::string out;
  const auto line = [&](const std::string& path, const std::string& value, const std::string& why,
                        const std::string& note) {
    const auto pad = [](const std::string& text, size_t width) {
      return text + std::string(width > text.size() ? width - text.size() : 0, ' ') + "  ";
    };
    std::string text = pad(path, path_width) + pad(value, value_width) + pad(why, 7) + note;
    while (!text.empty() && text.back() == ' ') text.pop_back();
    out += text + "\n";
  };
  line("key", "value", "why", "note");
  for (const auto& row : rows_) line(row.path, row.value, why_name(row.why), row.note);
  return out;
}

}  // namespace hydrofoil::config
