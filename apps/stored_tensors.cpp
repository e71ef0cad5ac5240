#include "apps/stored_tensors.h"

#include <filesystem>

#include "hydrofoil/base/error.h"
#include "hydrofoil/checkpoint/manifest.h"
#include "hydrofoil/checkpoint/tags.h"
#include "hydrofoil/storage/safetensors.h"

namespace hydrofoil {
namespace {

namespace fs = std::filesystem;

constexpr const char* kName = "hydrofoil inspect";

void append(StoredTensors& contents, StoredTensor tensor) {
  const auto numel = storage::checked_numel(tensor.shape);
  const auto num_bytes = storage::checked_bytes(tensor.shape, tensor.dtype);
  HYDROFOIL_ASSERT(numel && num_bytes, "the reader took a shape that is too large");
  tensor.numel = *numel;
  tensor.num_bytes = *num_bytes;
  contents.numel += tensor.numel;  // never more than the bytes
  HYDROFOIL_CHECK_ARG(!__builtin_add_overflow(contents.num_bytes, tensor.num_bytes, &contents.num_bytes), kName, "'",
                      contents.path, "': its tensors have over 2^63 - 1 bytes together");
  contents.tensors.push_back(std::move(tensor));
}

StoredTensors read_file(const std::string& path) {
  const storage::SafetensorsReader reader(path);
  StoredTensors contents{.path = path, .format = "safetensors"};
  contents.metadata.assign(reader.metadata().begin(), reader.metadata().end());
  for (const storage::TensorEntry& entry : reader.tensors()) {
    append(contents, {.name = entry.name, .dtype = entry.dtype, .shape = entry.shape});
  }
  return contents;
}

StoredTensors read_checkpoint(const std::string& directory) {
  checkpoint::Manifest manifest = checkpoint::read_manifest(directory);
  StoredTensors contents{.path = directory, .format = "hydrofoil-checkpoint"};
  const checkpoint::ManifestScalars& scalars = manifest.scalars;
  contents.metadata = {{"hydrofoil_version", manifest.hydrofoil_version},
                       {"world_size", std::to_string(manifest.world_size)},
                       {"stage", std::to_string(scalars.stage)}};
  for (const auto& [name, dtype] : scalars.dtypes) contents.metadata.emplace_back("dtypes." + name, dtype);
  for (const auto& [name, count] : scalars.counters) {
    contents.metadata.emplace_back("counters." + name, std::to_string(count));
  }
  for (const auto& [name, state] : scalars.states) contents.metadata.emplace_back("states." + name, state);
  contents.metadata.emplace_back("client_state", scalars.client_state);
  for (checkpoint::ManifestTensor& tensor : manifest.tensors) {
    append(contents, {.name = std::move(tensor.parameter),
                      .kind = std::move(tensor.kind),
                      .dtype = tensor.dtype,
                      .shape = std::move(tensor.shape)});
  }
  return contents;
}

bool has_manifest(const std::string& directory) {
  std::error_code ignored;  // what cannot be looked at is named by find_checkpoint
  return fs::is_regular_file(directory + "/" + checkpoint::kManifestName, ignored);
}

}  // namespace

StoredTensors read_stored_tensors(const std::string& path, const std::optional<std::string>& tag) {
  std::error_code ignored;  // what does not exist is named when it is opened as a file
  if (!fs::is_directory(path, ignored)) {
    HYDROFOIL_CHECK_ARG(!tag, kName, "--tag: '", path, "' is not a directory of checkpoints");
    return read_file(path);
  }
  if (!tag && has_manifest(path)) return read_checkpoint(path);
  // A run of `hydrofoil train` keeps its checkpoints one folder down; a checkpoint may have that name as its tag.
  const std::string of_run = path + "/checkpoint";
  const bool is_run = fs::is_directory(of_run, ignored) && !has_manifest(of_run);
  return read_checkpoint(checkpoint::find_checkpoint(is_run ? of_run : path, tag));
}

}  // namespace hydrofoil
