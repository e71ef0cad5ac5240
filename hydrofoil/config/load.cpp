#include "hydrofoil/config/load.h"

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/config/detail/utf8.h"
#include "hydrofoil/config/parser.h"

namespace hydrofoil::config {
namespace {

int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+' || c == '-') return 62;
  if (c == '/' || c == '_') return 63;
  return -1;
}

std::optional<std::string> decode_base64(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
  const size_t length = text.size();
  size_t padding = 0;
  while (!text.empty() && text.back() == '=' && padding < 2) {
    text.remove_suffix(1);
    ++padding;
  }
  if (text.size() % 4 == 1 || (padding > 0 && length % 4 != 0)) return std::nullopt;
  std::string out;
  out.reserve(text.size() * 3 / 4);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int digit = base64_digit(c);
    if (digit < 0) return std::nullopt;
    bits = (bits << 6) | static_cast<uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>((bits >> count) & 0xFF);
    }
  }
  return out;
}

// First character that is neither blank nor inside a comment; 0 at the end. Reads no further than it must.
char first_significant(std::string_view text) {
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') continue;
    if (c == '#' || text.substr(i, 2) == "//") {
      i = text.find('\n', i);
    } else if (text.substr(i, 2) == "/*") {
      i = text.find("*/", i + 2);
      if (i != std::string_view::npos) ++i;
    } else {
      return c;
    }
    if (i == std::string_view::npos) return 0;
  }
  return 0;
}

void check_size(int64_t bytes, const std::string& source) {
  HYDROFOIL_CHECK_ARG(bytes <= kMaxConfigBytes, "config", source, " has ", bytes, " bytes, expected at most ",
                      kMaxConfigBytes);
}

LoadedConfig parse(std::string_view text, std::string source) {
  check_size(static_cast<int64_t>(text.size()), source);
  LoadedConfig loaded{parse_json(text, source), std::move(source)};
  if (!loaded.root.is(ValueKind::kObject)) {
    throw_at(loaded.source, loaded.root.position, "", "got " + describe(loaded.root) + ", expected an object {...}");
  }
  return loaded;
}

LoadedConfig load_file(const std::string& path) {
  std::error_code error;
  HYDROFOIL_CHECK_ARG(!std::filesystem::is_directory(path, error), "config", path, " is a directory, expected a file");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw_system_error("config", "cannot open " + path, errno);
  const auto bytes = std::filesystem::file_size(path, error);
  if (!error) check_size(static_cast<int64_t>(bytes), path);
  std::string text;  // a pipe or device has no size: read no further than the limit
  char chunk[1 << 14];
  while (static_cast<int64_t>(text.size()) <= kMaxConfigBytes && (file.read(chunk, sizeof(chunk)), file.gcount() > 0)) {
    text.append(chunk, static_cast<size_t>(file.gcount()));
  }
  if (file.bad()) throw_system_error("config", "cannot read " + path, errno);
  HYDROFOIL_CHECK_ARG(static_cast<int64_t>(text.size()) <= kMaxConfigBytes, "config", path, " has over ",
                      kMaxConfigBytes, " bytes; no config has");
  return parse(text, path);
}

bool is_existing_path(std::string_view text) {
  constexpr size_t kMaxPathBytes = 4096;
  if (text.empty() || text.size() >= kMaxPathBytes || text.find('\0') != std::string_view::npos) return false;
  std::error_code error;
  return std::filesystem::exists(std::string(text), error);
}

}  // namespace

LoadedConfig load_config(std::string_view text_or_path) {
  if (is_existing_path(text_or_path)) return load_file(std::string(text_or_path));
  const char first = first_significant(text_or_path);
  if (first == '{' || first == '[') return parse(text_or_path, "config text");
  if (const auto decoded = decode_base64(text_or_path)) {
    if (first_significant(*decoded) == '{') return parse(*decoded, "base64 config");
  }
  HYDROFOIL_CHECK_ARG(first != 0 || !text_or_path.empty(), "config", "the config is an empty string, expected ",
                      "a file's path, JSON text or base64 of JSON text");
  const auto shown = detail::valid_utf8_prefix(text_or_path.substr(0, 120));
  HYDROFOIL_CHECK_ARG(false, "config",
                      "no such file, and neither JSON text (which starts with '{') nor base64 of it: ", quote(shown),
                      text_or_path.size() > shown.size() ? " (cut)" : "");
  throw InternalError("unreachable");
}

}  // namespace hydrofoil::config
