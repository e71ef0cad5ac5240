#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hydrofoil/storage/dtype.h"

namespace hydrofoil {

struct StoredTensor {
  std::string name;
  std::string kind;  // of a checkpoint's tensor: "parameter", "master", "exp_avg", ...; empty in a file
  storage::DType dtype = storage::DType::kF32;
  std::vector<int64_t> shape;
  int64_t numel = 0;
  int64_t num_bytes = 0;
};

// Table of contents of a safetensors file or a checkpoint.
struct StoredTensors {
  std::string path;    // the file, or the checkpoint's own directory
  std::string format;  // "safetensors" or "hydrofoil-checkpoint"
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<StoredTensor> tensors;  // in the order of the file
  int64_t numel = 0;                  // of all tensors
  int64_t num_bytes = 0;
};

// Reads headers and manifests only. A directory is a checkpoint, or holds some of which `tag`, or the latest, is taken.
// Throws InvalidArgument with file and defect, SystemError where a file cannot be read.
[[nodiscard]] StoredTensors read_stored_tensors(const std::string& path, const std::optional<std::string>& tag);

// For people: aligned columns, totals, metadata. Control characters of names are escaped, as text of outside reaches a
// terminal here.
void print_table(const StoredTensors& contents, std::ostream& out);

// For programs: one JSON object.
void print_json(const StoredTensors& contents, std::ostream& out);

}  // namespace hydrofoil
