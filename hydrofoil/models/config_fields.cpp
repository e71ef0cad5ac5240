#include <nlohmann/json.hpp>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"
#include "hydrofoil/models/detail/config_fields.h"

namespace hydrofoil::models {
namespace {

using Json = nlohmann::json;

constexpr const char* kFunction = "load_model_config";

// A value for an error message; a config may hold a list of a million numbers.
std::string shown(const Json& value) {
  constexpr size_t kMaxShown = 100;
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= kMaxShown ? text : text.substr(0, kMaxShown) + "...";
}

}  // namespace

ConfigFields::ConfigFields(const Json& json, std::string place, std::string file)
    : json_(json), place_(std::move(place)), file_(std::move(file)) {
  HYDROFOIL_CHECK_ARG(json.is_object(), kFunction, "'", file_, "': ", place_, " got ", shown(json),
                      ", expected a JSON object");
}

bool ConfigFields::contains(const std::string& name) const { return json_.contains(name); }

const Json* ConfigFields::find(const std::string& name) {
  known_.insert(name);
  const auto found = json_.find(name);
  return found == json_.end() ? nullptr : &*found;
}

const Json* ConfigFields::find_optional(const std::string& name) {
  const Json* value = find(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void ConfigFields::fail(const std::string& name, const std::string& expected) const {
  const auto found = json_.find(name);
  HYDROFOIL_CHECK_ARG(false, kFunction, "'", file_, "': ", place_, name, ": got ",
                      found == json_.end() ? "nothing" : shown(*found), ", expected ", expected);
}

int64_t ConfigFields::to_integer(const Json& value, const std::string& name, int64_t low, int64_t high) const {
  // Anything over INT64_MAX is unsigned to the parser, anything below INT64_MIN a float.
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) &&
                    value.get<int64_t>() >= low && value.get<int64_t>() <= high;
  if (!fits) fail(name, detail::concat("an integer from ", low, " to ", high));
  return value.get<int64_t>();
}

double ConfigFields::to_number(const Json& value, const std::string& name, double low, double high) const {
  const bool fits = value.is_number() && value.get<double>() >= low && value.get<double>() <= high;
  if (!fits) fail(name, detail::concat("a number from ", low, " to ", high));
  return value.get<double>();
}

int64_t ConfigFields::integer(const std::string& name, int64_t fallback, int64_t low, int64_t high) {
  const Json* value = find(name);
  return value == nullptr ? fallback : to_integer(*value, name, low, high);
}

double ConfigFields::number(const std::string& name, double fallback, double low, double high) {
  const Json* value = find(name);
  return value == nullptr ? fallback : to_number(*value, name, low, high);
}

bool ConfigFields::boolean(const std::string& name, bool fallback) {
  const Json* value = find(name);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) fail(name, "true or false");
  return value->get<bool>();
}

std::string ConfigFields::string(const std::string& name, const std::string& fallback) {
  const Json* value = find(name);
  if (value == nullptr) return fallback;
  if (!value->is_string()) fail(name, "a string");
  return value->get<std::string>();
}

std::optional<int64_t> ConfigFields::optional_integer(const std::string& name, int64_t low, int64_t high) {
  const Json* value = find_optional(name);
  return value == nullptr ? std::nullopt : std::optional(to_integer(*value, name, low, high));
}

std::optional<double> ConfigFields::optional_number(const std::string& name, double low, double high) {
  const Json* value = find_optional(name);
  return value == nullptr ? std::nullopt : std::optional(to_number(*value, name, low, high));
}

std::optional<std::string> ConfigFields::optional_string(const std::string& name) {
  return find_optional(name) == nullptr ? std::nullopt : std::optional(string(name, ""));
}

const Json* ConfigFields::optional_object(const std::string& name) {
  const Json* value = find_optional(name);
  if (value != nullptr && !value->is_object()) fail(name, "an object or null");
  return value;
}

std::vector<double> ConfigFields::numbers(const std::string& name, size_t size, double low, double high) {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (!value->is_array() || value->size() != size) fail(name, detail::concat("a list of ", size, " numbers"));
  std::vector<double> result;
  for (const Json& element : *value) result.push_back(to_number(element, name, low, high));
  return result;
}

void ConfigFields::expect(const std::string& name, std::string_view neutral) {
  const Json* value = find_optional(name);
  if (value == nullptr || *value == Json::parse(neutral)) return;
  fail(name, neutral == "null" ? "null: it is not implemented"
                               : detail::concat(neutral, " or null: nothing else is implemented"));
}

void ConfigFields::ignore(const std::vector<std::string>& names) { known_.insert(names.begin(), names.end()); }

void ConfigFields::finish() const {
  for (const auto& [key, value] : json_.items()) {
    if (known_.contains(key)) continue;
    HYDROFOIL_CHECK_ARG(false, kFunction, "'", file_, "': ", place_, key, ": got ", shown(value),
                        ", expected no such key (the nearest one that is known: '",
                        nearest_name(key, {known_.begin(), known_.end()}),
                        "'); delete it from the file if it does not change what the model computes");
  }
}

}  // namespace hydrofoil::models
