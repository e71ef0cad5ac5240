#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hydrofoil::config {

// Place in a config text; both count from 1.
struct Position {
  int64_t line = 1;
  int64_t column = 1;
};

enum class ValueKind { kNull, kBool, kInteger, kReal, kString, kArray, kObject };

// A parsed JSON value with its place in the text. Object members keep their order; keys are unique.
struct Value {
  struct Member;  // not std::pair, whose traits would need a whole Value here

  ValueKind kind = ValueKind::kNull;
  Position position;
  bool boolean = false;
  int64_t integer = 0;
  double real = 0.0;  // of kInteger too
  std::string text;
  std::vector<Value> items;
  std::vector<Member> members;

  // The member named `key`; nullptr where there is none or this is no object.
  [[nodiscard]] const Value* find(std::string_view key) const;
  [[nodiscard]] bool is(ValueKind other) const { return kind == other; }
  [[nodiscard]] bool is_auto() const { return kind == ValueKind::kString && text == "auto"; }

  [[nodiscard]] static Value from_bool(bool value, Position position = {});
  [[nodiscard]] static Value from_integer(int64_t value, Position position = {});
  [[nodiscard]] static Value from_string(std::string value, Position position = {});
  [[nodiscard]] static Value object(Position position = {});
};

struct Value::Member {
  Member(std::string member_key, Value member_value) : key(std::move(member_key)), value(std::move(member_value)) {}

  std::string key;
  Value value;
};

// JSON text on one line. Infinity is written as Infinity, as Python's json does.
[[nodiscard]] std::string to_json(const Value& value);

// The shortest decimal text that reads back as the same double: 0.001, 1e-08, inf.
[[nodiscard]] std::string format_number(double value);

// `text` in double quotes with JSON escapes; cut with "..." after `limit` bytes (at a character's border).
[[nodiscard]] std::string quote(std::string_view text, size_t limit = static_cast<size_t>(-1));

// "null", "a boolean", "an integer", "a number", "a string", "a list", "an object".
[[nodiscard]] const char* kind_name(ValueKind kind);

// The value as an error message shows it: kind and, for scalars, the text, cut to some 60 characters.
[[nodiscard]] std::string describe(const Value& value);

}  // namespace hydrofoil::config
