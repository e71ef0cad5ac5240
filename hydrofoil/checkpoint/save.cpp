#include "hydrofoil/checkpoint/save.h"

#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/checkpoint/agreement.h"
#include "hydrofoil/checkpoint/tags.h"
#include "hydrofoil/memory/torch_dtype.h"
#include "hydrofoil/storage/checksum.h"
#include "hydrofoil/storage/file.h"
#include "hydrofoil/storage/safetensors.h"

namespace hydrofoil::checkpoint {
namespace {

constexpr const char* kFunction = "save_checkpoint";
constexpr int64_t kMaxPartBytes = int64_t{1} << 30;

std::string rank_file(int rank, const char* suffix) {
  char name[64];
  std::snprintf(name, sizeof(name), "rank_%05d%s", rank, suffix);
  return name;
}

void check_options(const SaveOptions& options) {
  HYDROFOIL_CHECK_ARG(!options.directory.empty(), kFunction, "directory: got '', expected a path");
  check_tag(options.tag);
  HYDROFOIL_CHECK_ARG(options.world_size >= 1 && options.rank >= 0 && options.rank < options.world_size, kFunction,
                      "rank: got ", options.rank, " of ", options.world_size, ", expected 0 <= rank < world_size");
  if (!options.group.defined()) {
    HYDROFOIL_CHECK_ARG(options.world_size == 1, kFunction, "group: got none, expected one for world_size ",
                        options.world_size);
    return;
  }
  HYDROFOIL_CHECK_ARG(options.group.size() == options.world_size && options.group.rank() == options.rank, kFunction,
                      "group: got rank ", options.group.rank(), " of ", options.group.size(), ", expected rank ",
                      options.rank, " of ", options.world_size);
}

void check_record(const ShardTensorRecord& record) {
  HYDROFOIL_CHECK_ARG(!record.parameter.empty() && !record.kind.empty(), kFunction, "record '", record.parameter, "' (",
                      record.kind, "): expected a name and a kind");
  const at::Tensor& data = record.data;
  HYDROFOIL_CHECK_ARG(data.defined() && data.dim() == 1 && data.is_contiguous() && data.device().is_cpu(), kFunction,
                      "'", record.parameter, "' (", record.kind, "): data: expected a 1-D contiguous CPU tensor");
  const auto total = storage::checked_numel(record.shape);
  HYDROFOIL_CHECK_ARG(total.has_value(), kFunction, "'", record.parameter, "' (", record.kind,
                      "): shape: a dimension is negative or the product over 2^63 - 1");
  HYDROFOIL_CHECK_ARG(
      record.logical_offset >= 0 && record.logical_offset <= *total && data.numel() <= *total - record.logical_offset,
      kFunction, "'", record.parameter, "' (", record.kind, "): got ", data.numel(), " elements at ",
      record.logical_offset, ", expected a range within its ", *total, " elements");
}

// Name of a piece in its rank's file.
std::string piece_name(const ShardTensorRecord& record) {
  return detail::concat(record.kind, "/", record.parameter, "@", record.logical_offset);
}

// This rank's part of the manifest, without its file's size.
Manifest describe_records(const SaveOptions& options, const std::vector<ShardTensorRecord>& records,
                          const std::string& file) {
  Manifest part;
  part.hydrofoil_version = library_version();
  part.world_size = options.world_size;
  std::map<std::pair<std::string, std::string>, size_t> index;
  for (const ShardTensorRecord& record : records) {
    check_record(record);
    const storage::DType dtype = memory::to_storage_dtype(record.data.scalar_type());
    const auto [found, is_new] = index.emplace(std::pair(record.parameter, record.kind), part.tensors.size());
    if (is_new) part.tensors.push_back({record.parameter, record.kind, record.shape, dtype, {}});
    ManifestTensor& tensor = part.tensors[found->second];
    HYDROFOIL_CHECK_ARG(tensor.shape == record.shape && tensor.dtype == dtype, kFunction, "'", record.parameter, "' (",
                        record.kind, "): two records disagree on its shape or dtype");
    const int64_t numel = record.data.numel();
    if (numel == 0) continue;
    const uint64_t checksum = storage::xxh3_64(record.data.const_data_ptr(), record.data.nbytes());
    tensor.pieces.push_back({file, piece_name(record), options.rank, record.logical_offset, numel, checksum});
  }
  return part;
}

void write_shard(const SaveOptions& options, const std::vector<ShardTensorRecord>& records,
                 const ManifestScalars& scalars, const std::string& staging) {
  const std::string file = rank_file(options.rank, ".safetensors");
  Manifest part = describe_records(options, records, file);
  part.scalars = scalars;

  storage::SafetensorsWriter writer(staging + "/" + file);
  writer.set_metadata("format", "hydrofoil");
  writer.set_metadata("rank", std::to_string(options.rank));
  for (const ShardTensorRecord& record : records) {
    if (record.data.numel() == 0) continue;
    writer.add(piece_name(record), memory::to_storage_dtype(record.data.scalar_type()), {record.data.numel()});
  }
  for (const ShardTensorRecord& record : records) {
    if (record.data.numel() == 0) continue;
    writer.write(piece_name(record), record.data.const_data_ptr(), static_cast<int64_t>(record.data.nbytes()));
  }
  writer.finish();

  part.files.push_back({file, storage::File::open(staging + "/" + file).size()});
  storage::write_file_atomically(staging + "/" + rank_file(options.rank, ".json"), manifest_to_json(part));
  if (options.on_stage) options.on_stage("shard written");
}

// Rank 0: the manifest of all ranks' parts, which are removed.
void write_manifest(const SaveOptions& options, const std::string& staging) {
  std::vector<Manifest> parts;
  for (int rank = 0; rank < options.world_size; ++rank) {
    const std::string path = staging + "/" + rank_file(rank, ".json");
    std::error_code ignored;
    HYDROFOIL_CHECK_ARG(
        std::filesystem::exists(path, ignored), kFunction, "'", path, "', which rank ", rank,
        " wrote, is not visible at rank 0; the directory must be on a file system that all ranks share");
    parts.push_back(manifest_from_json(storage::read_file(path, kMaxPartBytes), path));
  }
  const Manifest manifest = merge_manifests(parts);
  validate_manifest(manifest, options.directory + "/" + options.tag);
  for (int rank = 0; rank < options.world_size; ++rank) {
    const std::string path = staging + "/" + rank_file(rank, ".json");
    std::error_code error;
    std::filesystem::remove(path, error);
    if (error) throw_system_error(kFunction, detail::concat("cannot remove '", path, "'"), error.value());
  }
  storage::write_file_atomically(staging + "/" + kManifestName, manifest_to_json(manifest));
  if (options.on_stage) options.on_stage("manifest written");
}

}  // namespace

void save_shards(const SaveOptions& options, const std::vector<ShardTensorRecord>& records,
                 const ManifestScalars& scalars) {
  const std::string final_path = options.directory + "/" + options.tag;
  const std::string staging = storage::AtomicDirectory::staging_path_of(final_path);
  const std::string what = detail::concat(kFunction, " '", options.tag, "' of ", options.world_size, " ranks");
  std::unique_ptr<storage::AtomicDirectory> target;  // rank 0's; an exception on any rank makes it remove the staging

  run_together(options.group, what + ": prepare", [&] {
    check_options(options);
    if (options.rank != 0) return;
    storage::repair_directory(options.directory);
    target = std::make_unique<storage::AtomicDirectory>(final_path, storage::AtomicDirectoryOptions{options.on_stage});
  });
  run_together(options.group, what + ": write", [&] { write_shard(options, records, scalars, staging); });
  run_together(options.group, what + ": commit", [&] {
    if (options.rank != 0) return;
    write_manifest(options, staging);
    target->commit();
    if (!options.save_latest) return;
    storage::write_file_atomically(options.directory + "/" + kLatestName, options.tag);
    if (options.on_stage) options.on_stage("latest written");
  });
}

}  // namespace hydrofoil::checkpoint
