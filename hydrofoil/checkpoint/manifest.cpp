#include "hydrofoil/checkpoint/manifest.h"

#include <algorithm>
#include <set>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/file.h"

namespace hydrofoil::checkpoint {
namespace {

constexpr const char* kFunction = "manifest";
constexpr int64_t kMaxManifestBytes = int64_t{1} << 30;

std::string text_of(const ManifestTensor& tensor) {
  return detail::concat("'", tensor.parameter, "' (", tensor.kind, ")");
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

void check_tiling(const ManifestTensor& tensor, const std::string& path) {
  const auto total = storage::checked_numel(tensor.shape);
  HYDROFOIL_CHECK_ARG(total && storage::checked_bytes(tensor.shape, tensor.dtype), kFunction, "'", path, "': tensor ",
                      text_of(tensor), ": its shape is negative or over 2^63 - 1 bytes");
  int64_t end = 0;
  for (const ManifestPiece& piece : tensor.pieces) {
    HYDROFOIL_CHECK_ARG(piece.numel > 0 && piece.offset == end && piece.numel <= *total - end, kFunction, "'", path,
                        "': tensor ", text_of(tensor), ": got a piece of ", piece.numel, " elements at ", piece.offset,
                        " from rank ", piece.rank, ", expected one that starts at ", end, " within its ", *total,
                        " elements (pieces must not overlap or leave gaps)");
    end += piece.numel;
  }
  HYDROFOIL_CHECK_ARG(end == *total, kFunction, "'", path, "': tensor ", text_of(tensor),
                      ": its pieces end at element ", end, ", expected ", *total, "; some rank's piece is missing");
}

}  // namespace

std::string library_version() { return HYDROFOIL_VERSION; }

void validate_manifest(const Manifest& manifest, const std::string& path) {
  std::set<std::string> files;
  for (const ManifestFile& file : manifest.files) {
    HYDROFOIL_CHECK_ARG(is_plain_name(file.name), kFunction, "'", path, "': file name: got '", file.name,
                        "', expected a name without directories");
    HYDROFOIL_CHECK_ARG(files.insert(file.name).second, kFunction, "'", path, "': duplicate file '", file.name, "'");
  }
  std::set<std::pair<std::string, std::string>> names;
  std::set<std::pair<std::string, std::string>> stored;
  for (const ManifestTensor& tensor : manifest.tensors) {
    HYDROFOIL_CHECK_ARG(names.emplace(tensor.parameter, tensor.kind).second, kFunction, "'", path,
                        "': duplicate tensor ", text_of(tensor));
    check_tiling(tensor, path);
    for (const ManifestPiece& piece : tensor.pieces) {
      HYDROFOIL_CHECK_ARG(files.contains(piece.file), kFunction, "'", path, "': tensor ", text_of(tensor),
                          ": its file '", piece.file, "' is not in the list of files");
      HYDROFOIL_CHECK_ARG(piece.rank >= 0 && piece.rank < manifest.world_size, kFunction, "'", path, "': tensor ",
                          text_of(tensor), ": got rank ", piece.rank, ", expected one below ", manifest.world_size);
      HYDROFOIL_CHECK_ARG(stored.emplace(piece.file, piece.tensor).second, kFunction, "'", path, "': tensor ",
                          text_of(tensor), ": '", piece.tensor, "' of '", piece.file, "' is used twice");
    }
  }
}

Manifest merge_manifests(const std::vector<Manifest>& parts) {
  Manifest merged;
  std::map<std::pair<std::string, std::string>, size_t> index;
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    const Manifest& part = parts[rank];
    if (rank == 0) {
      merged.hydrofoil_version = part.hydrofoil_version;
      merged.world_size = part.world_size;
      merged.scalars = part.scalars;
    }
    merged.files.insert(merged.files.end(), part.files.begin(), part.files.end());
    for (const ManifestTensor& tensor : part.tensors) {
      const auto [found, is_new] = index.emplace(std::pair(tensor.parameter, tensor.kind), merged.tensors.size());
      if (is_new) {
        merged.tensors.push_back(tensor);
        continue;
      }
      ManifestTensor& whole = merged.tensors[found->second];
      HYDROFOIL_CHECK_ARG(whole.shape == tensor.shape && whole.dtype == tensor.dtype, kFunction, "tensor ",
                          text_of(tensor), ": the ranks disagree on its shape or dtype (first seen at rank ", rank,
                          ")");
      whole.pieces.insert(whole.pieces.end(), tensor.pieces.begin(), tensor.pieces.end());
    }
  }
  for (ManifestTensor& tensor : merged.tensors) {
    std::stable_sort(tensor.pieces.begin(), tensor.pieces.end(),
                     [](const ManifestPiece& a, const ManifestPiece& b) { return a.offset < b.offset; });
  }
  return merged;
}

Manifest read_manifest(const std::string& directory) {
  const std::string path = directory + "/" + kManifestName;
  Manifest manifest = manifest_from_json(storage::read_file(path, kMaxManifestBytes), path);
  validate_manifest(manifest, path);
  for (const ManifestFile& file : manifest.files) {
    const std::string file_path = directory + "/" + file.name;
    const int64_t num_bytes = storage::File::open(file_path).size();
    HYDROFOIL_CHECK_ARG(num_bytes == file.num_bytes, kFunction, "'", file_path, "': got ", num_bytes,
                        " bytes, expected ", file.num_bytes, " from the manifest; the file is damaged");
  }
  return manifest;
}

}  // namespace hydrofoil::checkpoint
