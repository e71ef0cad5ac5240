#include "hydrofoil/config/coerce.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace hydrofoil::config {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::optional<int64_t> whole(double value) {
  constexpr double kBound = 9223372036854775808.0;  // 2^63
  if (!std::isfinite(value) || value != std::floor(value) || value < -kBound || value >= kBound) return std::nullopt;
  return static_cast<int64_t>(value);
}

// A decimal number that fills the whole string, blanks around it aside.
std::optional<double> number_in(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  double value = 0.0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() || std::isnan(value)) return std::nullopt;
  return value;
}

std::optional<int64_t> integer_in(std::string_view text) {
  int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec == std::errc() && result.ptr == text.data() + text.size()) return value;
  // pydantic takes "5.0" for an integer, but not "5e0".
  if (text.find_first_of("eE") != std::string_view::npos) return std::nullopt;
  const auto real = number_in(text);
  return real ? whole(*real) : std::nullopt;
}

std::optional<bool> bool_in(const Value& value) {
  if (value.is(ValueKind::kInteger) || value.is(ValueKind::kReal)) {
    if (value.real == 0.0) return false;
    if (value.real == 1.0) return true;
    return std::nullopt;
  }
  const std::string text = lower(value.text);
  for (const char* yes : {"true", "t", "yes", "y", "on", "1"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"false", "f", "no", "n", "off", "0"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

std::optional<Scalar> coerce_bool(const Value& value, bool lax) {
  if (value.is(ValueKind::kBool)) return value.boolean;
  if (!lax || value.is(ValueKind::kArray) || value.is(ValueKind::kObject)) return std::nullopt;
  const auto result = bool_in(value);
  return result ? std::optional<Scalar>(*result) : std::nullopt;
}

bool is_number(const Value& value) { return value.is(ValueKind::kInteger) || value.is(ValueKind::kReal); }

std::optional<Scalar> coerce_number(const Value& value, const Field& field, bool lax) {
  const bool integral = field.type == FieldType::kInteger;
  if (value.is(ValueKind::kInteger)) return integral ? Scalar(value.integer) : Scalar(value.real);
  std::optional<double> real;
  if (value.is(ValueKind::kReal)) real = value.real;
  if (lax && value.is(ValueKind::kString)) {
    if (integral) {
      const auto parsed = integer_in(value.text);
      if (parsed) return *parsed;
    }
    real = number_in(value.text);
    if (integral && real && std::isfinite(*real)) return std::nullopt;
  }
  if (!real) return std::nullopt;
  if (std::isinf(*real)) return field.allows_infinity && *real > 0 ? std::optional<Scalar>(Scalar()) : std::nullopt;
  if (!integral) return *real;
  const auto parsed = whole(*real);
  return parsed ? std::optional<Scalar>(*parsed) : std::nullopt;
}

std::optional<Scalar> coerce_string(const Value& value, const Field& field) {
  if (!value.is(ValueKind::kString)) return std::nullopt;
  if (field.ignores_case) {
    for (const auto& name : field.choices) {
      if (lower(name) == lower(value.text)) return name;
    }
  }
  return value.text;
}

std::optional<Scalar> coerce_strings(const Value& value, const Field& field) {
  if (field.allows_one_string && value.is(ValueKind::kString)) return std::vector<std::string>{value.text};
  if (!value.is(ValueKind::kArray)) return std::nullopt;
  std::vector<std::string> out;
  for (const auto& item : value.items) {
    if (!item.is(ValueKind::kString)) return std::nullopt;
    out.push_back(item.text);
  }
  return out;
}

std::optional<Scalar> coerce_numbers(const Value& value) {
  if (is_number(value) && std::isfinite(value.real)) return std::vector<double>{value.real};
  if (!value.is(ValueKind::kArray)) return std::nullopt;
  std::vector<double> out;
  for (const auto& item : value.items) {
    if (!is_number(item) || !std::isfinite(item.real)) return std::nullopt;
    out.push_back(item.real);
  }
  return out;
}

std::string bound_text(double bound) {
  const auto integer = whole(bound);
  return integer && std::abs(bound) < 1e15 ? std::to_string(*integer) : format_number(bound);
}

bool in_range(const Field& field, double value) {
  return (field.above_minimum ? value > field.minimum : value >= field.minimum) &&
         (field.below_maximum ? value < field.maximum : value <= field.maximum);
}

std::string range_text(const Field& field) {
  const bool from = std::isfinite(field.minimum);
  const bool to = std::isfinite(field.maximum);
  if (from && to && !field.above_minimum && !field.below_maximum) {
    return " from " + bound_text(field.minimum) + " to " + bound_text(field.maximum);
  }
  std::string text;
  if (from) text += (field.above_minimum ? " > " : " >= ") + bound_text(field.minimum);
  if (to) text += (from ? " and" : "") + std::string(field.below_maximum ? " < " : " <= ") + bound_text(field.maximum);
  return text;
}

}  // namespace

std::string expected_text(const Field& field) {
  switch (field.type) {
    case FieldType::kBool:
      return "true or false";
    case FieldType::kInteger:
      return "an integer" + range_text(field) + (field.allows_infinity ? " (or Infinity)" : "");
    case FieldType::kNumber:
      return "a number" + range_text(field);
    case FieldType::kString: {
      if (field.choices.empty()) return "a string";
      std::string text = "one of ";
      for (size_t i = 0; i < field.choices.size(); ++i) text += (i > 0 ? ", " : "") + field.choices[i];
      return text;
    }
    case FieldType::kStringList:
      return field.allows_one_string ? "a list of strings or one string" : "a list of strings";
    case FieldType::kNumberList: {
      const std::string each = range_text(field).empty() ? "" : ", each" + range_text(field);
      if (field.length > 0) return "a list of " + std::to_string(field.length) + " numbers" + each;
      return "a number or a list of numbers" + each;
    }
    case FieldType::kSection:
      return "an object";
    case FieldType::kRaw:
      return "any JSON value";
  }
  return "a value";
}

std::optional<Scalar> coerce(const Value& value, const Field& field, bool lax) {
  switch (field.type) {
    case FieldType::kBool:
      return coerce_bool(value, lax);
    case FieldType::kInteger:
    case FieldType::kNumber:
      return coerce_number(value, field, lax);
    case FieldType::kString:
      return coerce_string(value, field);
    case FieldType::kStringList:
      return coerce_strings(value, field);
    case FieldType::kNumberList:
      return coerce_numbers(value);
    case FieldType::kSection:
    case FieldType::kRaw:
      return std::nullopt;
  }
  return std::nullopt;
}

bool fits(const Field& field, const Scalar& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return in_range(field, static_cast<double>(*integer));
  if (const auto* real = std::get_if<double>(&value)) return std::isfinite(*real) && in_range(field, *real);
  if (const auto* text = std::get_if<std::string>(&value)) {
    return field.choices.empty() || std::find(field.choices.begin(), field.choices.end(), *text) != field.choices.end();
  }
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    return field.length == 0 || texts->size() == field.length;
  }
  if (const auto* numbers = std::get_if<std::vector<double>>(&value)) {
    if (numbers->empty() || (field.length > 0 && numbers->size() != field.length)) return false;
    return std::all_of(numbers->begin(), numbers->end(),
                       [&](double x) { return std::isfinite(x) && in_range(field, x); });
  }
  return true;
}

}  // namespace hydrofoil::config
