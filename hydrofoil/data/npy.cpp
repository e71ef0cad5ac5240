#include "hydrofoil/data/npy.h"

#include <array>
#include <optional>

#include "hydrofoil/base/error.h"

namespace hydrofoil::data {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kVersionAt = 6;
constexpr size_t kLengthAt = 8;

struct Description {
  std::string_view text;
  TokenType type;
};
constexpr std::array<Description, 5> kDescriptions = {{{"|u1", TokenType::kUInt8},
                                                       {"<u2", TokenType::kUInt16},
                                                       {"<u4", TokenType::kUInt32},
                                                       {"<i4", TokenType::kInt32},
                                                       {"<i8", TokenType::kInt64}}};

template <typename... Args>
[[noreturn]] void refuse(const std::string& path, size_t byte, const Args&... what) {
  HYDROFOIL_CHECK_ARG(false, "data", "'", path, "': byte ", byte, ": ", what...);
}

// Text of the file in an error's message: printable and short.
std::string quoted(std::string_view text) {
  constexpr size_t kShown = 40;
  std::string result = "'";
  for (const char c : text.substr(0, kShown)) result += c >= 32 && c < 127 ? c : '?';
  return result + (text.size() > kShown ? "...'" : "'");
}

// Reads the header: the literal of a Python dictionary with the keys descr, fortran_order and shape, in any order.
class HeaderReader {
 public:
  HeaderReader(std::string_view file, size_t begin, size_t end, const std::string& path)
      : file_(file.substr(0, end)), at_(begin), path_(path) {}

  TokenRange read() {
    expect('{');
    while (!accept('}')) {
      const size_t begin = at_;
      const std::string_view key = string();
      expect(':');
      read_value(key, begin);
      if (accept(',')) continue;
      expect('}');
      break;
    }
    skip_blanks();
    if (at_ != file_.size()) refuse(path_, at_, "text follows the header's dictionary");
    TokenRange range;
    range.path = path_;
    range.type = needed(type_, "descr");
    (void)needed(order_, "fortran_order");
    range.num_tokens = needed(num_tokens_, "shape");
    return range;
  }

 private:
  void read_value(std::string_view key, size_t begin) {
    if (key == "descr") {
      once(type_, begin);
      type_ = type();
    } else if (key == "fortran_order") {
      once(order_, begin);
      order_ = c_order();
    } else if (key == "shape") {
      once(num_tokens_, begin);
      num_tokens_ = shape();
    } else {
      refuse(path_, begin, "key: got ", quoted(key), ", expected 'descr', 'fortran_order' or 'shape'");
    }
  }

  template <typename T>
  void once(const std::optional<T>& value, size_t begin) const {
    if (value) refuse(path_, begin, "a key of the header stands twice");
  }

  template <typename T>
  T needed(const std::optional<T>& value, const char* key) const {
    if (!value) refuse(path_, at_, "the header has no '", key, "'");
    return *value;
  }

  TokenType type() {
    skip_blanks();
    const size_t begin = at_;
    if (at_ < file_.size() && file_[at_] == '[') refuse(path_, begin, "descr: a record type, expected integers");
    const std::string_view text = string();
    for (const Description& candidate : kDescriptions) {
      if (candidate.text == text) return candidate.type;
    }
    refuse(
        path_, begin, "descr: got ", quoted(text),
        ", expected little-endian tokens: '|u1', '<u2', '<u4', '<i4' or '<i8' (uint8, uint16, uint32, int32, int64)");
  }

  bool c_order() {
    skip_blanks();
    if (file_.substr(at_).starts_with("False")) {
      at_ += 5;
      return true;
    }
    if (file_.substr(at_).starts_with("True")) refuse(path_, at_, "fortran_order: got True, expected False");
    refuse(path_, at_, "fortran_order: expected True or False");
  }

  int64_t shape() {
    skip_blanks();
    const size_t begin = at_;
    expect('(');
    if (accept(')')) refuse(path_, begin, "shape: got no dimension, expected one");
    const int64_t size = integer();
    expect(',');
    if (!accept(')')) refuse(path_, begin, "shape: got more than one dimension, expected one");
    return size;
  }

  int64_t integer() {
    skip_blanks();
    const size_t begin = at_;
    int64_t value = 0;
    for (; at_ < file_.size() && file_[at_] >= '0' && file_[at_] <= '9'; ++at_) {
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, file_[at_] - '0', &value)) {
        refuse(path_, begin, "shape: over 2^63 - 1");
      }
    }
    if (at_ == begin) refuse(path_, begin, "shape: expected an integer from 0 to 2^63 - 1");
    return value;
  }

  std::string_view string() {
    skip_blanks();
    const size_t begin = at_;
    const char quote = at_ < file_.size() ? file_[at_] : '\0';
    if (quote != '\'' && quote != '"') refuse(path_, begin, "expected a string in quotes");
    const size_t end = file_.find(quote, begin + 1);
    if (end == std::string_view::npos) refuse(path_, begin, "the string has no end");
    at_ = end + 1;
    const std::string_view text = file_.substr(begin + 1, end - begin - 1);
    if (text.find('\\') != std::string_view::npos) refuse(path_, begin, "a string with a backslash");
    return text;
  }

  void skip_blanks() {
    while (at_ < file_.size() && (file_[at_] == ' ' || file_[at_] == '\n')) ++at_;
  }

  bool accept(char c) {
    skip_blanks();
    if (at_ == file_.size() || file_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) refuse(path_, at_, "expected '", c, "' in the header's dictionary");
  }

  std::string_view file_;  // up to the end of the header
  size_t at_;
  const std::string& path_;
  std::optional<TokenType> type_;
  std::optional<bool> order_;
  std::optional<int64_t> num_tokens_;
};

// Byte at which the header's text begins, and where it ends.
std::pair<size_t, size_t> locate_header(std::string_view prefix, int64_t file_bytes, const std::string& path) {
  if (file_bytes == 0) refuse(path, 0, "the file is empty");
  const std::string_view magic = prefix.substr(0, kMagic.size());
  if (magic != kMagic.substr(0, magic.size())) {
    refuse(path, 0, "got ", quoted(magic), ", expected the first bytes of a .npy file");
  }
  const auto require = [&](size_t end) {
    if (prefix.size() < end) refuse(path, prefix.size(), "the file ends within its header; it is truncated");
  };
  require(kLengthAt);
  const int major = static_cast<unsigned char>(prefix[kVersionAt]);
  const int minor = static_cast<unsigned char>(prefix[kVersionAt + 1]);
  if (major < 1 || major > 3 || minor != 0) {
    refuse(path, kVersionAt, "version of the format: got ", major, ".", minor, ", expected 1.0, 2.0 or 3.0");
  }
  const size_t length_bytes = major == 1 ? 2 : 4;
  require(kLengthAt + length_bytes);
  uint64_t length = 0;
  for (size_t i = length_bytes; i > 0; --i) {
    length = length << 8 | static_cast<unsigned char>(prefix[kLengthAt + i - 1]);
  }
  if (length > static_cast<uint64_t>(kMaxNpyHeaderBytes)) {
    refuse(path, kLengthAt, "length of the header: got ", length, ", expected at most ", kMaxNpyHeaderBytes);
  }
  const size_t begin = kLengthAt + length_bytes;
  require(begin + length);
  return {begin, begin + length};
}

}  // namespace

TokenRange parse_npy_header(std::string_view prefix, int64_t file_bytes, const std::string& path) {
  const auto [begin, end] = locate_header(prefix, file_bytes, path);
  TokenRange range = HeaderReader(prefix, begin, end, path).read();
  range.byte_offset = static_cast<int64_t>(end);
  const int64_t data_bytes = file_bytes - range.byte_offset;
  const int64_t size = token_bytes(range.type);
  if (range.num_tokens > data_bytes / size) {
    refuse(path, static_cast<size_t>(file_bytes), "the file ends after ", data_bytes / size, " tokens, expected ",
           range.num_tokens, "; it is truncated");
  }
  if (range.num_tokens * size != data_bytes) {
    refuse(path, end + static_cast<size_t>(range.num_tokens * size), data_bytes - range.num_tokens * size,
           " bytes follow the last token");
  }
  if (range.num_tokens == 0) refuse(path, end, "the file holds no token");
  return range;
}

}  // namespace hydrofoil::data
