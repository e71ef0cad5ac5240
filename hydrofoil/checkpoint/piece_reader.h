#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_set>
#include <vector>

#include "hydrofoil/checkpoint/manifest.h"
#include "hydrofoil/storage/safetensors.h"

namespace hydrofoil::checkpoint {

// Reads ranges of the logical tensors of one checkpoint directory, whatever pieces they lie in. The first touch of a
// piece verifies its checksum over all of it. Not for several threads at once; one object per rank.
class PieceReader {
 public:
  // Reads and checks the manifest, see read_manifest().
  explicit PieceReader(std::string directory);
  PieceReader(const PieceReader&) = delete;
  PieceReader& operator=(const PieceReader&) = delete;

  [[nodiscard]] const Manifest& manifest() const { return manifest_; }
  [[nodiscard]] const std::string& directory() const { return directory_; }

  // nullptr where the checkpoint has no such tensor.
  [[nodiscard]] const ManifestTensor* find(const std::string& parameter, const std::string& kind) const;

  // Copies elements [offset, offset + numel) of `tensor`, which is one of manifest(), to `out`. Throws InvalidArgument
  // for a range outside it, and for a damaged piece, with file, tensor and both checksums; `out` is unspecified then.
  void read(const ManifestTensor& tensor, int64_t offset, int64_t numel, void* out);

  // Verifies the checksum of every piece.
  void verify();

 private:
  struct OpenFile {
    storage::SafetensorsReader reader;
    uint64_t last_use = 0;
  };

  const storage::SafetensorsReader& open(const std::string& file);
  void read_piece(const ManifestTensor& tensor, const ManifestPiece& piece, int64_t first_byte, int64_t num_bytes,
                  char* out);

  std::string directory_;
  Manifest manifest_;
  std::map<std::pair<std::string, std::string>, const ManifestTensor*> index_;
  std::map<std::string, OpenFile> open_files_;
  uint64_t num_uses_ = 0;
  std::unordered_set<const ManifestPiece*> verified_;
  std::vector<char> scratch_;
};

}  // namespace hydrofoil::checkpoint
