#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "hydrofoil/storage/dtype.h"

namespace hydrofoil::checkpoint {

inline constexpr int64_t kFormatVersion = 1;
inline constexpr const char* kManifestName = "manifest.json";

// Elements [offset, offset + numel) of one flattened logical tensor, stored as the 1-D tensor `tensor` of `file`.
struct ManifestPiece {
  std::string file;
  std::string tensor;
  int rank = 0;  // world_rank that wrote it
  int64_t offset = 0;
  int64_t numel = 0;
  uint64_t checksum = 0;  // storage::xxh3_64 of its bytes

  bool operator==(const ManifestPiece&) const = default;
};

// One logical tensor: a parameter's values, or one kind of state of it ("parameter", "master", "exp_avg", ...).
struct ManifestTensor {
  std::string parameter;
  std::string kind;
  std::vector<int64_t> shape;
  storage::DType dtype = storage::DType::kF32;
  std::vector<ManifestPiece> pieces;  // in the order of `offset`; together exactly the tensor, without overlap

  bool operator==(const ManifestTensor&) const = default;
};

struct ManifestFile {
  std::string name;  // within the checkpoint's directory
  int64_t num_bytes = 0;

  bool operator==(const ManifestFile&) const = default;
};

// What a checkpoint holds besides tensors. Texts are kept byte for byte; they are JSON by convention, and UTF-8.
struct ManifestScalars {
  int stage = 0;                              // of ZeRO, for the reader's information
  std::map<std::string, std::string> dtypes;  // "model", "grad_accum", ...
  std::map<std::string, int64_t> counters;    // "global_steps", "micro_steps", "skipped_steps", ...
  std::map<std::string, std::string> states;  // "loss_scaler", "lr_scheduler", "param_groups", ...
  std::string client_state = "{}";

  bool operator==(const ManifestScalars&) const = default;
};

// Table of contents of a checkpoint. It says for each logical tensor where each range lies, so a reader of any world
// size and layout finds what it needs.
struct Manifest {
  std::string hydrofoil_version;  // that wrote it
  int world_size = 1;             // that wrote it
  ManifestScalars scalars;
  std::vector<ManifestFile> files;
  std::vector<ManifestTensor> tensors;

  bool operator==(const Manifest&) const = default;
};

// Version of this library, e.g. "0.1.0".
[[nodiscard]] std::string library_version();

// JSON of a manifest. Throws InvalidArgument for text that is not UTF-8.
[[nodiscard]] std::string manifest_to_json(const Manifest& manifest);

// Parses what may come from outside; every field must be there, of its type and in its range. `path` is for errors.
// Throws InvalidArgument that names the field; for another format version, both versions.
[[nodiscard]] Manifest manifest_from_json(std::string_view text, const std::string& path);

// Throws InvalidArgument unless names are unique, files are known, and the pieces of each tensor tile it exactly.
void validate_manifest(const Manifest& manifest, const std::string& path);

// One manifest of the parts of all ranks, in rank order: scalars of the first, tensors in the order of first
// appearance, pieces sorted. Throws InvalidArgument where ranks disagree on a shape or dtype.
[[nodiscard]] Manifest merge_manifests(const std::vector<Manifest>& parts);

// Reads, parses and validates <directory>/manifest.json, and checks that each of its files is there with its size.
[[nodiscard]] Manifest read_manifest(const std::string& directory);

}  // namespace hydrofoil::checkpoint
