#include "hydrofoil/config/field.h"

#include "hydrofoil/config/value.h"

namespace hydrofoil::config {
namespace {

template <typename T>
std::string list_text(const std::vector<T>& items) {
  std::string out = "[";
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    if constexpr (std::is_same_v<T, double>) {
      out += format_number(items[i]);
    } else {
      out += items[i];
    }
  }
  return out + "]";
}

struct TextOf {
  std::string operator()(std::monostate) const { return "none"; }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(int64_t value) const { return std::to_string(value); }
  std::string operator()(double value) const { return format_number(value); }
  std::string operator()(const std::string& value) const { return value.empty() ? "\"\"" : value; }
  std::string operator()(const std::vector<std::string>& value) const { return list_text(value); }
  std::string operator()(const std::vector<double>& value) const { return list_text(value); }
};

constexpr FieldType kTypeOfScalar[] = {FieldType::kRaw,       FieldType::kBool,   FieldType::kInteger,
                                       FieldType::kNumber,    FieldType::kString, FieldType::kStringList,
                                       FieldType::kNumberList};

}  // namespace

std::string to_text(const Scalar& value) { return std::visit(TextOf{}, value); }

std::string to_json(const Scalar& value) {
  if (std::holds_alternative<std::monostate>(value)) return "null";
  if (const auto* text = std::get_if<std::string>(&value)) return quote(*text);
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    std::vector<std::string> quoted;
    for (const auto& item : *texts) quoted.push_back(quote(item));
    return list_text(quoted);
  }
  return to_text(value);
}

Field& Field::range(double least, double most) {
  minimum = least;
  maximum = most;
  return *this;
}

Field& Field::at_least(double least) {
  minimum = least;
  return *this;
}

Field& Field::above(double bound) {
  minimum = bound;
  above_minimum = true;
  return *this;
}

Field& Field::alias(std::string name) {
  aliases.push_back(std::move(name));
  return *this;
}

Field& Field::old_name(std::string name) {
  old_names.push_back(std::move(name));
  return *this;
}

Field& Field::with_note(std::string text) {
  note = std::move(text);
  return *this;
}

Field& Field::with_status(FieldStatus value) {
  status = value;
  return *this;
}

Field& Field::later() { return with_status(FieldStatus::kLaterFeature); }

Field& Field::accepted(std::string what_it_does_here) {
  note = std::move(what_it_does_here);
  return with_status(FieldStatus::kAcceptedOnly);
}

Field& Field::derived(std::string text) {
  default_text = std::move(text);
  return *this;
}

Field& Field::needed(std::string what_to_do) {
  required = true;
  way_out = std::move(what_to_do);
  default_value = std::monostate();
  return *this;
}

Field& Field::preset(Scalar value) {
  default_value = std::move(value);
  return *this;
}

Field plain(std::string key, Scalar default_value, std::string doc) {
  Field result;
  result.key = std::move(key);
  result.type = kTypeOfScalar[default_value.index()];
  result.default_value = std::move(default_value);
  result.doc = std::move(doc);
  return result;
}

Field accepted(std::string key, Scalar default_value, std::string note) {
  return plain(std::move(key), std::move(default_value)).accepted(std::move(note));
}

Field later(std::string key, Scalar default_value, std::string doc) {
  return plain(std::move(key), std::move(default_value), std::move(doc)).later();
}

Field nested(std::string key, Section section) {
  Field result;
  result.key = std::move(key);
  result.type = FieldType::kSection;
  result.doc = section.doc;
  result.section = std::make_shared<const Section>(std::move(section));
  return result;
}

}  // namespace hydrofoil::config
