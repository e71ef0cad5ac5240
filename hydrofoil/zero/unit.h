#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/zero/flat_group.h"
#include "hydrofoil/zero/gradient_bucket.h"

namespace hydrofoil::zero {

// Parameters gathered and reduced together: one flat group for each (dtype, trainable).
struct Unit {
  std::string name;
  std::vector<int64_t> parameters;
  std::vector<std::unique_ptr<FlatGroup>> groups;
  std::vector<std::unique_ptr<GradientBucket>> buckets;   // of the trainable groups, in their order
  std::vector<std::vector<at::Tensor>> optimizer_states;  // of each bucket's owned elements, 1-D
  int num_scopes = 0;                                     // modules whose call needs it
  int64_t num_trainable = 0;
  bool change_logged = false;  // a change of its parameters from outside was reported
};

// Signatures of collectives, compared across ranks.
enum class OpKind : uint64_t { kGather = 1, kReduce = 2, kPublish = 3, kAccess = 4, kControl = 5 };
[[nodiscard]] inline uint64_t op_signature(OpKind kind, int64_t unit) {
  return (static_cast<uint64_t>(kind) << 48) | static_cast<uint64_t>(unit + 1);
}

}  // namespace hydrofoil::zero
