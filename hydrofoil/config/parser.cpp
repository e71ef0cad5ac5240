#include "hydrofoil/config/parser.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <unordered_map>

#include "hydrofoil/base/error.h"
#include "hydrofoil/config/detail/utf8.h"

namespace hydrofoil::config {

void throw_at(const std::string& source, Position position, const std::string& path, const std::string& what) {
  const std::string place = path.empty() ? "" : path + ": ";
  HYDROFOIL_CHECK_ARG(false, "config", source, ":", position.line, ":", position.column, ": ", place, what);
  throw InternalError("unreachable");
}

namespace {

constexpr std::string_view kLiberty = " is a liberty of HJSON that is not accepted here; ";

bool is_word_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_number_part(char c) { return is_digit(c) || c == '+' || c == '-' || c == '.' || c == 'e' || c == 'E'; }

class Parser {
 public:
  Parser(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  Value parse() {
    if (text_.substr(0, 3) == "\xEF\xBB\xBF") offset_ = 3;
    skip_blanks();
    if (at_end()) fail("the text is empty, expected an object {...}");
    if (peek() == '"' && looks_like_member()) {
      fail("an object without its braces" + std::string(kLiberty) + "write {...} around it");
    }
    Value value = parse_value(0);
    skip_blanks();
    if (!at_end()) fail("unexpected text after the end of the value: " + snippet());
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw_at(source_, here_, path_, what); }
  [[noreturn]] void fail_at(Position position, const std::string& what) const {
    throw_at(source_, position, path_, what);
  }

  bool at_end() const { return offset_ >= text_.size(); }
  char peek() const { return text_[offset_]; }
  bool starts_with(std::string_view prefix) const { return text_.substr(offset_, prefix.size()) == prefix; }

  void advance() {
    const char c = text_[offset_++];
    if (c == '\n') {
      ++here_.line;
      here_.column = 1;
    } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
      ++here_.column;
    }
  }

  std::string snippet() const {
    if (at_end()) return "the end of the text";
    size_t end = offset_;
    while (end < text_.size() && end - offset_ < 20 && text_[end] != '\n') ++end;
    const std::string_view part = text_.substr(offset_, end - offset_);
    return quote(detail::valid_utf8_prefix(part));
  }

  bool looks_like_member() const {
    size_t i = offset_ + 1;
    while (i < text_.size() && text_[i] != '"' && text_[i] != '\n') ++i;
    ++i;
    while (i < text_.size() && (text_[i] == ' ' || text_[i] == '\t')) ++i;
    return i < text_.size() && text_[i] == ':';
  }

  void skip_blanks() {
    while (!at_end()) {
      const char c = peek();
      if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        advance();
      } else if (c == '#' || starts_with("//")) {
        while (!at_end() && peek() != '\n') advance();
      } else if (starts_with("/*")) {
        skip_block_comment();
      } else {
        return;
      }
    }
  }

  void skip_block_comment() {
    const Position start = here_;
    advance();
    advance();
    while (!starts_with("*/")) {
      if (at_end()) fail_at(start, "the comment /* is never closed");
      advance();
    }
    advance();
    advance();
  }

  Value parse_value(int depth) {
    if (at_end()) fail("unexpected end of the text, expected a value");
    const char c = peek();
    if (c == '{' || c == '[') {
      if (depth >= kMaxDepth) fail("nesting is deeper than " + std::to_string(kMaxDepth) + " levels");
      return c == '{' ? parse_object(depth + 1) : parse_array(depth + 1);
    }
    if (c == '"') {
      const Position start = here_;
      return Value::from_string(parse_string(), start);
    }
    if (c == '\'') {
      const std::string what = starts_with("'''") ? "a ''' multi-line string" : "a string in single quotes";
      fail(what + std::string(kLiberty) + "write it in double quotes");
    }
    if (is_digit(c) || c == '-' || c == '+' || c == '.') return parse_number();
    return parse_word();
  }

  Value parse_object(int depth) {
    Value value = Value::object(here_);
    std::unordered_map<std::string, Position> seen;
    const size_t path_size = path_.size();
    advance();
    for (;;) {
      skip_blanks();
      if (at_end()) fail_at(value.position, "the object { is never closed");
      if (peek() == '}') break;
      const Position key_position = here_;
      std::string key = parse_key();
      enter(key);
      const auto [first, fresh] = seen.emplace(key, key_position);
      if (!fresh) {
        fail_at(key_position, "duplicate key, given first at line " + std::to_string(first->second.line) + ", column " +
                                  std::to_string(first->second.column));
      }
      skip_blanks();
      if (at_end() || peek() != ':') fail("expected ':' after the key, got " + snippet());
      advance();
      skip_blanks();
      Value member = parse_value(depth);
      path_.resize(path_size);
      if (!key.starts_with("_comment")) value.members.emplace_back(std::move(key), std::move(member));
      if (!another('}', value.position)) break;
    }
    advance();
    return value;
  }

  Value parse_array(int depth) {
    Value value;
    value.kind = ValueKind::kArray;
    value.position = here_;
    const size_t path_size = path_.size();
    advance();
    for (;;) {
      skip_blanks();
      if (at_end()) fail_at(value.position, "the list [ is never closed");
      if (peek() == ']') break;
      path_ += "[" + std::to_string(value.items.size()) + "]";
      value.items.push_back(parse_value(depth));
      path_.resize(path_size);
      if (!another(']', value.position)) break;
    }
    advance();
    return value;
  }

  // Steps over the comma between two elements; false at the closing bracket.
  bool another(char close, Position open) {
    const int64_t line = here_.line;
    skip_blanks();
    if (at_end()) fail_at(open, close == '}' ? "the object { is never closed" : "the list [ is never closed");
    if (peek() == close) return false;
    if (peek() != ',') {
      if (here_.line > line) {
        fail("a missing comma between two lines" + std::string(kLiberty) + "put ',' before " + snippet());
      }
      fail(std::string("expected ',' or '") + close + "', got " + snippet());
    }
    advance();
    return true;
  }

  std::string parse_key() {
    if (peek() == '"') return parse_string();
    if (peek() == '\'') fail("a key in single quotes" + std::string(kLiberty) + "write it in double quotes");
    if (is_word_start(peek())) {
      fail("the unquoted key " + snippet() + std::string(kLiberty) + "write it in double quotes");
    }
    fail("expected a key in double quotes or '}', got " + snippet());
  }

  void enter(const std::string& key) {
    if (!path_.empty()) path_ += '.';
    const std::string_view shown = detail::valid_utf8_prefix(std::string_view(key).substr(0, 80));
    path_ += shown;
    if (shown.size() < key.size()) path_ += "...";
  }

  std::string parse_string() {
    const Position start = here_;
    std::string out;
    advance();
    for (;;) {
      if (at_end()) fail_at(start, "the string is never closed");
      const char c = peek();
      if (c == '"') break;
      if (c == '\\') {
        parse_escape(out);
      } else if (static_cast<unsigned char>(c) < 0x20) {
        fail(c == '\n' ? "the string is not closed before the end of its line" : "a control character in a string");
      } else {
        out += c;
        advance();
      }
    }
    advance();
    if (detail::valid_utf8_prefix(out).size() != out.size()) fail_at(start, "the string is not valid UTF-8");
    return out;
  }

  void parse_escape(std::string& out) {
    constexpr std::string_view kNames = "\"\\/bfnrt";
    constexpr std::string_view kCharacters = "\"\\/\b\f\n\r\t";
    advance();
    if (at_end()) fail("the string is never closed");
    const char c = peek();
    if (c == 'u') {
      advance();
      detail::append_utf8(out, parse_unicode());
      return;
    }
    const size_t index = kNames.find(c);
    if (index == std::string_view::npos) fail("unknown escape sequence in a string");
    out += kCharacters[index];
    advance();
  }

  uint32_t parse_unicode() {
    const uint32_t first = parse_hex4();
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF || !starts_with("\\u")) fail("half of a surrogate pair in a string");
    advance();
    advance();
    const uint32_t second = parse_hex4();
    if (second < 0xDC00 || second > 0xDFFF) fail("half of a surrogate pair in a string");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  uint32_t parse_hex4() {
    uint32_t code = 0;
    const std::string_view digits = text_.substr(offset_, 4);
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != 4 || result.ptr != digits.data() + 4) fail("expected four hexadecimal digits after \\u");
    for (int i = 0; i < 4; ++i) advance();
    return code;
  }

  Value parse_number() {
    const Position start = here_;
    if (starts_with("-Infinity") || starts_with("-inf") || starts_with("+inf")) return parse_infinity();
    const size_t begin = offset_;
    while (!at_end() && is_number_part(peek())) advance();
    const std::string_view token = text_.substr(begin, offset_ - begin);
    if (!at_end() && is_word_start(peek())) {
      fail_at(start, "an unquoted string" + std::string(kLiberty) + "write it in double quotes");
    }
    if (!valid_number(token)) {
      fail_at(start, quote(token, 40) + " is not a JSON number (as in 12, -0.5, 1e-8)");
    }
    Value value;
    value.position = start;
    if (token.find_first_of(".eE") == std::string_view::npos) {
      const auto parsed = std::from_chars(token.data(), token.data() + token.size(), value.integer);
      if (parsed.ec == std::errc()) return Value::from_integer(value.integer, start);
    }
    value.kind = ValueKind::kReal;
    const auto parsed = std::from_chars(token.data(), token.data() + token.size(), value.real);
    if (parsed.ec != std::errc() || !std::isfinite(value.real)) {
      fail_at(start, "the number " + quote(token, 40) + " is out of range");
    }
    return value;
  }

  static bool valid_number(std::string_view token) {
    size_t i = 0;
    const auto digits = [&] {
      const size_t begin = i;
      while (i < token.size() && is_digit(token[i])) ++i;
      return i - begin;
    };
    if (i < token.size() && token[i] == '-') ++i;
    const size_t whole = i;
    const size_t count = digits();
    if (count == 0 || (count > 1 && token[whole] == '0')) return false;
    if (i < token.size() && token[i] == '.') {
      ++i;
      if (digits() == 0) return false;
    }
    if (i < token.size() && (token[i] == 'e' || token[i] == 'E')) {
      ++i;
      if (i < token.size() && (token[i] == '+' || token[i] == '-')) ++i;
      if (digits() == 0) return false;
    }
    return i == token.size();
  }

  Value parse_infinity() {
    Value value;
    value.kind = ValueKind::kReal;
    value.position = here_;
    value.real = std::numeric_limits<double>::infinity();
    if (peek() == '-') value.real = -value.real;
    if (peek() == '-' || peek() == '+') advance();
    while (!at_end() && is_word_start(peek())) advance();
    return value;
  }

  Value parse_word() {
    const size_t begin = offset_;
    size_t end = begin;
    while (end < text_.size() && (is_word_start(text_[end]) || is_digit(text_[end]))) ++end;
    const std::string_view word = text_.substr(begin, end - begin);
    const Position start = here_;
    if (word == "Infinity" || word == "inf") return parse_infinity();
    if (word == "NaN" || word == "nan") fail("NaN is not a value that any key takes");
    std::optional<Value> value;
    if (word == "true" || word == "false") value = Value::from_bool(word == "true", start);
    if (word == "null") value.emplace();
    if (value) {
      value->position = start;
      while (offset_ < end) advance();
      return *value;
    }
    if (word == "True" || word == "False" || word == "None") {
      fail(std::string(word) + " is Python, expected " + (word == "None" ? "null" : word == "True" ? "true" : "false"));
    }
    if (!word.empty()) {
      fail("the unquoted string " + snippet() + std::string(kLiberty) + "write it in double quotes");
    }
    fail("expected a value, got " + snippet());
  }

  std::string_view text_;
  const std::string& source_;
  size_t offset_ = 0;
  Position here_;
  std::string path_;
};

}  // namespace

Value parse_json(std::string_view text, const std::string& source) { return Parser(text, source).parse(); }

}  // namespace hydrofoil::config
