#pragma once

#include <string>
#include <vector>

#include "hydrofoil/config/field.h"
#include "hydrofoil/config/resolved_table.h"
#include "hydrofoil/config/value.h"

namespace hydrofoil::config {

// Fills option structs from parsed JSON by their field tables, and records where every value comes from.
//
// Throws InvalidArgument "[config] SOURCE:LINE:COLUMN: PATH: ..." for an unknown key (with the nearest valid one), a
// wrong type, a value out of range, a key given twice under two names, a required value that is missing or "auto", and
// an active later feature.
class Resolver {
 public:
  // `table` must outlive the resolver. `source` names the text in messages.
  Resolver(std::string source, ResolvedTable& table) : source_(std::move(source)), table_(table) {}

  // Resolves `object` (nullptr: absent, everything takes its default) into `target` (nullptr where no field of the
  // section has a member). `path` is the section's own path, "" for the root.
  void resolve(const Section& section, const Value* object, void* target, const std::string& path);

  // Throws InvalidArgument with the source, the place and the path.
  [[noreturn]] void fail(const Value* where, const std::string& path, const std::string& what) const;

  // Logs a warning that names the source, once for each message.
  void warn(const std::string& message);

  [[nodiscard]] ResolvedTable& table() { return table_; }
  [[nodiscard]] const std::string& source() const { return source_; }
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  struct Given;
  void resolve_section(const Section& section, const Value* object, void* target, const std::string& path, bool active,
                       bool shown);
  void resolve_field(const Section& section, const Field& field, const Given& given, void* target,
                     const std::string& path, bool active, bool shown);
  void resolve_nested(const Field& field, const Given& given, void* target, const std::string& path, bool active,
                      bool shown);
  void resolve_absent(const Field& field, const Given& given, void* target, const std::string& path, bool shown);
  std::vector<Given> match(const Section& section, const Value* object, const std::string& path);
  void check_later(const Field& field, const Scalar& value, const Value& given, const std::string& path) const;
  bool switched_on(const Section& section, const Value* object, const std::string& path) const;

  std::string source_;
  ResolvedTable& table_;
  std::vector<std::string> warnings_;
};

// Throws InvalidArgument "[config] PATH: got X, expected Y" unless every member of `owner` lies in its field's range.
void check_ranges(const Section& section, void* owner, const std::string& path);

}  // namespace hydrofoil::config
