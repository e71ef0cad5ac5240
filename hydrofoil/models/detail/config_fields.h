#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace hydrofoil::models {

// Reads the fields of one JSON object of a config.json and knows which keys were asked for. Errors are InvalidArgument
// "[load_model_config] 'file': key: got X, expected Y".
class ConfigFields {
 public:
  // `place`: prefix of keys in errors, "" or "rope_scaling.". Both outlive the object. Throws unless it is an object.
  ConfigFields(const nlohmann::json& json, std::string place, std::string file);

  // An absent field has the value `fallback`.
  int64_t integer(const std::string& name, int64_t fallback, int64_t low, int64_t high);
  double number(const std::string& name, double fallback, double low, double high);
  bool boolean(const std::string& name, bool fallback);
  std::string string(const std::string& name, const std::string& fallback);

  // nullopt where it is absent or null.
  std::optional<int64_t> optional_integer(const std::string& name, int64_t low, int64_t high);
  std::optional<double> optional_number(const std::string& name, double low, double high);
  std::optional<std::string> optional_string(const std::string& name);
  // The object; nullptr where it is absent or null.
  const nlohmann::json* optional_object(const std::string& name);

  // `size` numbers; empty where it is absent.
  std::vector<double> numbers(const std::string& name, size_t size, double low, double high);

  // A setting that is not implemented: absent, null, or `neutral` (JSON), which changes nothing.
  void expect(const std::string& name, std::string_view neutral);
  // Keys of any value.
  void ignore(const std::vector<std::string>& names);

  // Throws for a key that no other call named.
  void finish() const;

  // Throws "'file': name: got <the field's value>, expected ...".
  [[noreturn]] void fail(const std::string& name, const std::string& expected) const;
  [[nodiscard]] bool contains(const std::string& name) const;

 private:
  const nlohmann::json* find(const std::string& name);           // nullptr: absent
  const nlohmann::json* find_optional(const std::string& name);  // nullptr: absent or null
  int64_t to_integer(const nlohmann::json& value, const std::string& name, int64_t low, int64_t high) const;
  double to_number(const nlohmann::json& value, const std::string& name, double low, double high) const;

  const nlohmann::json& json_;
  std::string place_;
  std::string file_;
  std::set<std::string> known_;
};

}  // namespace hydrofoil::models
