#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hydrofoil/config/field.h"

namespace hydrofoil::config {

// Where a resolved value comes from. kAuto: the text said "auto" and the engine chose.
enum class Why { kGiven, kDefault, kDerived, kAuto };

[[nodiscard]] const char* why_name(Why why);

struct ResolvedRow {
  std::string path;   // "zero_optimization.stage"
  std::string value;  // as to_text() writes it
  Why why = Why::kDefault;
  std::string note;
};

// Every resolved value of a config, in the order of the field tables.
class ResolvedTable {
 public:
  void add(ResolvedRow row) { rows_.push_back(std::move(row)); }

  // Replaces a row's value: a default becomes kDerived, "auto" stays kAuto; a given row keeps its kind. `note` replaces
  // the row's unless it is empty. Adds the row where there is none.
  void derive(std::string_view path, const Scalar& value, std::string note);

  // Appends a sentence to a row's note; does nothing where there is no such row.
  void annotate(std::string_view path, const std::string& note);

  // nullptr where there is no such row.
  [[nodiscard]] const ResolvedRow* find(std::string_view path) const;

  // True where the text holds a value for `path` ("auto" and null are none).
  [[nodiscard]] bool given(std::string_view path) const;

  [[nodiscard]] const std::vector<ResolvedRow>& rows() const { return rows_; }

  // A table for people: columns key, value, why, note, one row a line.
  [[nodiscard]] std::string to_text() const;

 private:
  std::vector<ResolvedRow> rows_;
};

}  // namespace hydrofoil::config
