#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hydrofoil/comm/group.h"
#include "hydrofoil/memory/arena.h"
#include "hydrofoil/zero/flat_group.h"

namespace hydrofoil::zero {

// A sharded parameter that no engine has, for the next one: zero.Init has sharded it when its module was built, in a
// flat group of its own, or its engine was destroyed. Then the parameters of that engine's group are gathered together.
class InitialShard {
 public:
  // Keeps this rank's slice of rank 0's values, in `dtype` where that is given and the parameter is floating, and
  // releases the parameter. Collective.
  InitialShard(const at::Tensor& parameter, std::string name, const comm::Group& group,
               std::optional<at::ScalarType> dtype);
  ~InitialShard();

  // One for each slot of a sharded group whose engine ends; the masters are dropped. Not collective.
  static std::vector<std::shared_ptr<InitialShard>> left_by_engine(std::unique_ptr<FlatGroup> flat,
                                                                   const comm::Group& group);

  // Makes the parameter readable until release(); nested calls count. Collective.
  void gather();
  // With a modifier rank, that rank's values become every rank's. Throws InvalidArgument where the parameter was
  // written without one.
  void release(std::optional<int> modifier_rank);
  [[nodiscard]] bool gathered() const;
  // This rank's part of the parameter: 1-D in its memory order, possibly empty. A view.
  [[nodiscard]] at::Tensor local() const;
  // The parameter has moved into a unit: its memory goes back, with that of the last one of its group. Idempotent;
  // after gather().
  void retire();
  // Whether its group has no other parameter.
  [[nodiscard]] bool alone() const;

 private:
  struct Held;
  InitialShard(std::shared_ptr<Held> held, size_t slot) : held_(std::move(held)), slot_(slot) {}
  [[nodiscard]] const ParameterSlot& slot() const { return flat().slots()[slot_]; }
  [[nodiscard]] FlatGroup& flat() const;

  std::shared_ptr<Held> held_;  // by all parameters of the group; null: retired
  size_t slot_ = 0;
};

}  // namespace hydrofoil::zero
