#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"
#include "hydrofoil/storage/safetensors.h"
#include "hydrofoil/storage/strict_json.h"

namespace hydrofoil::storage {
namespace {

using Json = nlohmann::json;

constexpr const char* kFunction = "SafetensorsReader";
constexpr const char* kMetadataKey = "__metadata__";
constexpr int64_t kLengthBytes = 8;
// A file may hold names so long or so many that comparing them all takes minutes.
constexpr size_t kMaxComparedBytes = 256;
constexpr size_t kMaxComparedNames = 10'000;
constexpr int kMaxDepth = 3;  // file, tensor, shape

// Header, tensor and field for an error's text.
struct Where {
  const std::string& path;
  const std::string& tensor;
};

std::string text_of(const Where& where) { return detail::concat("'", where.path, "': tensor '", where.tensor, "': "); }

std::vector<int64_t> parse_sizes(const Json& tensor, const char* field, const Where& where) {
  const auto found = tensor.find(field);
  HYDROFOIL_CHECK_ARG(found != tensor.end() && found->is_array(), kFunction, text_of(where), field,
                      ": expected an array of integers");
  std::vector<int64_t> sizes;
  sizes.reserve(found->size());
  for (const Json& value : *found) {
    HYDROFOIL_CHECK_ARG(value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX),
                        kFunction, text_of(where), field, ": got ",
                        value.is_number() ? value.dump() : value.type_name(),
                        ", expected an integer from 0 to 2^63 - 1");
    sizes.push_back(static_cast<int64_t>(value.get<uint64_t>()));
  }
  return sizes;
}

TensorEntry parse_tensor(const std::string& name, const Json& json, int64_t data_start, int64_t data_bytes,
                         const std::string& path) {
  const Where where{path, name};
  HYDROFOIL_CHECK_ARG(json.is_object(), kFunction, text_of(where), "expected an object");
  TensorEntry entry;
  entry.name = name;
  const auto dtype = json.find("dtype");
  HYDROFOIL_CHECK_ARG(dtype != json.end() && dtype->is_string(), kFunction, text_of(where), "dtype: expected a string");
  const auto parsed = parse_dtype(dtype->get_ref<const std::string&>());
  HYDROFOIL_CHECK_ARG(parsed.has_value(), kFunction, text_of(where), "dtype: got '",
                      dtype->get_ref<const std::string&>(),
                      "', expected F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL");
  entry.dtype = *parsed;
  entry.shape = parse_sizes(json, "shape", where);
  const std::vector<int64_t> offsets = parse_sizes(json, "data_offsets", where);
  HYDROFOIL_CHECK_ARG(offsets.size() == 2 && offsets[0] <= offsets[1] && offsets[1] <= data_bytes, kFunction,
                      text_of(where), "data_offsets: expected [begin, end] with begin <= end <= ", data_bytes,
                      ", the bytes of data in the file; it is truncated or damaged");
  const auto num_bytes = checked_bytes(entry.shape, entry.dtype);
  HYDROFOIL_CHECK_ARG(num_bytes == offsets[1] - offsets[0], kFunction, text_of(where), "data_offsets: got ",
                      offsets[1] - offsets[0], " bytes, expected ",
                      num_bytes ? std::to_string(*num_bytes) : std::string("over 2^63 - 1"),
                      " for its shape and dtype");
  entry.offset = data_start + offsets[0];
  entry.num_bytes = *num_bytes;
  return entry;
}

}  // namespace

SafetensorsReader::SafetensorsReader(const std::string& path) : file_(File::open(path)) {
  const int64_t file_bytes = file_.size();
  HYDROFOIL_CHECK_ARG(file_bytes >= kLengthBytes, kFunction, "'", path, "': got ", file_bytes,
                      " bytes, expected at least the 8 of the header's length; it is truncated");
  uint64_t length = 0;
  file_.read_at(&length, kLengthBytes, 0);
  HYDROFOIL_CHECK_ARG(length <= static_cast<uint64_t>(kMaxHeaderBytes), kFunction, "'", path, "': header length: got ",
                      length, ", expected at most ", kMaxHeaderBytes, "; it is damaged or no safetensors file");
  HYDROFOIL_CHECK_ARG(length <= static_cast<uint64_t>(file_bytes - kLengthBytes), kFunction, "'", path,
                      "': header length: got ", length, ", but the file has only ", file_bytes - kLengthBytes,
                      " more bytes; it is truncated");
  std::string text(length, '\0');
  file_.read_at(text.data(), static_cast<int64_t>(length), kLengthBytes);
  HYDROFOIL_CHECK_ARG(text.starts_with('{'), kFunction, "'", path, "': the header does not begin with '{'");
  const int64_t data_start = kLengthBytes + static_cast<int64_t>(length);
  parse_header(text, data_start, file_bytes);
  check_layout(data_start, file_bytes);
}

void SafetensorsReader::parse_header(std::string_view text, int64_t data_start, int64_t file_bytes) {
  const Json header = parse_strict_json(text, kFunction, path(), kMaxDepth);
  for (const auto& [name, value] : header.items()) {
    if (name != kMetadataKey) {
      entries_.push_back(parse_tensor(name, value, data_start, file_bytes - data_start, path()));
      continue;
    }
    HYDROFOIL_CHECK_ARG(value.is_object(), kFunction, "'", path(), "': ", kMetadataKey, ": expected an object");
    for (const auto& [key, text_value] : value.items()) {
      HYDROFOIL_CHECK_ARG(text_value.is_string(), kFunction, "'", path(), "': ", kMetadataKey, ": '", key,
                          "': expected a string");
      metadata_.emplace(key, text_value.get<std::string>());
    }
  }
  std::sort(entries_.begin(), entries_.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.offset, a.num_bytes, a.name) < std::tie(b.offset, b.num_bytes, b.name);
  });
  for (size_t i = 0; i < entries_.size(); ++i) index_of_.emplace(entries_[i].name, i);
}

void SafetensorsReader::check_layout(int64_t data_start, int64_t file_bytes) const {
  int64_t end = data_start;
  for (const TensorEntry& entry : entries_) {
    HYDROFOIL_CHECK_ARG(entry.offset == end, kFunction, "'", path(), "': tensor '", entry.name, "' begins at byte ",
                        entry.offset, ", expected ", end, ": tensors ", entry.offset < end ? "overlap" : "leave a gap");
    end += entry.num_bytes;
  }
  HYDROFOIL_CHECK_ARG(end == file_bytes, kFunction, "'", path(), "': got ", file_bytes, " bytes, expected ", end,
                      " from the header: bytes follow the last tensor");
}

const TensorEntry& SafetensorsReader::entry(const std::string& name) const {
  const auto found = index_of_.find(name);
  if (found == index_of_.end()) {
    std::vector<std::string> names;
    for (const TensorEntry& candidate : entries_) {
      if (candidate.name.size() <= kMaxComparedBytes && names.size() < kMaxComparedNames)
        names.push_back(candidate.name);
    }
    HYDROFOIL_CHECK_ARG(false, kFunction, "'", path(), "': no tensor '", name, "'; the nearest name is '",
                        nearest_name(name, names), "'");
  }
  return entries_[found->second];
}

void SafetensorsReader::read(const TensorEntry& entry, int64_t byte_offset, int64_t num_bytes, void* out) const {
  HYDROFOIL_CHECK_ARG(byte_offset >= 0 && num_bytes >= 0 && byte_offset <= entry.num_bytes &&
                          num_bytes <= entry.num_bytes - byte_offset,
                      kFunction, "'", path(), "': tensor '", entry.name, "': got ", num_bytes, " bytes at ",
                      byte_offset, ", expected a range within its ", entry.num_bytes, " bytes");
  file_.read_at(out, num_bytes, entry.offset + byte_offset);
}

}  // namespace hydrofoil::storage
