#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "hydrofoil/checkpoint/manifest.h"
#include "hydrofoil/comm/group.h"
#include "hydrofoil/storage/atomic_directory.h"

namespace hydrofoil::checkpoint {

// What this rank holds of one logical tensor: elements [logical_offset, logical_offset + data.numel()) of it,
// flattened.
//
// Over all ranks the records of a (parameter, kind) must cover it exactly once; where ranks hold copies (stage 0), one
// of them passes it, or each a part. An empty `data` only declares the tensor (numel 0, or a rank without a piece).
struct ShardTensorRecord {
  std::string parameter;
  std::string kind;            // "parameter", "master", "exp_avg", ...
  std::vector<int64_t> shape;  // of the logical tensor
  int64_t logical_offset = 0;
  at::Tensor data;  // 1-D, CPU, contiguous
};

struct SaveOptions {
  std::string directory;  // one checkpoint a tag goes below it; all ranks see the same file system
  std::string tag;
  int rank = 0;
  int world_size = 1;
  bool save_latest = true;  // rank 0 points <directory>/latest to the tag at the end
  comm::Group group;        // of all ranks; may be undefined where world_size is 1
  storage::StageObserver
      on_stage;  // progress: the stages of AtomicDirectory, "shard written", "manifest written", "latest written"
};

// Writes <directory>/<tag>, each rank its pieces. Collective; every rank has the same tag and `scalars` (rank 0's are
// kept).
//
// The checkpoint appears whole or not at all: an error on one rank is an error on all, removes what was written, and
// leaves earlier checkpoints, one of the same tag included, and `latest` as they were. Throws InvalidArgument for bad
// records, tags and coverage, SystemError for files, CommError for lost ranks. One writer a directory at a time.
void save_shards(const SaveOptions& options, const std::vector<ShardTensorRecord>& records,
                 const ManifestScalars& scalars);

}  // namespace hydrofoil::checkpoint
