#include <climits>
#include <nlohmann/json.hpp>

#include "hydrofoil/base/error.h"
#include "hydrofoil/checkpoint/manifest.h"
#include "hydrofoil/storage/checksum.h"
#include "hydrofoil/storage/strict_json.h"

namespace hydrofoil::checkpoint {
namespace {

using Json = nlohmann::json;

constexpr const char* kFunction = "manifest";
constexpr const char* kFormat = "hydrofoil-checkpoint";
constexpr int kMaxDepth = 6;  // manifest, tensors, tensor, pieces, piece

// A JSON object with the place where it stands, for the errors of its fields.
class Fields {
 public:
  Fields(const Json& json, std::string place, const std::string& path)
      : json_(json), place_(std::move(place)), path_(path) {
    check(json_.is_object(), "", "an object");
  }

  const std::string& string(const char* name) const {
    const Json& value = field(name);
    check(value.is_string(), name, "a string");
    return value.get_ref<const std::string&>();
  }

  int64_t integer(const char* name, int64_t low, int64_t high) const { return integer(field(name), name, low, high); }

  std::vector<int64_t> sizes(const char* name) const {
    std::vector<int64_t> result;
    for (const Json& value : array(name)) result.push_back(integer(value, name, 0, INT64_MAX));
    return result;
  }

  const Json& array(const char* name) const {
    const Json& value = field(name);
    check(value.is_array(), name, "an array");
    return value;
  }

  // One Fields for each element of the array.
  template <typename Function>
  void each(const char* name, Function&& function) const {
    const Json& values = array(name);
    for (size_t i = 0; i < values.size(); ++i) {
      function(Fields(values[i], detail::concat(place_, name, "[", i, "]."), path_));
    }
  }

  std::map<std::string, std::string> strings(const char* name) const {
    std::map<std::string, std::string> result;
    for (const auto& [key, value] : object(name).items()) {
      check(value.is_string(), name, "only strings");
      result.emplace(key, value.get<std::string>());
    }
    return result;
  }

  std::map<std::string, int64_t> integers(const char* name) const {
    std::map<std::string, int64_t> result;
    for (const auto& [key, value] : object(name).items()) {
      result.emplace(key, integer(value, name, INT64_MIN, INT64_MAX));
    }
    return result;
  }

  void check(bool holds, const char* name, const char* expected) const {
    HYDROFOIL_CHECK_ARG(holds, kFunction, "'", path_, "': ", place_, name, ": expected ", expected);
  }

 private:
  const Json& field(const char* name) const {
    const auto found = json_.find(name);
    HYDROFOIL_CHECK_ARG(found != json_.end(), kFunction, "'", path_, "': ", place_, name, " is missing");
    return *found;
  }

  const Json& object(const char* name) const {
    const Json& value = field(name);
    check(value.is_object(), name, "an object");
    return value;
  }

  int64_t integer(const Json& value, const char* name, int64_t low, int64_t high) const {
    // Anything over INT64_MAX is unsigned to the parser, anything below INT64_MIN a float.
    const bool fits = value.is_number_integer() &&
                      !(value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) &&
                      value.get<int64_t>() >= low && value.get<int64_t>() <= high;
    HYDROFOIL_CHECK_ARG(fits, kFunction, "'", path_, "': ", place_, name, ": got ",
                        value.is_number() ? value.dump() : value.type_name(), ", expected an integer from ", low,
                        " to ", high);
    return value.get<int64_t>();
  }

  const Json& json_;
  std::string place_;
  const std::string& path_;
};

ManifestPiece parse_piece(const Fields& fields) {
  ManifestPiece piece;
  piece.file = fields.string("file");
  piece.tensor = fields.string("tensor");
  piece.rank = static_cast<int>(fields.integer("rank", 0, INT_MAX));
  piece.offset = fields.integer("offset", 0, INT64_MAX);
  piece.numel = fields.integer("numel", 1, INT64_MAX);
  const auto checksum = storage::parse_checksum(fields.string("checksum"));
  fields.check(checksum.has_value(), "checksum", "'xxh3:' and 16 hexadecimal digits");
  piece.checksum = *checksum;
  return piece;
}

ManifestTensor parse_tensor(const Fields& fields) {
  ManifestTensor tensor;
  tensor.parameter = fields.string("parameter");
  tensor.kind = fields.string("kind");
  tensor.shape = fields.sizes("shape");
  const auto dtype = storage::parse_dtype(fields.string("dtype"));
  fields.check(dtype.has_value(), "dtype", "F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL");
  tensor.dtype = *dtype;
  fields.each("pieces", [&](const Fields& piece) { tensor.pieces.push_back(parse_piece(piece)); });
  return tensor;
}

// One line a tensor and piece: a manifest is read by people, too, and one of 1,000 ranks is long.
void append_tensor(std::string& text, const ManifestTensor& tensor) {
  nlohmann::ordered_json head = {{"parameter", tensor.parameter},
                                 {"kind", tensor.kind},
                                 {"dtype", storage::dtype_name(tensor.dtype)},
                                 {"shape", tensor.shape}};
  std::string line = head.dump();
  line.pop_back();
  text += "    " + line + ",\"pieces\":[";
  for (size_t i = 0; i < tensor.pieces.size(); ++i) {
    const ManifestPiece& piece = tensor.pieces[i];
    const nlohmann::ordered_json json = {{"file", piece.file},   {"tensor", piece.tensor},
                                         {"rank", piece.rank},   {"offset", piece.offset},
                                         {"numel", piece.numel}, {"checksum", storage::checksum_text(piece.checksum)}};
    text += (i == 0 ? "\n      " : ",\n      ") + json.dump();
  }
  text += "]}";
}

std::string to_json(const Manifest& manifest) {
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  for (const ManifestFile& file : manifest.files) files.push_back({{"name", file.name}, {"bytes", file.num_bytes}});
  const ManifestScalars& scalars = manifest.scalars;
  const nlohmann::ordered_json head = {{"format", kFormat},
                                       {"format_version", kFormatVersion},
                                       {"hydrofoil_version", manifest.hydrofoil_version},
                                       {"world_size", manifest.world_size},
                                       {"stage", scalars.stage},
                                       {"dtypes", scalars.dtypes},
                                       {"counters", scalars.counters},
                                       {"states", scalars.states},
                                       {"client_state", scalars.client_state},
                                       {"files", std::move(files)}};
  std::string text = head.dump(2);
  text.erase(text.size() - 2);  // "\n}"
  text += ",\n  \"tensors\": [";
  for (size_t i = 0; i < manifest.tensors.size(); ++i) {
    text += i == 0 ? "\n" : ",\n";
    append_tensor(text, manifest.tensors[i]);
  }
  return text + "]\n}\n";
}

}  // namespace

std::string manifest_to_json(const Manifest& manifest) {
  try {
    return to_json(manifest);
  } catch (const Json::exception& error) {
    HYDROFOIL_CHECK_ARG(false, kFunction, "a name or state is not UTF-8: ", error.what());
  }
}

Manifest manifest_from_json(std::string_view text, const std::string& path) {
  const Json json = storage::parse_strict_json(text, kFunction, path, kMaxDepth);
  const Fields fields(json, "", path);
  HYDROFOIL_CHECK_ARG(fields.string("format") == kFormat, kFunction, "'", path, "': format: got '",
                      fields.string("format"), "', expected '", kFormat, "'");
  Manifest manifest;
  manifest.hydrofoil_version = fields.string("hydrofoil_version");
  const int64_t version = fields.integer("format_version", INT64_MIN, INT64_MAX);
  HYDROFOIL_CHECK_ARG(version == kFormatVersion, kFunction, "'", path, "': format_version: got ", version,
                      " (written by Hydrofoil ", manifest.hydrofoil_version, "), expected ", kFormatVersion,
                      ", which is what Hydrofoil ", library_version(), " reads");
  manifest.world_size = static_cast<int>(fields.integer("world_size", 1, INT_MAX));
  manifest.scalars.stage = static_cast<int>(fields.integer("stage", 0, 3));
  manifest.scalars.dtypes = fields.strings("dtypes");
  manifest.scalars.counters = fields.integers("counters");
  manifest.scalars.states = fields.strings("states");
  manifest.scalars.client_state = fields.string("client_state");
  fields.each("files", [&](const Fields& file) {
    manifest.files.push_back({file.string("name"), file.integer("bytes", 0, INT64_MAX)});
  });
  fields.each("tensors", [&](const Fields& tensor) { manifest.tensors.push_back(parse_tensor(tensor)); });
  return manifest;
}

}  // namespace hydrofoil::checkpoint
