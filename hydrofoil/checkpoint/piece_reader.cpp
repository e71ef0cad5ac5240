#include "hydrofoil/checkpoint/piece_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/checksum.h"

namespace hydrofoil::checkpoint {
namespace {

constexpr const char* kFunction = "load_checkpoint";
constexpr int64_t kChunkBytes = int64_t{1} << 22;
// A checkpoint of thousands of ranks has more files than a process may hold open.
constexpr size_t kMaxOpenFiles = 64;

}  // namespace

PieceReader::PieceReader(std::string directory)
    : directory_(std::move(directory)), manifest_(read_manifest(directory_)) {
  for (const ManifestTensor& tensor : manifest_.tensors) {
    index_.emplace(std::pair(tensor.parameter, tensor.kind), &tensor);
  }
}

const ManifestTensor* PieceReader::find(const std::string& parameter, const std::string& kind) const {
  const auto found = index_.find(std::pair(parameter, kind));
  return found == index_.end() ? nullptr : found->second;
}

const storage::SafetensorsReader& PieceReader::open(const std::string& file) {
  auto found = open_files_.find(file);
  if (found == open_files_.end()) {
    if (open_files_.size() >= kMaxOpenFiles) {
      open_files_.erase(std::min_element(open_files_.begin(), open_files_.end(), [](const auto& a, const auto& b) {
        return a.second.last_use < b.second.last_use;
      }));
    }
    found = open_files_.emplace(file, OpenFile{storage::SafetensorsReader(directory_ + "/" + file)}).first;
  }
  found->second.last_use = ++num_uses_;
  return found->second.reader;
}

void PieceReader::read(const ManifestTensor& tensor, int64_t offset, int64_t numel, void* out) {
  const auto total = storage::checked_numel(tensor.shape);
  HYDROFOIL_ASSERT(total.has_value());
  HYDROFOIL_CHECK_ARG(offset >= 0 && numel >= 0 && offset <= *total && numel <= *total - offset, kFunction, "'",
                      tensor.parameter, "' (", tensor.kind, "): got ", numel, " elements at ", offset,
                      ", expected a range within its ", *total, " elements");
  const int64_t element_bytes = storage::dtype_bytes(tensor.dtype);
  auto piece = std::upper_bound(tensor.pieces.begin(), tensor.pieces.end(), offset,
                                [](int64_t at, const ManifestPiece& p) { return at < p.offset + p.numel; });
  char* destination = static_cast<char*>(out);
  while (numel > 0) {
    HYDROFOIL_ASSERT(piece != tensor.pieces.end());
    const int64_t inside = offset - piece->offset;
    const int64_t count = std::min(numel, piece->numel - inside);
    read_piece(tensor, *piece, inside * element_bytes, count * element_bytes, destination);
    destination += count * element_bytes;
    offset += count;
    numel -= count;
    ++piece;
  }
}

void PieceReader::read_piece(const ManifestTensor& tensor, const ManifestPiece& piece, int64_t first_byte,
                             int64_t num_bytes, char* out) {
  const storage::SafetensorsReader& reader = open(piece.file);
  const storage::TensorEntry& entry = reader.entry(piece.tensor);
  const int64_t piece_bytes = piece.numel * storage::dtype_bytes(tensor.dtype);
  HYDROFOIL_CHECK_ARG(entry.dtype == tensor.dtype && entry.num_bytes == piece_bytes, kFunction, "'", reader.path(),
                      "': tensor '", piece.tensor, "': got ", entry.num_bytes, " bytes of ",
                      storage::dtype_name(entry.dtype), ", expected ", piece_bytes, " of ",
                      storage::dtype_name(tensor.dtype), " from the manifest");
  if (verified_.contains(&piece)) {
    reader.read(entry, first_byte, num_bytes, out);
    return;
  }
  storage::Xxh3Stream checksum;
  const int64_t last_byte = first_byte + num_bytes;
  for (int64_t begin = 0; begin < piece_bytes; begin += kChunkBytes) {
    const int64_t end = begin + std::min(kChunkBytes, piece_bytes - begin);
    const bool wanted_whole = begin >= first_byte && end <= last_byte;
    if (!wanted_whole) scratch_.resize(static_cast<size_t>(kChunkBytes));
    char* chunk = wanted_whole ? out + (begin - first_byte) : scratch_.data();
    reader.read(entry, begin, end - begin, chunk);
    checksum.update(chunk, static_cast<size_t>(end - begin));
    const int64_t copy_begin = std::max(begin, first_byte);
    const int64_t copy_end = std::min(end, last_byte);
    if (!wanted_whole && copy_begin < copy_end) {
      std::memcpy(out + (copy_begin - first_byte), chunk + (copy_begin - begin),
                  static_cast<size_t>(copy_end - copy_begin));
    }
  }
  HYDROFOIL_CHECK_ARG(checksum.digest() == piece.checksum, kFunction, "'", reader.path(), "': tensor '", piece.tensor,
                      "': checksum: got ", storage::checksum_text(checksum.digest()), ", expected ",
                      storage::checksum_text(piece.checksum), " from the manifest; the file is damaged");
  verified_.insert(&piece);
}

void PieceReader::verify() {
  for (const ManifestTensor& tensor : manifest_.tensors) {
    for (const ManifestPiece& piece : tensor.pieces) read_piece(tensor, piece, 0, 0, nullptr);
  }
}

}  // namespace hydrofoil::checkpoint
