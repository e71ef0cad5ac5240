#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "hydrofoil/checkpoint/manifest.h"

namespace hydrofoil::checkpoint {

class PieceReader;

// An open checkpoint. Each rank opens its own, at any world size, and reads the ranges that it needs; no communication.
// Not for several threads at once.
class LoadedCheckpoint {
 public:
  explicit LoadedCheckpoint(const std::string& checkpoint_directory);
  LoadedCheckpoint(LoadedCheckpoint&&) noexcept;
  LoadedCheckpoint& operator=(LoadedCheckpoint&&) noexcept;
  ~LoadedCheckpoint();

  [[nodiscard]] const Manifest& manifest() const;
  [[nodiscard]] const ManifestScalars& scalars() const { return manifest().scalars; }
  [[nodiscard]] const std::string& directory() const;  // of this checkpoint: <directory>/<tag>

  [[nodiscard]] bool contains(const std::string& parameter, const std::string& kind) const;
  // Shape and dtype of a logical tensor. Throws InvalidArgument with the nearest parameter that has this kind.
  [[nodiscard]] const ManifestTensor& tensor(const std::string& parameter, const std::string& kind) const;

  // Fills `out` (1-D, CPU, contiguous, numel elements of the stored dtype) with elements [logical_offset,
  // logical_offset + numel) of the flattened tensor, and verifies the checksums of the pieces that it reads. Throws
  // InvalidArgument for a wrong name, range, numel or dtype, and for damage, with file, tensor and both checksums;
  // SystemError for files.
  void read_range(const std::string& parameter, const std::string& kind, int64_t logical_offset, int64_t numel,
                  const at::Tensor& out);

  // Verifies every checksum of the checkpoint.
  void verify();

 private:
  std::unique_ptr<PieceReader> reader_;
};

// Opens checkpoint `tag` of `directory`, or the one that <directory>/latest names. The manifest is checked whole, and
// that all its files are there with their sizes. Throws InvalidArgument that lists the tags where the wanted one is
// missing.
[[nodiscard]] LoadedCheckpoint load_shards(const std::string& directory,
                                           const std::optional<std::string>& tag = std::nullopt);

}  // namespace hydrofoil::checkpoint
