#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>

#include "hydrofoil/comm/group.h"
#include "hydrofoil/memory/arena.h"
#include "hydrofoil/zero/flat_group.h"

namespace hydrofoil::zero {

// A parameter that was sharded when its module was built (zero.Init), before there is an engine: a flat group of one.
class InitialShard {
 public:
  // Keeps this rank's slice of rank 0's values, in `dtype` where that is given and the parameter is floating, and
  // releases the parameter. Collective.
  InitialShard(const at::Tensor& parameter, std::string name, const comm::Group& group,
               std::optional<at::ScalarType> dtype);
  ~InitialShard();

  // Makes the parameter readable until release(); nested calls count. Collective.
  void gather();
  // With a modifier rank, that rank's values become every rank's. Throws InvalidArgument where the parameter was
  // written without one.
  void release(std::optional<int> modifier_rank);
  [[nodiscard]] bool gathered() const { return holds_ > 0; }
  // This rank's part of the parameter: 1-D in its memory order, possibly empty. A view.
  [[nodiscard]] at::Tensor local() const;
  // Gives its memory back: the parameter has moved into a unit. Idempotent.
  void retire();

 private:
  std::string name_;
  comm::Group group_;
  std::shared_ptr<memory::Arena> arena_;
  std::unique_ptr<FlatGroup> flat_;
  int holds_ = 0;
};

}  // namespace hydrofoil::zero
