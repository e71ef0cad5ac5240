#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/storage/safetensors.h"

namespace hydrofoil::models {

struct StoredTensor {
  const storage::SafetensorsReader* file = nullptr;
  const storage::TensorEntry* entry = nullptr;
};

// The tensors of one safetensors file or of all shards that an index names, open for reading.
class WeightFiles {
 public:
  // `path` as for load_weights. Throws InvalidArgument for an index that does not fit its shards, which may be hostile:
  // a name of a file is one in the index's own directory.
  explicit WeightFiles(const std::string& path);

  [[nodiscard]] const std::vector<StoredTensor>& tensors() const { return tensors_; }

 private:
  void open_index(const std::string& path);
  const storage::SafetensorsReader& open(const std::string& path);

  std::vector<std::unique_ptr<storage::SafetensorsReader>> files_;
  std::vector<StoredTensor> tensors_;  // each name once
};

}  // namespace hydrofoil::models
