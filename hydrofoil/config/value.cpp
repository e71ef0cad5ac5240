#include "hydrofoil/config/value.h"

#include <charconv>
#include <cmath>

namespace hydrofoil::config {

const Value* Value::find(std::string_view key) const {
  for (const auto& member : members) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

Value Value::from_bool(bool value, Position position) {
  Value result;
  result.kind = ValueKind::kBool;
  result.position = position;
  result.boolean = value;
  return result;
}

Value Value::from_integer(int64_t value, Position position) {
  Value result;
  result.kind = ValueKind::kInteger;
  result.position = position;
  result.integer = value;
  result.real = static_cast<double>(value);
  return result;
}

Value Value::from_string(std::string value, Position position) {
  Value result;
  result.kind = ValueKind::kString;
  result.position = position;
  result.text = std::move(value);
  return result;
}

Value Value::object(Position position) {
  Value result;
  result.kind = ValueKind::kObject;
  result.position = position;
  return result;
}

namespace {

void write_list(const Value& value, std::string& out);

void write(const Value& value, std::string& out) {
  switch (value.kind) {
    case ValueKind::kNull:
      out += "null";
      return;
    case ValueKind::kBool:
      out += value.boolean ? "true" : "false";
      return;
    case ValueKind::kInteger:
      out += std::to_string(value.integer);
      return;
    case ValueKind::kReal:
      out += std::isinf(value.real) ? (value.real < 0 ? "-Infinity" : "Infinity") : format_number(value.real);
      return;
    case ValueKind::kString:
      out += quote(value.text);
      return;
    case ValueKind::kArray:
    case ValueKind::kObject:
      write_list(value, out);
      return;
  }
}

void write_list(const Value& value, std::string& out) {
  const bool object = value.is(ValueKind::kObject);
  const char* separator = "";
  out += object ? '{' : '[';
  for (const auto& item : value.items) {
    out += separator;
    write(item, out);
    separator = ", ";
  }
  for (const auto& [key, member] : value.members) {
    out += separator;
    out += quote(key) + ": ";
    write(member, out);
    separator = ", ";
  }
  out += object ? '}' : ']';
}

}  // namespace

std::string to_json(const Value& value) {
  std::string out;
  write(value, out);
  return out;
}

std::string format_number(double value) {
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  std::string text(buffer, result.ptr);
  // A whole number stays recognisable as a real one.
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string quote(std::string_view text, size_t limit) {
  const bool cut = text.size() > limit;
  if (cut) {
    size_t end = limit;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text = text.substr(0, end);
  }
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7F) {
      constexpr char kHex[] = "0123456789abcdef";
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  out += cut ? "...\"" : "\"";
  return out;
}

const char* kind_name(ValueKind kind) {
  switch (kind) {
    case ValueKind::kNull:
      return "null";
    case ValueKind::kBool:
      return "a boolean";
    case ValueKind::kInteger:
      return "an integer";
    case ValueKind::kReal:
      return "a number";
    case ValueKind::kString:
      return "a string";
    case ValueKind::kArray:
      return "a list";
    case ValueKind::kObject:
      return "an object";
  }
  return "an unknown kind";
}

std::string describe(const Value& value) {
  switch (value.kind) {
    case ValueKind::kNull:
      return "null";
    case ValueKind::kString:
      return "the string " + quote(value.text, 60);
    case ValueKind::kArray:
      return "a list of " + std::to_string(value.items.size());
    case ValueKind::kObject:
      return "an object";
    case ValueKind::kBool:
    case ValueKind::kInteger:
    case ValueKind::kReal:
      return to_json(value);
  }
  return kind_name(value.kind);
}

}  // namespace hydrofoil::config
