#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string_view>

#include "apps/launcher/terminal.h"
#include "apps/stored_tensors.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil {
namespace {

// Longer names, and longer texts of metadata, do not widen the column of all others.
constexpr size_t kMaxNameWidth = 60;
constexpr size_t kMaxTextBytes = 160;
constexpr size_t kNumColumns = 5;

using launcher::with_commas;
using Row = std::array<std::string, kNumColumns>;

// `text` with its control characters (those of one byte, and U+0080 to U+009F) as \xNN.
std::string printable(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : '\0');
    const bool two_bytes = c == 0xc2 && next < 0xa0;
    if (c >= 32 && c != 127 && !two_bytes) {
      result += text[i];
      continue;
    }
    char escaped[8];
    std::snprintf(escaped, sizeof(escaped), "\\x%02x", two_bytes ? next : c);
    result += escaped;
    if (two_bytes) ++i;
  }
  return result;
}

// Columns that UTF-8 text takes, at one a character.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// "512 bytes"; "1,536 bytes (1.5 KiB)".
std::string bytes_text(int64_t num_bytes) {
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  const std::string exact = with_commas(num_bytes) + " bytes";
  if (num_bytes < 1024) return exact;
  double value = static_cast<double>(num_bytes) / 1024;
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof(text), " (%.1f %s)", value, kUnits[unit]);
  return exact + text;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

Row row_of(const StoredTensor& tensor) {
  return {printable(tensor.name), printable(tensor.kind), std::string(storage::dtype_name(tensor.dtype)),
          shape_text(tensor.shape), with_commas(tensor.num_bytes)};
}

class Table {
 public:
  explicit Table(const StoredTensors& contents) {
    widen({"NAME", "KIND", "DTYPE", "SHAPE", "BYTES"});
    has_kinds_ = std::any_of(contents.tensors.begin(), contents.tensors.end(),
                             [](const StoredTensor& tensor) { return !tensor.kind.empty(); });
    for (const StoredTensor& tensor : contents.tensors) widen(row_of(tensor));
  }

  void print(const Row& row, std::ostream& out) const {
    for (size_t column = 0; column + 1 < kNumColumns; ++column) {
      if (column == 1 && !has_kinds_) continue;
      out << row[column] << std::string(padding(row, column) + 2, ' ');
    }
    out << std::string(padding(row, kNumColumns - 1), ' ') << row.back() << "\n";
  }

 private:
  void widen(const Row& row) {
    for (size_t column = 0; column < kNumColumns; ++column) {
      widths_[column] = std::max(widths_[column], std::min(width_of(row[column]), kMaxNameWidth));
    }
  }

  size_t padding(const Row& row, size_t column) const {
    return widths_[column] - std::min(widths_[column], width_of(row[column]));
  }

  std::array<size_t, kNumColumns> widths_ = {};
  bool has_kinds_ = false;
};

void print_total(const char* name, const std::string& kind, int64_t count, int64_t numel, int64_t num_bytes,
                 std::ostream& out) {
  out << name << printable(kind) << ": " << with_commas(count) << (count == 1 ? " tensor, " : " tensors, ")
      << with_commas(numel) << (numel == 1 ? " element, " : " elements, ") << bytes_text(num_bytes) << "\n";
}

void print_totals(const StoredTensors& contents, std::ostream& out) {
  struct Total {
    int64_t count = 0, numel = 0, num_bytes = 0;
  };
  std::map<std::string, Total> kinds;
  for (const StoredTensor& tensor : contents.tensors) {
    Total& total = kinds[tensor.kind];
    ++total.count;
    total.numel += tensor.numel;
    total.num_bytes += tensor.num_bytes;
  }
  for (const auto& [kind, total] : kinds) {
    if (!kind.empty()) print_total("total of ", kind, total.count, total.numel, total.num_bytes, out);
  }
  print_total("total", "", static_cast<int64_t>(contents.tensors.size()), contents.numel, contents.num_bytes, out);
}

}  // namespace

void print_table(const StoredTensors& contents, std::ostream& out) {
  out << printable(contents.path) << ": " << contents.format << "\n\n";
  const Table table(contents);
  table.print({"NAME", "KIND", "DTYPE", "SHAPE", "BYTES"}, out);
  for (const StoredTensor& tensor : contents.tensors) table.print(row_of(tensor), out);
  out << "\n";
  print_totals(contents, out);
  if (!contents.metadata.empty()) out << "\nmetadata:\n";
  for (const auto& [key, text] : contents.metadata) {
    const bool cut = text.size() > kMaxTextBytes;
    out << "  " << printable(key) << ": " << printable(std::string_view(text).substr(0, kMaxTextBytes));
    out << (cut ? detail::concat("... (", with_commas(static_cast<int64_t>(text.size())), " bytes)") : "") << "\n";
  }
}

void print_json(const StoredTensors& contents, std::ostream& out) {
  using Json = nlohmann::ordered_json;
  Json metadata = Json::object();
  for (const auto& [key, text] : contents.metadata) metadata[key] = text;
  // A path is bytes of any kind; everything else was read as UTF-8.
  const auto text = [](const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); };
  out << "{\"path\":" << text(contents.path) << ",\"format\":" << text(contents.format)
      << ",\"metadata\":" << text(metadata) << ",\n\"tensors\":[";
  const char* separator = "\n";
  for (const StoredTensor& tensor : contents.tensors) {
    Json row = {{"name", tensor.name}};
    if (!tensor.kind.empty()) row["kind"] = tensor.kind;
    row["dtype"] = storage::dtype_name(tensor.dtype);
    row["shape"] = tensor.shape;
    row["numel"] = tensor.numel;
    row["bytes"] = tensor.num_bytes;
    out << separator << text(row);
    separator = ",\n";
  }
  const Json total = {{"tensors", contents.tensors.size()}, {"numel", contents.numel}, {"bytes", contents.num_bytes}};
  out << "\n],\n\"total\":" << text(total) << "}\n";
}

}  // namespace hydrofoil
