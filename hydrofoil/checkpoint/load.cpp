#include "hydrofoil/checkpoint/load.h"

#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"
#include "hydrofoil/checkpoint/piece_reader.h"
#include "hydrofoil/checkpoint/tags.h"
#include "hydrofoil/memory/torch_dtype.h"

namespace hydrofoil::checkpoint {
namespace {

constexpr const char* kFunction = "load_checkpoint";

}  // namespace

LoadedCheckpoint::LoadedCheckpoint(const std::string& checkpoint_directory)
    : reader_(std::make_unique<PieceReader>(checkpoint_directory)) {}
LoadedCheckpoint::LoadedCheckpoint(LoadedCheckpoint&&) noexcept = default;
LoadedCheckpoint& LoadedCheckpoint::operator=(LoadedCheckpoint&&) noexcept = default;
LoadedCheckpoint::~LoadedCheckpoint() = default;

const Manifest& LoadedCheckpoint::manifest() const { return reader_->manifest(); }

const std::string& LoadedCheckpoint::directory() const { return reader_->directory(); }

bool LoadedCheckpoint::contains(const std::string& parameter, const std::string& kind) const {
  return reader_->find(parameter, kind) != nullptr;
}

const ManifestTensor& LoadedCheckpoint::tensor(const std::string& parameter, const std::string& kind) const {
  const ManifestTensor* found = reader_->find(parameter, kind);
  if (found != nullptr) return *found;
  std::vector<std::string> names;
  for (const ManifestTensor& candidate : manifest().tensors) {
    if (candidate.kind == kind) names.push_back(candidate.parameter);
  }
  HYDROFOIL_CHECK_ARG(!names.empty(), kFunction, "'", directory(), "': it holds no '", kind,
                      "' of any parameter (asked for '", parameter, "')");
  HYDROFOIL_CHECK_ARG(false, kFunction, "'", directory(), "': it holds no '", kind, "' of '", parameter,
                      "'; the nearest name is '", nearest_name(parameter, names), "'");
}

void LoadedCheckpoint::read_range(const std::string& parameter, const std::string& kind, int64_t logical_offset,
                                  int64_t numel, const at::Tensor& out) {
  const ManifestTensor& stored = tensor(parameter, kind);
  HYDROFOIL_CHECK_ARG(out.defined() && out.dim() == 1 && out.is_contiguous() && out.device().is_cpu(), kFunction, "'",
                      parameter, "' (", kind, "): out: expected a 1-D contiguous CPU tensor");
  HYDROFOIL_CHECK_ARG(out.numel() == numel, kFunction, "'", parameter, "' (", kind, "): out: got ", out.numel(),
                      " elements, expected ", numel);
  HYDROFOIL_CHECK_ARG(out.scalar_type() == memory::to_torch_dtype(stored.dtype), kFunction, "'", parameter, "' (", kind,
                      "): out: got dtype ", c10::toString(out.scalar_type()), ", expected ",
                      c10::toString(memory::to_torch_dtype(stored.dtype)), ", which is stored");
  reader_->read(stored, logical_offset, numel, out.mutable_data_ptr());
}

void LoadedCheckpoint::verify() { reader_->verify(); }

LoadedCheckpoint load_shards(const std::string& directory, const std::optional<std::string>& tag) {
  return LoadedCheckpoint(find_checkpoint(directory, tag));
}

}  // namespace hydrofoil::checkpoint
