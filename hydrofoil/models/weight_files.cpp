#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/detail/weight_files.h"
#include "hydrofoil/storage/file.h"
#include "hydrofoil/storage/strict_json.h"

namespace hydrofoil::models {
namespace {

constexpr const char* kFunction = "load_weights";
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = 256 << 20;
constexpr int kMaxDepth = 8;

std::string find_file(const std::string& path) {
  std::error_code ignored;  // what cannot be looked at cannot be opened either, and that error says why
  if (!std::filesystem::is_directory(path, ignored)) return path;
  for (const char* name : {kSingleFile, kIndexFile}) {
    const std::filesystem::path file = std::filesystem::path(path) / name;
    if (std::filesystem::exists(file, ignored)) return file.string();
  }
  HYDROFOIL_CHECK_ARG(false, kFunction, "'", path, "': got a directory with neither, expected '", kSingleFile, "' or '",
                      kIndexFile, "'; weights in other formats are not read");
}

// Shard of each tensor.
std::map<std::string, std::string> read_weight_map(const std::string& path) {
  const auto json = storage::parse_strict_json(storage::read_file(path, kMaxIndexBytes), kFunction, path, kMaxDepth);
  const auto found = json.is_object() ? json.find("weight_map") : json.end();
  HYDROFOIL_CHECK_ARG(json.is_object() && found != json.end() && found->is_object() && !found->empty(), kFunction, "'",
                      path, "': weight_map: expected an object with the file of each tensor");
  std::map<std::string, std::string> shards;
  for (const auto& [name, value] : found->items()) {
    const std::string shard = value.is_string() ? value.get<std::string>() : "";
    const bool is_name = !shard.empty() && shard != "." && shard != ".." &&
                         shard.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    HYDROFOIL_CHECK_ARG(is_name, kFunction, "'", path, "': weight_map: '", name, "': got ", value.dump(),
                        ", expected the name of a file in the same directory");
    shards.emplace(name, shard);
  }
  return shards;
}

}  // namespace

WeightFiles::WeightFiles(const std::string& path) {
  const std::string file = find_file(path);
  if (file.ends_with(".json")) {
    open_index(file);
    return;
  }
  const storage::SafetensorsReader& reader = open(file);
  for (const storage::TensorEntry& entry : reader.tensors()) tensors_.push_back({&reader, &entry});
}

const storage::SafetensorsReader& WeightFiles::open(const std::string& path) {
  files_.push_back(std::make_unique<storage::SafetensorsReader>(path));
  return *files_.back();
}

void WeightFiles::open_index(const std::string& path) {
  const std::map<std::string, std::string> shard_of = read_weight_map(path);
  std::map<std::string, const storage::SafetensorsReader*> readers;
  for (const auto& [name, shard] : shard_of) {
    if (!readers.contains(shard)) {
      readers.emplace(shard, &open((std::filesystem::path(storage::parent_directory(path)) / shard).string()));
    }
    const storage::SafetensorsReader& reader = *readers.at(shard);
    HYDROFOIL_CHECK_ARG(reader.contains(name), kFunction, "'", reader.path(), "': tensor '", name,
                        "': got none, expected the one that '", path, "' says it holds");
    tensors_.push_back({&reader, &reader.entry(name)});
  }
  for (const auto& [shard, reader] : readers) {
    for (const storage::TensorEntry& entry : reader->tensors()) {
      const auto found = shard_of.find(entry.name);
      HYDROFOIL_CHECK_ARG(found != shard_of.end() && found->second == shard, kFunction, "'", reader->path(),
                          "': tensor '", entry.name, "': got one that '", path, "' does not place there");
    }
  }
}

}  // namespace hydrofoil::models
